"""The checks on signals: once for each version of the code, and nothing is traded on a leak."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from backtest_pipeline.pipeline import look_ahead_guard
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.defs.running import QUIET, rectangle, require_success, run_job
from backtest_pipeline_tests.leaky import planted
from backtest_pipeline_tests.sql import count, execute_sql, scalar


@pytest.fixture
def peeker(tmp_path: Path, store: Database) -> Iterator[None]:
    """A strategy file of a user's own that knows the next close, and its row in `dim_signals`."""
    execute_sql(store, "INSERT INTO dim_signals VALUES (99, 'peeker', 'peeker', '{}', TRUE)")
    with planted(tmp_path):
        yield


def probes(run: dg.ExecuteInProcessResult) -> list[dg.AssetCheckEvaluation]:
    return [e for e in run.get_asset_check_evaluations() if e.check_name == "look_ahead"]


def test_a_refresh_probes_new_code_once(store: Database, instance: dg.DagsterInstance) -> None:
    for told in ("no look-ahead; features and signals", "this code was tested at 20"):
        run = run_job(instance, "refresh", rectangle("S-BETA|1D", "S-BETA|2D"))
        require_success(run)
        (evaluation,) = probes(run)
        assert evaluation.passed
        assert told in str(evaluation.description)
    assert count(store, "look_ahead_probes WHERE leaks = '[]'") == 1


def test_the_weekly_probe_draws_anew(store: Database, instance: dg.DagsterInstance) -> None:
    from backtest_pipeline.definitions import build_definitions
    from backtest_pipeline.defs.schedules import weekly_look_ahead

    require_success(run_job(instance, "refresh", rectangle("S-BETA|1D", "S-BETA|1D")))
    context = dg.build_schedule_context(
        instance, scheduled_execution_time=datetime(2026, 11, 23, 6, 40, tzinfo=UTC)
    )
    request = weekly_look_ahead(context)
    assert isinstance(request, dg.RunRequest)
    run = (
        build_definitions()
        .resolve_job_def("look_ahead")
        .execute_in_process(
            {**request.run_config, **QUIET}, instance=instance, raise_on_error=False
        )
    )
    require_success(run)
    assert scalar(store, "SELECT count(DISTINCT seed) FROM look_ahead_probes") == 2


@pytest.mark.usefixtures("peeker")
def test_a_preset_that_looks_ahead_is_left_out_and_the_others_are_traded(
    store: Database, instance: dg.DagsterInstance
) -> None:
    run = run_job(instance, "refresh", rectangle("S-BETA|1D", "S-BETA|1D"))
    require_success(run)
    evaluations = {e.check_name: e for e in run.get_asset_check_evaluations()}
    leaky = evaluations.pop("no_preset_left_out")
    assert not leaky.passed
    assert not leaky.blocking
    assert "1 presets are left out: peeker" in str(leaky.description)
    assert "peeker on S-ETA|1D looks ahead" in str(leaky.metadata["peeker"].value)
    assert all(evaluation.passed for evaluation in evaluations.values())
    for table in ("signals", "backtest_runs"):
        assert count(store, table) > 0
        assert count(store, f"{table} WHERE signal_id = 99") == 0


@pytest.mark.usefixtures("peeker")
def test_what_the_guard_has_missed_blocks_once_and_is_left_out_from_then_on(
    store: Database, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as blind:
        blind.setattr(look_ahead_guard, "require_no_look_ahead", lambda *_: None)
        run = run_job(instance, "refresh", rectangle("S-BETA|1D", "S-BETA|1D"))
    assert not run.success
    (evaluation,) = probes(run)
    assert not evaluation.passed
    assert evaluation.blocking
    assert "1 outputs look ahead (signal peeker)" in str(evaluation.description)
    assert count(store, "signals") > 0
    assert count(store, "backtest_runs") == 0
    assert scalar(store, "SELECT jsonb_array_length(leaks) FROM look_ahead_probes") > 1
    require_success(run_job(instance, "refresh", rectangle("S-BETA|1D", "S-BETA|1D")))
    assert count(store, "backtest_runs") > 0
    assert count(store, "backtest_runs WHERE signal_id = 99") == 0
