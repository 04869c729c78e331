"""Stored results are read as they were computed, and each way of missing one has its error."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from uuid import UUID, uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import (
    ArtifactCorrupt,
    InvalidInput,
    ProvenanceMissing,
    ResultPathMissing,
    RunNotFound,
)
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.replay.explain import explain_runs
from backtest_pipeline.pipeline.replay.replay import replay_runs
from backtest_pipeline.pipeline.runs.compare import compare_runs
from backtest_pipeline.pipeline.runs.query import (
    SERIES,
    find_runs,
    get_run,
    list_runs,
    pin,
    run_equity,
    run_monthly,
    run_rolling,
    run_summary,
    run_timeseries,
    run_trades,
    unpin,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.run_tables.recorded_runs import recorded_runs
from backtest_pipeline.storage.run_tables.run_search import RunFilter
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.pipeline.processes import MARKET, PARTITIONS


@pytest.fixture(scope="module")
def stored(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A store with a refreshed market; tests leave it as it is."""
    for database in database_like(template, "backtest"):
        workspace = Workspace(database, ArtifactStore(tmp_path_factory.mktemp("stored")))
        refresh(workspace, MARKET, PARTITIONS)
        yield workspace


@pytest.fixture
def one(stored: Workspace) -> UUID:
    """A run with trades at 1D."""
    wanted = RunFilter(text="ema_9_21", symbol="A", timeframe="1D")
    return list_runs(stored, wanted).rows[0]["run_id"]


def test_all_runs_are_listed_page_by_page(stored: Workspace) -> None:
    found, cursor = [], None
    while True:
        page = list_runs(stored, limit=25, after=cursor)
        found += page.rows
        if (cursor := page.next) is None:
            break
    assert len({row["run_id"] for row in found}) == len(found) == 6 * len(PARTITIONS)
    assert {row["trade_count"] for row in found} != {None}


def test_a_run_says_what_it_is_made_from_and_why_metrics_are_undefined(
    stored: Workspace, one: UUID
) -> None:
    run = get_run(stored, one)
    assert run.name == "ema_9_21 on A|1D"
    assert run.metrics["sharpe"] is not None
    assert run.significance["dsr"] is not None
    assert run.provenance["environment"]["versions"]["numpy"] == np.__version__
    assert set(run.undefined) == {
        name for name, v in {**run.metrics, **run.significance}.items() if v is None
    }
    assert run.config["costs"]["fee_bps"] >= 0
    assert run.results["trades"] == run.metrics["trade_count"]
    assert run.pin is None


def test_a_pin_is_seen_and_taken_back(stored: Workspace, one: UUID) -> None:
    pin(stored, [one], "ann", "for the paper")
    assert (get_run(stored, one).pin or {})["note"] == "for the paper"
    assert next(r for r in list_runs(stored, limit=1000).rows if r["run_id"] == one)["pinned"]
    unpin(stored, [one])
    assert get_run(stored, one).pin is None
    with pytest.raises(RunNotFound):
        pin(stored, [one, uuid4()], "ann")
    assert get_run(stored, one).pin is None


def test_the_trades_are_those_of_the_table(stored: Workspace, one: UUID) -> None:
    page = run_trades(stored, one, limit=3)
    rest = run_trades(stored, one, limit=1000, after=page.next)
    trades = [*page.rows, *rest.rows]
    run = get_run(stored, one)
    assert len(trades) == run.metrics["trade_count"]
    assert sum(t["fees"] for t in trades) == pytest.approx(run.metrics["fees_paid"])


def test_the_series_are_those_of_the_artifacts(stored: Workspace, one: UUID) -> None:
    run = get_run(stored, one)
    series = run_timeseries(stored, one)
    assert series.column_names == ["ts", *SERIES]
    assert len(series) == run.n_bars == 250
    equity = series["equity"].to_numpy()
    assert equity[-1] / equity[0] - 1 == pytest.approx(run.metrics["total_return"])
    assert series["drawdown"].to_numpy().min() == run.metrics["max_drawdown"]
    assert run_equity(stored, one).column_names == ["ts", "equity", "benchmark"]
    months = run_monthly(stored, one).to_pydict()
    assert np.prod(1 + np.array(months["return"])) - 1 == pytest.approx(run.metrics["total_return"])
    assert months["month"][0] == date.fromisoformat(str(series["ts"][0])[:10]).replace(day=1)


@pytest.mark.parametrize("points", [10, 11, 57, 249, 250, 1000])
def test_thinned_series_keep_their_extremes_and_ends(
    stored: Workspace, one: UUID, points: int
) -> None:
    whole, thin = run_timeseries(stored, one), run_timeseries(stored, one, points=points)
    assert len(thin) <= points
    for name in SERIES:
        values = whole[name].to_numpy(), thin[name].to_numpy()
        assert values[0].min() == values[1].min()
        assert values[0].max() == values[1].max()
    assert (thin["ts"][0], thin["ts"][-1]) == (whole["ts"][0], whole["ts"][-1])
    shown = set(thin["ts"].to_pylist())
    assert whole.filter(pa.array([t in shown for t in whole["ts"].to_pylist()])).equals(
        thin.combine_chunks()
    )


def test_too_few_points_for_the_extremes_are_refused(stored: Workspace, one: UUID) -> None:
    with pytest.raises(InvalidInput, match="10 points at least"):
        run_timeseries(stored, one, points=9)


def test_rolling_figures_are_the_metrics_of_each_window(stored: Workspace, one: UUID) -> None:
    series = run_timeseries(stored, one)
    daily = pd.Series(
        series["equity"].to_numpy(), series["ts"].cast(pa.int64()).to_numpy() // DAY_US
    )
    found = run_rolling(stored, one, 30).to_pandas().set_index("day")
    returns = daily.pct_change().iloc[1:].rolling(30)
    sharpe = (returns.mean() / returns.std() * np.sqrt(365)).iloc[29:]
    moves = returns.std().iloc[29:].to_numpy() > 1e-13
    assert len(found) == len(daily) - 30
    assert moves.any()
    np.testing.assert_allclose(found["sharpe"].to_numpy()[moves], sharpe[moves], rtol=1e-6)
    assert found["sharpe"].isna().to_numpy().tolist() == (~moves).tolist()
    total = (daily / daily.shift(30) - 1).dropna()
    np.testing.assert_allclose(found["total_return"], total, atol=1e-12)
    last_day = pd.Timestamp(series["ts"][-1].as_py()).date()
    assert found.index[-1] == last_day


def test_a_window_longer_than_the_run_has_no_figures(stored: Workspace, one: UUID) -> None:
    assert len(run_rolling(stored, one, 250)) == 0
    with pytest.raises(InvalidInput, match="2 days at least"):
        run_rolling(stored, one, 1)


def test_runs_are_compared_by_what_differs(stored: Workspace, one: UUID) -> None:
    other = list_runs(stored, RunFilter(text="ema_21_50", symbol="A", timeframe="1D")).rows[0]
    third = list_runs(stored, RunFilter(text="ema_9_21", symbol="B", timeframe="1D")).rows[0]
    found = compare_runs(stored, [one, other["run_id"], third["run_id"]])
    config = {diff.name: diff.values for diff in found.config}
    assert config == {
        "symbol": ("A", "A", "B"),
        "params.fast": (9, 21, 9),
        "params.slow": (21, 50, 21),
    }
    sharpe = next(diff for diff in found.metrics if diff.name == "sharpe")
    assert sharpe.changes[0] == 0
    assert sharpe.changes[1] == sharpe.values[1] - sharpe.values[0]
    assert [diff.name for diff in found.data] == ["A|1D", "B|1D"]
    assert found.data[0].values[2] is None
    assert found.code == ()
    assert not found.results_are_equal
    assert asdict(found)


def test_a_comparison_takes_two_runs(stored: Workspace, one: UUID) -> None:
    for ids in ([], [one], [one, one]):
        with pytest.raises(InvalidInput, match="two or more different runs"):
            compare_runs(stored, ids)


def test_a_run_that_is_not_stored_has_its_error(stored: Workspace, one: UUID) -> None:
    for read in (get_run, run_trades, run_equity, run_timeseries, run_monthly, run_rolling):
        with pytest.raises(RunNotFound, match="no run"):
            read(stored, uuid4())
    assert find_runs(stored, [str(one)[:8]]) == [one]
    with pytest.raises(RunNotFound, match="unknown run"):
        find_runs(stored, ["ffffffff-ffff"])
    for read in (replay_runs, lambda store, ids: explain_runs(store, *ids)):
        with pytest.raises(RunNotFound, match="unknown run"):
            read(stored, ["ffffffff-ffff", str(one)])
    with stored.database.begin() as connection, pytest.raises(RunNotFound, match="no run"):
        recorded_runs(connection, [uuid4()])


def test_each_way_of_missing_a_result_has_its_error(workspace: Workspace) -> None:
    refresh(workspace, MARKET, PARTITIONS[:1], SimulationConfig(CostModel(fee_bps=1)))
    damaged = next(row["run_id"] for row in list_runs(workspace).rows if row["trade_count"])
    folder = workspace.artifacts.root / get_run(workspace, damaged).artifact_uri
    with (folder / "equity.parquet").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff\x00\xff")
    reader = Workspace(workspace.database, ArtifactStore(workspace.artifacts.root))
    with pytest.raises(ArtifactCorrupt, match=r"equity\.parquet has changed"):
        run_equity(reader, damaged)
    shutil.rmtree(folder)
    for read in (get_run, run_equity, run_monthly):
        with pytest.raises(ResultPathMissing, match="run the backtest again"):
            read(workspace, damaged)
    assert run_trades(workspace, damaged).rows
    assert run_summary(workspace, damaged).metrics["trade_count"]
    with workspace.database.begin() as connection:
        connection.execute(
            sa.text("ALTER TABLE backtest_runs DROP CONSTRAINT backtest_runs_provenance")
        )
        connection.execute(sa.text("UPDATE backtest_runs SET snapshot_id = ''"))
    with pytest.raises(ProvenanceMissing, match="has no snapshot_id"):
        get_run(workspace, damaged)
