"""Stored runs from Python: what was computed comes back as it was."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pandas as pd
import pytest

import backtest_pipeline as bp
from backtest_pipeline.market.errors import InvalidInput, RunNotFound
from backtest_pipeline.pipeline.cross_section.ranked_account import ranked_account
from backtest_pipeline.pipeline.cross_section.ranked_universe import load_universe, universe_at
from backtest_pipeline.pipeline.runs.identity import Window
from backtest_pipeline.pipeline.runs.publish import metrics_table
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.strategies.cross_section.cross_section_file import cross_section_from_toml
from backtest_pipeline_tests.sql import column, execute_sql

RULES = """
kind = "cross_section"
name = "momentum"
score = "close / shift(close, 20) - 1"
side = "long_short"
count = 3
horizon = 5
weights = "score"
"""


@pytest.fixture
def named(refreshed: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A refreshed store, named by the environment."""
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", refreshed.database.conninfo)
    monkeypatch.setenv("BACKTEST_ARTIFACTS_URL", str(refreshed.artifacts.root))
    return refreshed


def asked(**more: object) -> UUID:
    return bp.execute({"kind": "cross_section", "rules": RULES, **more}).run_ids[0]


def test_a_cross_section_comes_back_as_it_was_computed(named: Workspace) -> None:
    told = bp.execute({"kind": "cross_section", "rules": RULES})
    found = bp.get_result(told.run_ids[0])
    assert found.summary == told
    assert bp.get_result(str(told.run_ids[0])[:8]).summary == told

    rule = cross_section_from_toml(RULES.encode(), "the rules")
    batch = load_universe(named, rule, "1D", universe_at(named, "1D", ()))
    account = ranked_account(rule, batch.panel, SimulationConfig(), Window(), "all")
    for name in ("daily_ic", "daily_signals", "daily_weights"):
        computed = account.files[name].to_pandas()
        assert len(computed) > 100
        pd.testing.assert_frame_equal(getattr(found, name), computed, check_exact=True)
    metrics = metrics_table(account.book.account, [str(told.run_ids[0])]).to_pylist()[0]
    of_family = ("n_trials", "n_trials_effective", "dsr", "dsr_effective")
    for name, value in found.summary.metrics.items():
        assert name in of_family or value == metrics[name], name
    figures = account.information.figures()
    assert set(figures) == set(found.summary.information)
    for name, value in found.summary.information.items():
        assert value == figures[name] or (value is None and figures[name] != figures[name]), name
    assert found.summary.information["mean_ic"] == found.daily_ic["ic"].mean()


@pytest.mark.parametrize(
    ("missing", "empty"), [("snapshot_id", "''"), ("dataset_version_ids", "'{}'")]
)
def test_a_run_without_its_inputs_is_an_error_that_names_them(
    named: Workspace, missing: str, empty: str
) -> None:
    run_id = asked()
    execute_sql(named, "ALTER TABLE backtest_runs DROP CONSTRAINT backtest_runs_provenance")
    execute_sql(
        named, f"UPDATE backtest_runs SET {missing} = {empty} WHERE run_id = :id", id=run_id
    )
    with pytest.raises(ValueError, match=f"{run_id} has no {missing}"):
        bp.get_result(run_id)


def test_a_run_on_one_asset_is_no_cross_section_and_the_reverse(named: Workspace) -> None:
    single, run_id = column(named, "SELECT run_id FROM backtest_runs LIMIT 1")[0], asked()
    with pytest.raises(RunNotFound, match="is no cross-section, but full"):
        bp.get_result(single)
    with pytest.raises(InvalidInput, match="ranks a universe, so that it holds several"):
        bp.load_vectorbt(run_id)
    with pytest.raises(InvalidInput, match="is no walk-forward"):
        bp.load_walk_forward(run_id)
    loaded = bp.load_run(run_id)
    assert set(loaded.trades["symbol"]) <= {*bp.get_result(run_id).summary.symbols}
    assert len(loaded.plot().to_dict()["data"]) >= 4


def test_the_report_of_a_cross_section_names_the_asset_of_each_trade(
    named: Workspace, tmp_path: Path
) -> None:
    page = bp.load_run(asked()).report(tmp_path / "ranked.html").read_text()
    table = page[page.index('aria-label="All trades of') :]
    assert ">asset</th>" in table
    assert page.count("<td>S-") > 100
    assert "Weights over time" in page
    assert "price is not shown" not in page
    single = column(named, "SELECT run_id FROM backtest_runs WHERE split = 'full' LIMIT 1")[0]
    assert ">asset</th>" not in bp.load_run(single).report(tmp_path / "one.html").read_text()
