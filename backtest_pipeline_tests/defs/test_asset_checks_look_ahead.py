"""The check on signals: once for each version of the code, and nothing is traded on a leak."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import dagster as dg
import pytest

import backtest_pipeline.strategies as package
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.strategies import registry
from backtest_pipeline_tests.defs.running import QUIET, rectangle, require_success, run_job
from backtest_pipeline_tests.sql import count, execute_sql, scalar

PEEKER = dedent("""
    import numpy as np
    import pandas as pd

    from backtest_pipeline.strategies.strategy import Params, Strategy, Conditions


    class Peeker(Params):
        pass


    def _conditions(panel, params):
        tomorrow = pd.Series(panel["close"]).groupby(panel.segment_of_row).shift(-1)
        up = (tomorrow > panel["close"]).to_numpy(bool)
        return Conditions(up, ~up, ~up, up)


    STRATEGY = Strategy("peeker", Peeker, lambda _: ("close",), _conditions)
""")


def _forget() -> None:
    for found in (registry.strategies, registry.strategy_hash, registry._modules):
        found.cache_clear()


@pytest.fixture
def peeker(tmp_path: Path, store: Database) -> Iterator[None]:
    """A strategy file of a user's own that knows the next close, and its row in `dim_signals`."""
    (tmp_path / "peeker.py").write_text(PEEKER)
    execute_sql(store, "INSERT INTO dim_signals VALUES (99, 'peeker', 'peeker', '{}', TRUE)")
    package.__path__.append(str(tmp_path))
    _forget()
    yield
    package.__path__.remove(str(tmp_path))
    _forget()
    del sys.modules[f"{package.__name__}.peeker"]


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
        .resolve_job_def("probe_look_ahead")
        .execute_in_process(
            {**request.run_config, **QUIET}, instance=instance, raise_on_error=False
        )
    )
    require_success(run)
    assert scalar(store, "SELECT count(DISTINCT seed) FROM look_ahead_probes") == 2


@pytest.mark.usefixtures("peeker")
def test_nothing_is_traded_on_signals_that_look_ahead(
    store: Database, instance: dg.DagsterInstance
) -> None:
    run = run_job(instance, "refresh", rectangle("S-BETA|1D", "S-BETA|1D"))
    assert not run.success
    (evaluation,) = probes(run)
    assert not evaluation.passed
    assert evaluation.blocking
    assert "1 outputs look ahead (signal peeker)" in str(evaluation.description)
    assert count(store, "signals") > 0
    assert count(store, "backtest_runs") == 0
    assert scalar(store, "SELECT jsonb_array_length(leaks) FROM look_ahead_probes") > 1
