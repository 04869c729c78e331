"""Ranks are those among all stored assets, through every door, and part of a run's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.audits.incremental import recomputed_signals
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.presets import left_out_presets
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.results import RunResult, SweepResult, WalkForwardResult
from backtest_pipeline.pipeline.specs import RunSpec, SweepSpec, WalkForwardSpec
from backtest_pipeline.pipeline.stages.columns.columns_stage import refresh_columns
from backtest_pipeline.pipeline.stages.columns.stored_columns import with_own_columns
from backtest_pipeline.pipeline.stages.external.external_reader import ExternalReader
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS, load_batch
from backtest_pipeline.pipeline.use_cases.refresh import refresh_features
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.strategies.rules.ranks import with_ranks
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.own_columns import scores
from backtest_pipeline_tests.own_strategies import own_strategies, write
from backtest_pipeline_tests.pipeline.conftest import copied
from backtest_pipeline_tests.pipeline.markets import (
    StaticSource,
    assert_same,
    contents,
    daily_panel,
    refresh,
)
from backtest_pipeline_tests.sql import column
from backtest_pipeline_tests.theirs import Theirs

STRONGEST = """
name = "strongest"
long_entry = "rank_pct(ret) > 0.7"
long_exit = "rank_pct(ret) < 0.5"
[params]
days = { default = 20, min = 1, max = 200, grid = [10, 20, 40] }
[define]
ret = "close / shift(close, days) - 1"
[presets.strongest_20]
"""
RANK = "rank_pct((close / shift(close, 20)) - 1)"
LENGTHS = {"A": 380, "B": 380, "C": 380, "D": 300, "E": 200}
BARS = daily_panel(LENGTHS)
MARKET = StaticSource({"1D": BARS})
PARTITIONS = [Partition(asset, tf) for asset in LENGTHS for tf in ("1D", "1W")]


@pytest.fixture(autouse=True)
def strategies(tmp_path: Path) -> Iterator[Path]:
    with own_strategies(tmp_path / "strategies", {"strongest.toml": STRONGEST}) as folder:
        yield folder


@pytest.fixture
def store(workspace: Workspace, tmp_path: Path) -> Workspace:
    return replace(workspace, columns_folder=tmp_path / "columns")


@pytest.fixture(scope="module")
def ranked_once(
    template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Name of a database and artifacts that a refresh of all assets leaves."""
    root = tmp_path_factory.mktemp("ranked")
    for database in database_like(template, "backtest"):
        with own_strategies(root / "strategies", {"strongest.toml": STRONGEST}):
            artifacts = root / "artifacts"
            reports = refresh(Workspace(database, ArtifactStore(artifacts)), MARKET, PARTITIONS)
            assert not any(report.failed for report in reports.values())
        database.close()
        yield database.where.rpartition("/")[2], artifacts


@pytest.fixture
def ranked(
    template: Database, ranked_once: tuple[str, Path], strategies: Path, tmp_path: Path
) -> Iterator[Workspace]:
    """`store` after a refresh of all assets."""
    for workspace in copied(template, *ranked_once, tmp_path / "ranked"):
        yield replace(workspace, columns_folder=tmp_path / "columns")


def runs(workspace: Workspace, condition: str = "strategy = 'strongest'") -> dict[str, str]:
    """Ids of the current runs by preset, asset and timeframe."""
    query = (
        "SELECT signal_name || ' ' || symbol || ' ' || tf || ' ' || run_id FROM backtest_runs"
        f" WHERE is_current AND {condition}"
    )
    return dict(line.rsplit(" ", 1) for line in column(workspace, query))


def generations(workspace: Workspace) -> list[str]:
    """The generations of the stored ranks."""
    query = "SELECT generation FROM dataset_versions WHERE dataset = :dataset ORDER BY id, tf"
    return column(workspace, query, dataset=f"columns:{RANK}")


def until(days_less: int) -> StaticSource:
    return StaticSource({"1D": BARS.take(int(BARS.ts.max()) - days_less * DAY_US >= BARS.ts)})


def of(*assets: str) -> StaticSource:
    return StaticSource({"1D": BARS.select(assets)})


def asked(store: Workspace, spec: RunSpec | SweepSpec | WalkForwardSpec) -> str:
    """The id of the run that a spec gives from what is stored."""
    found = execute(store, load_settings(bars=""), spec)
    assert isinstance(found, RunResult | SweepResult | WalkForwardResult)
    return str(found.run_ids[-1])


def test_a_refresh_ranks_all_stored_assets(ranked: Workspace) -> None:
    assert left_out_presets(ranked) == {}
    assert len(runs(ranked)) == len(PARTITIONS)
    found = recomputed_signals(ranked)
    assert (len(found.partitions), found.differing) == (8, ())
    again = refresh(ranked, MARKET, PARTITIONS)
    assert {report.counts.get("unchanged") for report in again.values()} == {len(PARTITIONS)}
    rank = with_ranks(build_features(BARS), [RANK])[RANK]
    entries = column(
        ranked,
        "SELECT floor(extract(epoch FROM ts))::bigint FROM signals JOIN dim_assets USING (id)"
        " JOIN dim_signals USING (signal_id) WHERE strategy = 'strongest' AND symbol = 'E'"
        " AND tf = '1D' AND direction = 'long' AND action = 'entry' ORDER BY 1",
    )
    own = BARS.rows_of("E")
    holds = rank[own] > 0.7
    first = holds & ~np.append(False, holds[:-1])
    assert entries == (BARS.ts[own][first] // 1_000_000).tolist()
    assert len(entries) > 5


def test_ranks_among_a_part_of_the_assets_are_named(
    store: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    refresh(store, MARKET, [p for p in PARTITIONS if p.timeframe == "1D"])
    assert "ranks at" not in caplog.text
    refresh(store, MARKET, [Partition("A", "1W")])
    assert "ranks at 1W are among 1 of 5 assets" in caplog.text
    assert "ranks at 1D" not in caplog.text


def test_one_symbol_has_the_ranks_of_all(ranked: Workspace) -> None:
    known = runs(ranked)
    for asset in ("A", "E"):
        spec = RunSpec(symbol=asset, timeframe="1D", preset="strongest_20")
        assert asked(ranked, spec) == known[f"strongest_20 {asset} 1D"]
    refresh(ranked, of("E"), [Partition("E", "1D"), Partition("E", "1W")], rebuild=True)
    assert runs(ranked) == known


def test_partitions_one_by_one_give_what_all_at_once_give(
    store: Workspace, fresh_store: Callable[[], Workspace]
) -> None:
    other = replace(fresh_store(), columns_folder=store.columns_folder)
    partitions = [p for p in PARTITIONS if p.asset in "ADE"]
    for _ in range(2):  # the ranks of the first change with those that come after
        for partition in reversed(partitions):
            refresh(other, MARKET, [partition])
    refresh(store, MARKET, partitions)
    assert len(runs(store)) == len(partitions)
    assert runs(other) == runs(store)


def test_a_new_asset_makes_those_runs_stale_whose_ranks_change(store: Workspace) -> None:
    ended = BARS.take((BARS.segment_of_row != 0) | (BARS.ts < BARS.ts.max() - 320 * DAY_US))
    before = StaticSource({"1D": ended.select(["A", "B", "C", "D"])})
    refresh(store, before, [p for p in PARTITIONS if p.asset != "E"])
    own, others = runs(store), runs(store, "strategy <> 'strongest'")
    refresh(store, StaticSource({"1D": ended}), PARTITIONS)
    now = runs(store)
    # A has ended before E began, and keeps its ranks.
    assert {name for name in own if own[name] == now[name]} == {
        f"strongest_20 A {t}" for t in ("1D", "1W")
    }
    after = runs(store, "strategy <> 'strongest'")
    assert others.items() <= after.items()
    assert {name.split()[1] for name in after.keys() - others.keys()} == {"E"}


def test_a_corrected_bar_makes_runs_of_other_assets_stale(ranked: Workspace) -> None:
    own, others = runs(ranked), runs(ranked, "strategy <> 'strongest' AND symbol <> 'B'")
    close = BARS["close"].copy()
    row = BARS.rows_of("B").stop - 30
    close[row] = BARS["low"][row]
    corrected = StaticSource({"1D": BARS.with_columns({"close": close})})
    refresh(ranked, corrected, PARTITIONS)
    now = runs(ranked)
    changed = {name.split(" ", 1)[1] for name in own if own[name] != now[name]}
    assert "B 1D" in changed
    assert changed & {"A 1D", "C 1D", "D 1D", "E 1D"}
    assert runs(ranked, "strategy <> 'strongest' AND symbol <> 'B'") == others


def test_grown_bars_give_what_all_at_once_gives(store: Workspace, ranked: Workspace) -> None:
    refresh(store, until(20), PARTITIONS)
    early = generations(store)
    refresh(store, MARKET, PARTITIONS)
    late = generations(store)
    assert early == late  # earlier ranks stay
    assert recomputed_signals(store).differing == ()
    grown, at_once = contents(store), contents(ranked)
    for found in (grown, at_once):
        del found["benchmark.parquet"]  # one in each directory, and other runs stay in theirs
    assert_same(grown, at_once)


def test_synthetic_assets_are_ranked_among_themselves(store: Workspace) -> None:
    real = replace(of("A", "B", "C"), synthetic=False)
    refresh(store, real, [p for p in PARTITIONS if p.asset in "ABC"])
    alone = runs(store)
    refresh(store, of("D", "E"), [p for p in PARTITIONS if p.asset in "DE"])
    refresh(store, real, [p for p in PARTITIONS if p.asset in "ABC"])
    assert alone.items() <= runs(store).items()
    spec = RunSpec(symbol="D", timeframe="1D", preset="strongest_20")
    assert asked(store, spec) == runs(store)["strongest_20 D 1D"]


def test_each_value_of_a_parameter_is_ranked_in_sweeps_and_walk_forwards(ranked: Workspace) -> None:
    sets = (10, 20, 40)
    common: dict[str, Any] = {"symbol": "C", "timeframe": "1D", "strategy": "strongest"}
    swept = execute(ranked, load_settings(bars=""), SweepSpec(**common, params={"days": [*sets]}))
    assert isinstance(swept, SweepResult)
    single = [
        execute(ranked, load_settings(bars=""), RunSpec(**common, params={"days": days}))
        for days in sets
    ]
    returns = {
        days: run.metrics["total_return"]
        for days, run in zip(sets, single, strict=True)
        if isinstance(run, RunResult)
    }
    assert len(set(returns.values())) == len(sets)
    assert swept.best_run.metrics["total_return"] in returns.values()
    walked = asked(
        ranked,
        WalkForwardSpec(**common, params={"days": [*sets]}, train_days=120, test_days=60),
    )
    replays = list(replay_runs(ranked, [walked, *runs(ranked).values()]))
    assert {one.verdict for one in replays} == {ReplayVerdict.SAME}


def test_columns_of_ones_own_are_ranked(store: Workspace, strategies: Path, tmp_path: Path) -> None:
    rules = 'name = "best"\nlong_entry = "rank_pct(score) > 0.7"\nlong_exit = "score < 0.4"\n'
    write(strategies, "best.toml", f'{rules}[columns]\nscore = "number"\n[presets.best_score]\n')
    (tmp_path / "columns").mkdir()
    frame = scores("ABCDE")[["symbol", "ts", "score"]]
    frame.to_parquet(tmp_path / "columns" / "model.parquet", index=False)
    with own_strategies(strategies):
        refresh(store, MARKET, PARTITIONS)
        assert left_out_presets(store) == {}
        before = runs(store, "strategy = 'best'")
        assert len(before) == len(PARTITIONS)
        later = frame.assign(score=np.where(frame["symbol"] == "A", 0.0, frame["score"]))
        later.to_parquet(tmp_path / "columns" / "model.parquet", index=False)
        strongest = runs(store)
        refresh(store, MARKET, PARTITIONS)
        now = runs(store, "strategy = 'best'")
        assert {name for name in now if now[name] != before[name]} >= {"best_score E 1D"}
        assert runs(store) == strongest


def test_assets_of_a_users_own_table_are_ranked_by_their_own_features(
    store: Workspace, theirs: Theirs
) -> None:
    table = theirs.open()
    try:
        own = replace(store, external=table)
        assets = ["ID-1", "ID-2", "ID-3"]
        partitions = [Partition(asset, "1D") for asset in assets]
        list(refresh_features(own, ExternalReader(own), partitions))
        name = "rank_pct(ema_21 / close + adx_14)"  # an EMA as the table has it
        for report in refresh_columns(own, partitions[:1], [name]):
            assert report.counts == {"stored": 1}
        features = load_batch(own, "features", "1D", assets, SNAPSHOT_COLUMNS)
        expected = with_ranks(features.panel, [name]).select(assets[:1])[name]
        alone = load_batch(own, "features", "1D", assets[:1], ())
        found = with_own_columns(own, alone, [name]).own.on(alone.panel)[name]
        np.testing.assert_array_equal(found, expected)
        assert set(np.unique(found[~np.isnan(found)])) == {1 / 3, 2 / 3, 1}
    finally:
        table.close()
