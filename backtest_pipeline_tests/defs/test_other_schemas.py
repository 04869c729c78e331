"""The code location on a store whose schema is not the one that this release applies."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.sensors import dead_runs, requested_jobs
from backtest_pipeline_tests.other_schemas import OtherSchema


def test_runs_fail_with_the_sentence_and_the_sensor_skips_with_it(
    other_schema: OtherSchema,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", other_schema.database.conninfo)
    monkeypatch.setenv("BACKTEST_ARTIFACTS_URL", str(tmp_path / "artifacts"))
    before = other_schema.contents()
    for sensor in (requested_jobs, dead_runs):
        tick = sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(tick, dg.SkipReason)
        assert tick.skip_message == other_schema.sentence
    with pytest.raises(dg.DagsterResourceFunctionError) as failed:
        build_definitions().resolve_job_def("leaderboard_job").execute_in_process(instance=instance)
    assert str(failed.value.user_exception) == other_schema.sentence
    assert other_schema.contents() == before
