"""What workers of a pool make of work that is spread over them is what one process makes of it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import psutil
import pytest

from backtest_pipeline.market.errors import ArtifactCorrupt
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits import engine_cross_check, stored_metrics
from backtest_pipeline.pipeline.audits.engine_cross_check import second_opinion
from backtest_pipeline.pipeline.audits.negative_controls import Controls, run_negative_controls
from backtest_pipeline.pipeline.audits.stored_metrics import check_stored_metrics
from backtest_pipeline.pipeline.pools import spread
from backtest_pipeline.pipeline.pools.processes import Processes
from backtest_pipeline.pipeline.pools.work_pool import PoolWork, Threads
from backtest_pipeline.pipeline.replay import replay
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.specs import SweepSpec
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig
from backtest_pipeline.pipeline.stages.rollups import roll_up_each
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.use_cases.backtest import sweep_on_demand
from backtest_pipeline.pipeline.use_cases.sweep import Exploration
from backtest_pipeline.pipeline.use_cases.walk_forward import (
    prepare_walk_forward,
    run_walk_forward,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.optimizer import Search
from backtest_pipeline.research.validation.schedule import Schedule
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import Settings, load_settings
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.running_up import arguments
from backtest_pipeline_tests.sql import column, execute_sql, rows

A = TypeVar("A")
R = TypeVar("R")

MARKET = StaticSource({"1D": daily_panel(dict.fromkeys("ABC", 300), seed=3)})
PARTITIONS = [Partition(asset, tf) for asset in "ABC" for tf in ("1D", "3D")]
RESULTS = (
    *("backtest_runs", "backtest_trades", "backtest_metrics", "trials"),
    *("walk_forward_runs", "walk_forward_folds", "portfolio_runs", "portfolio_weights"),
    *("negative_controls", "quarantined_runs"),
)
PASSING = "{started_at,completed_at,created_at,deflated_at,computed_at,quarantined_at}"


class CountingProcesses(Processes):
    """Worker processes, and how many pieces of each work they were given."""

    def __init__(self, settings: Settings, size: int) -> None:
        super().__init__(settings, size)
        self.given: Counter[str] = Counter()

    def do(self, work: PoolWork[A, R], item: A) -> R:
        self.given[work.name] += 1
        return super().do(work, item)


@dataclass(frozen=True)
class Twins:
    """Two stores with the same contents: one without workers, and one with two."""

    alone: Workspace
    spread: Workspace

    def given(self, name: str) -> int:
        """How many pieces of this work the workers were given since the last time."""
        assert isinstance(self.spread.pool, CountingProcesses)
        return self.spread.pool.given.pop(name, 0)

    def assert_equal(self) -> None:
        """They hold the same results, but for when they were stored."""
        for table in RESULTS:
            query = f"SELECT to_jsonb(t) - '{PASSING}'::text[] AS row FROM {table} t"
            alone, shared = (
                sorted(map(json.dumps, column(store, query))) for store in (self.alone, self.spread)
            )
            differing = [pair for pair in zip(alone, shared, strict=True) if len({*pair}) > 1]
            assert not differing, (table, [_differences(*pair) for pair in differing])


def _differences(alone: str, shared: str) -> dict[str, tuple[Any, Any]]:
    one, other = json.loads(alone), json.loads(shared)
    return {name: (one[name], other[name]) for name in one if one[name] != other[name]}


@pytest.fixture(scope="module")
def twins(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    folder = tmp_path_factory.mktemp("twins")
    copied = contextmanager(database_like)
    with copied(template, "backtest") as first:
        refresh(Workspace(first, ArtifactStore(folder / "alone")), MARKET, PARTITIONS)
        first.close()
        shutil.copytree(folder / "alone", folder / "spread")
        name = first.where.rpartition("/")[2]
        with copied(template, name) as alone, copied(template, name) as shared:
            settings = load_settings(
                run_store_mode="postgres",
                postgres_dsn=shared.conninfo,
                artifacts_url=str(folder / "spread"),
                home=folder / "home",
            )
            pool = CountingProcesses(settings, 2)
            try:
                yield Twins(
                    Workspace(alone, ArtifactStore(folder / "alone")),
                    Workspace(shared, ArtifactStore(folder / "spread"), pool=pool),
                )
            finally:
                pool.close()


@pytest.fixture(autouse=True)
def however_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is small is spread as well."""
    monkeypatch.setattr(spread, "FEWEST_SIMULATED", 0)


def rates() -> FundingRates:
    ts = pd.date_range("2025-01-01", "2026-01-02", freq="8h", tz="UTC")
    drawn = np.random.default_rng(3).normal(1e-4, 2e-4, len(ts))
    return FundingRates.of({"A": pd.Series(drawn, ts)})


def walked(
    workspace: Workspace, terms: RunTerms, search: Search, tf: str = "1D", *, rebuild: bool = False
) -> None:
    plan = WalkForwardPlan(Schedule(40, 10, "rolling"), search)
    prepared = prepare_walk_forward(
        workspace, MARKET, asset="A", tf=tf, terms=terms, schedule=plan.schedule
    )
    run_walk_forward(
        workspace,
        prepared,
        strategy="ema_crossover",
        params={"fast": [5, 9, 12], "slow": [21, 30]},
        terms=terms,
        plan=plan,
        rebuild=rebuild,
    )


@pytest.mark.parametrize(
    ("terms", "search"),
    [
        (RunTerms(SimulationConfig()), Search()),
        (
            RunTerms(
                SimulationConfig(stops=StopRules(trailing_atr=2.0)),
                Window(date(2025, 6, 1), date(2025, 12, 1)),
                funding=rates(),
            ),
            Search("tpe", most=5),
        ),
    ],
    ids=["usual", "with a window and funding"],
)
def test_a_walk_forward(twins: Twins, terms: RunTerms, search: Search) -> None:
    for workspace in (twins.alone, twins.spread):
        walked(workspace, terms, search)
    assert twins.given("folds ema_crossover") > 1
    twins.assert_equal()


def test_a_walk_forward_again(twins: Twins) -> None:
    for workspace in (twins.alone, twins.spread):
        walked(workspace, RunTerms(SimulationConfig(delay_bars=1)), Search())
    done = "SELECT count(DISTINCT computed_at) FROM walk_forward_folds"
    before = column(twins.spread, done)
    walked(twins.spread, RunTerms(SimulationConfig(delay_bars=1)), Search())
    assert column(twins.spread, done) == before, "stored folds stay"
    walked(twins.spread, RunTerms(SimulationConfig(delay_bars=1)), Search(), rebuild=True)
    twins.assert_equal()


def swept(workspace: Workspace, **given: object) -> Exploration:
    spec = SweepSpec.model_validate(
        {
            "symbol": "B",
            "strategy": "ema_crossover",
            "params": {"fast": list(range(5, 30)), "slow": list(range(35, 50))},
            **given,
        }
    )
    return sweep_on_demand(workspace, MARKET, spec, most=500)


SHORT = {
    "timeframe": "3D",
    "start": "2025-06-01",
    "metric": "total_return",
    "params": {"fast": list(range(2, 12)), "slow": list(range(12, 26))},
}


@pytest.mark.parametrize(
    ("given", "n_pieces"),
    [({}, 3), (SHORT, 2)],
    ids=["usual", "with daily marks and a window"],
)
def test_a_sweep(twins: Twins, given: dict[str, Any], n_pieces: int) -> None:
    alone, shared = (swept(workspace, **given) for workspace in (twins.alone, twins.spread))
    pd.testing.assert_frame_equal(alone.table, shared.table, check_exact=True)
    assert repr(alone.selection) == repr(shared.selection)  # NaN is not equal to itself
    assert (alone.best, alone.subject) == (shared.best, shared.subject)
    assert twins.given("sweep ema_crossover") == n_pieces
    twins.assert_equal()


def test_negative_controls(twins: Twins) -> None:
    for workspace in (twins.alone, twins.spread):
        found = run_negative_controls(workspace, Controls(60, 250, planted=(4.0,)))
        assert [row["n_searches"] for row in found] == [60] * 4
    assert twins.given("searching random walk") == 2
    twins.assert_equal()


def test_rollups_of_several_timeframes(twins: Twins) -> None:
    config = RollupConfig(lookback=20, schemes=("equal_weight", "hrp"))
    built = [
        dict(roll_up_each(workspace, ["1D", "3D"], config))
        for workspace in (twins.alone, twins.spread)
    ]
    assert built[0] == built[1] == {"1D": 14, "3D": 14}
    assert twins.given("portfolio_rollups") == 2
    twins.assert_equal()


def test_one_timeframe_fails_and_the_other_is_rolled_up(twins: Twins) -> None:
    config = RollupConfig(lookback=25, schemes=("equal_weight",))
    query = "SELECT artifact_uri FROM backtest_runs WHERE tf = '3D' AND is_current LIMIT 1"
    (uri,) = column(twins.spread, query)
    file = twins.spread.artifacts.at_hand([uri]) / uri / "equity.parquet"
    whole = file.read_bytes()
    file.unlink()  # it may be a link to what both stores have
    file.write_bytes(b"damaged")
    found = dict(roll_up_each(twins.spread, ["1D", "3D"], config))
    assert found["1D"] == 7
    assert isinstance(found["3D"], ArtifactCorrupt)
    file.write_bytes(whole)
    assert dict(roll_up_each(twins.spread, ["1D", "3D"], config)) == {"1D": 0, "3D": 7}
    assert dict(roll_up_each(twins.alone, ["1D", "3D"], config)) == {"1D": 7, "3D": 7}
    twins.assert_equal()


def test_stored_metrics_that_were_edited(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_metrics, "RUNS_A_PIECE", 5)
    (some,) = column(twins.spread, "SELECT min(run_id::text) FROM backtest_runs WHERE is_current")
    edit = "UPDATE backtest_metrics SET trade_count = trade_count {} WHERE run_id::text = :id"
    for workspace in (twins.alone, twins.spread):
        assert execute_sql(workspace, edit.format("+ 1"), id=some)
    alone, shared = (check_stored_metrics(w) for w in (twins.alone, twins.spread))
    assert alone == shared
    assert list(map(str, shared.differing)) == [some]
    assert twins.given("stored_metrics") > 1
    for workspace in (twins.alone, twins.spread):
        execute_sql(workspace, edit.format("- 1"), id=some)


@pytest.mark.slow
def test_a_second_opinion(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_cross_check, "_RUNS_AT_ONCE", 20)
    alone, shared = (second_opinion(w) for w in (twins.alone, twins.spread))
    assert alone == shared
    assert list(alone.differing) == list(shared.differing)
    assert shared.agrees > 20
    assert twins.given("second_opinion") > 1


def test_replays(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "FEWEST_REPLAYED", 4)
    query = (
        "SELECT run_id FROM backtest_metrics JOIN backtest_runs r USING (run_id)"
        " WHERE r.split = 'full' AND r.is_current ORDER BY trade_count DESC, run_id LIMIT 8"
    )
    ids = column(twins.spread, query)
    moved = "UPDATE backtest_trades SET size = size * {} WHERE run_id = :id AND trade_no = 1"
    assert execute_sql(twins.spread, moved.format(2), id=ids[3])
    seen: list[int] = []
    told = replace(twins.spread, progress=lambda _stage, n_done, _total: seen.append(n_done))
    found = replay_runs(told, ids)
    assert [one.run_id for one in found] == ids
    assert [one.verdict is ReplayVerdict.SAME for one in found] == [i != 3 for i in range(8)]
    assert column(twins.spread, "SELECT run_id FROM quarantined_runs") == [ids[3]]
    assert seen == [0, 4, 8]
    assert twins.given("replay") == 2
    execute_sql(twins.spread, moved.format(0.5), id=ids[3])
    execute_sql(twins.spread, "DELETE FROM quarantined_runs")
    twins.assert_equal()


def test_a_walk_forward_whose_workers_are_killed(twins: Twins) -> None:
    killed: list[int] = []

    def heard(stage: str, n_done: int, _total: int) -> None:
        if stage.startswith("folds") and n_done and not killed:
            for worker in workers():
                worker.kill()
                killed.append(worker.pid)

    terms = RunTerms(SimulationConfig(initial_cash=500.0))
    walked(twins.alone, terms, Search("tpe", most=12))
    walked(replace(twins.spread, progress=heard), terms, Search("tpe", most=12))
    assert killed
    twins.assert_equal()


def workers() -> list[psutil.Process]:
    """The worker processes of this one, of whichever pool."""
    servers = [p for p in psutil.Process().children() if "forkserver" in arguments(p)]
    return [worker for server in servers for worker in server.children()]


def test_a_walk_forward_that_is_interrupted_goes_on_where_it_was(twins: Twins) -> None:
    def heard(stage: str, n_done: int, _total: int) -> None:
        if stage.startswith("folds") and n_done:
            raise KeyboardInterrupt

    terms = RunTerms(SimulationConfig(initial_cash=700.0))
    walked(twins.alone, terms, Search("tpe", most=12))
    with pytest.raises(KeyboardInterrupt):
        walked(replace(twins.spread, progress=heard), terms, Search("tpe", most=12))
    known = "SELECT fold_key, computed_at FROM walk_forward_folds"
    before = {row["fold_key"]: row["computed_at"] for row in rows(twins.spread, known)}
    walked(twins.spread, terms, Search("tpe", most=12))
    after = {row["fold_key"]: row["computed_at"] for row in rows(twins.spread, known)}
    assert before == {key: at for key, at in after.items() if key in before}
    assert len(before) < len(after)
    twins.assert_equal()


def test_pieces_are_whole_parts_in_their_order() -> None:
    pool = Threads(2)
    assert spread.pieces_of(pool, []) == []
    assert spread.pieces_of(pool, [1, 2, 3]) == [[1], [2], [3]]
    assert spread.pieces_of(pool, list(range(8)), smallest=4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [len(piece) for piece in spread.pieces_of(pool, list(range(20)))] == [3, 3, 4, 3, 3, 4]


def test_nothing_is_spread_within_one_process_and_little_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Processes(load_settings(), 2)  # has no process yet
    monkeypatch.setattr(spread, "FEWEST_SIMULATED", 10)
    assert spread.is_spread(pool, 10)
    assert not spread.is_spread(pool, 9)
    assert not spread.is_spread(Threads(2), 10)
