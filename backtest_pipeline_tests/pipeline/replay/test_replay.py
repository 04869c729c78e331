"""Stored runs are computed again to the last bit, and whatever was changed is noticed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import ArtifactCorrupt, ProvenanceMissing, StoreError
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.engine_cross_check import second_opinion
from backtest_pipeline.pipeline.ranking.leaderboard import leaderboard_faults, publish_leaderboard
from backtest_pipeline.pipeline.replay.explain import explain_runs
from backtest_pipeline.pipeline.replay.recorded_rows import recorded_rows
from backtest_pipeline.pipeline.replay.replay import (
    Code,
    Replay,
    ReplayVerdict,
    replay_runs,
    replay_sample,
)
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.runs.summary import backtests_summary, walk_forward_summary
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig
from backtest_pipeline.pipeline.stages.rollups import roll_up, rollups_summary
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import archive_of, installed_code
from backtest_pipeline.storage.run_tables.recorded_runs import recorded_runs
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import AtrRisk, EqualWeight, VolatilityScaled
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.pipeline.markets import StaticSource, refresh
from backtest_pipeline_tests.pipeline.on_demand import backtest_once
from backtest_pipeline_tests.pipeline.processes import MARKET, PARTITIONS
from backtest_pipeline_tests.pipeline.replay.runs_of_one_asset import BARS, restated
from backtest_pipeline_tests.pipeline.versions import NO_LONGS, other_version
from backtest_pipeline_tests.pipeline.walking_process import MARKET as WALKED
from backtest_pipeline_tests.pipeline.walking_process import PARTITIONS as TO_WALK
from backtest_pipeline_tests.pipeline.walking_process import walk
from backtest_pipeline_tests.sql import column, execute_sql


def run_ids(workspace: Workspace, condition: str = "is_current") -> list[Any]:
    query = f"SELECT run_id FROM backtest_runs WHERE {condition} ORDER BY symbol, tf, signal_id"
    return column(workspace, query)


def once(workspace: Workspace, terms: RunTerms, **what: str) -> Mapping[str, Any]:
    told = {"signal": "ema_9_21", "asset": "A", "tf": "1D"} | what
    return backtest_once(workspace, MARKET, terms=terms, **told)  # pyright: ignore[reportArgumentType]


def assert_same(replays: list[Replay]) -> None:
    assert replays
    for one in replays:
        assert one.verdict is ReplayVerdict.SAME, one
        assert one.found == one.expected
        assert one.differences == one.remarks == ()


def test_every_kind_of_run_replays_to_the_same(workspace: Workspace) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    ts = pd.date_range("2025-01-01", "2026-01-02", freq="8h", tz="UTC")
    rates = FundingRates.of(
        {"A": pd.Series(np.random.default_rng(3).normal(1e-4, 2e-4, len(ts)), ts)}
    )
    stops = StopRules(stop_loss=0.07, take_profit=0.2, trailing_atr=2.5, max_bars=30)
    window = Window(date(2025, 7, 1), date(2025, 12, 1))
    for terms in (
        RunTerms(SimulationConfig(CostModel(80, 20), delay_bars=1, initial_cash=7.0), window),
        RunTerms(
            SimulationConfig(stops=stops, sizing=AtrRisk(0.02), max_leverage=2.0), window, "cash"
        ),
        RunTerms(SimulationConfig(sizing=VolatilityScaled(), lot_size=0.01), Window(), "universe"),
        RunTerms(SimulationConfig(direction=Direction.SHORT), window, "B", rates),
        RunTerms(
            SimulationConfig(sizing=EqualWeight(3), min_notional=5), window, "universe", rates
        ),
    ):
        once(workspace, terms)
    ids = run_ids(workspace)
    assert len(ids) == 6 * len(PARTITIONS) + 5
    assert_same(replay_runs(workspace, ids))


def test_walk_forwards_replay_to_the_same(workspace: Workspace) -> None:
    refresh(workspace, WALKED, TO_WALK)
    walk(workspace)
    ids = run_ids(workspace, "split = 'walk_forward'")
    assert len(ids) == 6
    assert_same(replay_runs(workspace, ids[:4]))


LAST_BIT = "{0} = {0} * (1 + 2.3e-16)"  # the next number, or the one after it
TAMPERED = {
    "exit_price": f"UPDATE backtest_trades SET {LAST_BIT.format('exit_price')} WHERE trade_no = 1",
    "funding": "UPDATE backtest_trades SET funding = 1e-300 WHERE trade_no = 1",
    "exit_reason": "UPDATE backtest_trades SET exit_reason = 'liquidation' WHERE trade_no = 2",
    "trade_no is 3 stored": "DELETE FROM backtest_trades WHERE trade_no = 2",
    "fingerprint": "UPDATE backtest_runs SET result_fingerprint = repeat('0', 64) WHERE true",
    "cagr is undefined stored": "UPDATE backtest_metrics SET cagr = NULL WHERE true",
    "sharpe is": f"UPDATE backtest_metrics SET {LAST_BIT.format('sharpe')} WHERE true",
    "stored summary": (
        "UPDATE backtest_runs SET results = jsonb_set(results, '{pending}', '\"flat\"') WHERE true"
    ),
    "give run id": (
        "UPDATE backtest_runs SET config = jsonb_set(config, '{min_notional}', '1e-9') WHERE true"
    ),
}
DAILY = [Partition(asset, "1D") for asset in "AB"]


def quarantined(workspace: Workspace) -> dict[UUID, Mapping[str, Any]]:
    with workspace.database.begin() as connection:
        rows = connection.execute(sa.text("SELECT * FROM quarantined_runs"))
        return {row["run_id"]: dict(row) for row in rows.mappings()}


def by_trades(workspace: Workspace) -> list[UUID]:
    """The runs, those with most trades first."""
    query = "SELECT run_id FROM backtest_metrics ORDER BY trade_count DESC, run_id"
    return column(workspace, query)


def ranked(workspace: Workspace) -> dict[UUID, str | None]:
    """Why each run of the board has no rank; None where it has one."""
    return {row["run_id"]: row["unranked"] for row in publish_leaderboard(workspace).rows}


def test_what_was_changed_in_the_tables_is_set_apart_until_a_replay_proves_it(
    workspace: Workspace,
) -> None:
    refresh(workspace, MARKET, DAILY)
    roll_up(workspace, "1D", RollupConfig())
    assert None in ranked(workspace).values()
    ids = by_trades(workspace)
    for run_id, statement in zip(ids, TAMPERED.values(), strict=False):
        execute_sql(workspace, f"{statement} AND run_id = :run_id", run_id=run_id)
    found = {one.run_id: one for one in replay_runs(workspace, ids)}
    for run_id, what in zip(ids, TAMPERED, strict=False):
        assert found[run_id].verdict is ReplayVerdict.DIFFERS, what
        assert found[run_id].quarantine == "set"
        assert any(what in line for line in found[run_id].differences), found[run_id].differences
    apart = set(ids[: len(TAMPERED)])
    rows = quarantined(workspace)
    assert set(rows) == apart
    fingerprint = rows[ids[4]]
    assert fingerprint["expected"] == "0" * 64 != fingerprint["found"] == found[ids[4]].found
    for run_id in ids[len(TAMPERED) :]:
        assert found[run_id].verdict is ReplayVerdict.SAME

    assert leaderboard_faults(workspace)["runs_ranked_in_quarantine"] == len(apart)
    board = ranked(workspace)
    assert {run_id for run_id, why in board.items() if why and "quarantine" in why} == apart
    assert leaderboard_faults(workspace)["runs_ranked_in_quarantine"] == 0
    summary = backtests_summary(workspace, DAILY)
    assert summary.numbers["runs"] == len(ids) - len(apart)
    assert summary.numbers["runs_in_quarantine"] == len(apart)
    assert len(summary.tables["in_quarantine"]) == len(apart)
    roll_up(workspace, "1D", RollupConfig())
    assert rollups_summary(workspace, ["1D"]).numbers["runs_left_out_in_quarantine"] == len(apart)
    with workspace.database.begin() as connection:
        members = connection.execute(
            sa.text(
                "SELECT DISTINCT unnest(member_run_ids) FROM portfolio_runs"
                " WHERE is_current AND signal_id IS NOT NULL"
            )
        )
        assert set(members.scalars()) == set(ids) - apart

    refresh(workspace, MARKET, DAILY, rebuild=True)
    assert set(quarantined(workspace)) == apart  # making a run anew does not prove it
    proven = replay_sample(workspace, n_runs=1, seed=0)
    assert {one.run_id for one in proven if one.quarantine == "lifted"} == apart
    assert quarantined(workspace) == {}
    assert backtests_summary(workspace, DAILY).numbers["runs"] == len(ids)
    assert "runs_in_quarantine" not in backtests_summary(workspace, DAILY).numbers


def damaged(path: Path) -> bytes:
    """The bytes of a file before one of its bits was flipped."""
    before = path.read_bytes()
    content = bytearray(before)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return before


def test_damaged_and_missing_files_are_named(workspace: Workspace) -> None:
    row = once(workspace, RunTerms(SimulationConfig()))
    run_id, root = row["run_id"], workspace.artifacts.root
    reader = Workspace(workspace.database, ArtifactStore(root))
    with workspace.database.begin() as connection:
        (run,) = recorded_runs(connection, [run_id])
    snapshots = {name: vars(found) for name, found in run.snapshots.items()}
    (file,) = (root / uri for found in run.snapshots.values() for uri in found.uris)

    before = damaged(root / row["artifact_uri"] / "equity.parquet")
    (found,) = replay_runs(reader, [run_id])
    assert found.verdict is ReplayVerdict.DIFFERS
    assert "equity.parquet" in found.differences[0]
    (root / row["artifact_uri"] / "equity.parquet").write_bytes(before)

    more = {"A|1D": {**snapshots["A|1D"], "n_rows": 251}}
    with pytest.raises(ArtifactCorrupt, match=r"250 rows of A\|1D found, but 251 were stored"):
        recorded_rows(reader.artifacts, "1D", "A", more, ["close"])
    damaged(file)
    (found,) = replay_runs(reader, [run_id])
    assert found.verdict is ReplayVerdict.IMPOSSIBLE
    assert file.name in found.differences[0]
    assert "has changed since it was written" in found.differences[0]
    file.unlink()
    with pytest.raises(ArtifactCorrupt, match="is missing"):
        recorded_rows(ArtifactStore(root), "1D", "A", snapshots, ["close"])
    execute_sql(workspace, "DELETE FROM dataset_snapshots WHERE dataset = 'features'")
    (found,) = replay_runs(reader, [run_id])
    assert found.verdict is ReplayVerdict.IMPOSSIBLE
    assert "no file is known with the rows" in found.differences[0]


def test_a_run_replays_on_the_code_that_made_it(workspace: Workspace) -> None:
    changed = other_version(workspace.artifacts, NO_LONGS)
    run_id = UUID(changed.run(workspace))
    (own,) = replay_runs(workspace, [run_id])
    assert (own.verdict, own.code, own.is_own_code) == (ReplayVerdict.SAME, changed.uri, True)
    (todays,) = replay_runs(workspace, [run_id], code=Code.INSTALLED)
    assert (todays.verdict, todays.is_own_code) == (ReplayVerdict.DIFFERS, False)
    assert todays.code == installed_code().uri
    assert todays.quarantine == ""
    assert quarantined(workspace) == {}

    # Bars that have been restated since do not count.
    refresh(workspace, StaticSource({"1D": restated(BARS)}), [Partition("A", "1D")])
    (later,) = replay_runs(workspace, [str(run_id)[:8]])
    assert later.verdict is ReplayVerdict.SAME
    assert "no longer current" in later.remarks[0]

    damaged(workspace.artifacts.root / changed.uri)
    (lost,) = replay_runs(workspace, [run_id])
    assert lost.verdict is ReplayVerdict.IMPOSSIBLE
    assert changed.uri in lost.differences[0]
    execute_sql(workspace, "UPDATE backtest_runs SET code_archive = NULL")
    (unknown,) = replay_runs(workspace, [run_id])
    assert "before source code was archived" in unknown.differences[0]
    files = installed_code().files()
    old = archive_of({n: data for n, data in files.items() if not n.endswith("replay/worker.py")})
    workspace.artifacts.put_file(old.uri, old.data)
    execute_sql(workspace, "UPDATE backtest_runs SET code_archive = :uri", uri=old.uri)
    (too_old,) = replay_runs(workspace, [run_id])
    assert "too old to be replayed" in too_old.differences[0]


def test_a_run_of_another_environment_is_judged_with_that_remark(workspace: Workspace) -> None:
    run_id = once(workspace, RunTerms(SimulationConfig()))["run_id"]
    execute_sql(
        workspace,
        "INSERT INTO environments SELECT 'older', '3.10.1', machine, versions FROM environments",
    )
    execute_sql(
        workspace, "UPDATE backtest_runs SET environment_hash = 'older', engine_version = 'numba.0'"
    )
    execute_sql(workspace, "UPDATE backtest_runs SET result_fingerprint = 'x'")
    (found,) = replay_runs(workspace, [run_id])
    assert "python 3.10.1 -> " in found.remarks[0]
    assert found.differences == ("the fingerprint differs",)
    assert (found.verdict, found.quarantine) == (ReplayVerdict.DIFFERS, "")


def test_results_without_provenance_are_refused_by_every_reader(workspace: Workspace) -> None:
    refresh(workspace, WALKED, TO_WALK[:1])
    walk(workspace, TO_WALK[:1])
    roll_up(workspace, "1D", RollupConfig())
    run_id = run_ids(workspace)[0]
    lacking = {
        "no snapshot_id, so": "snapshot_id = ''",
        "no snapshot_id and no dataset_version_ids, so": "dataset_version_ids = '{}'",
        "no dataset_version_ids, so": "dataset_version_ids = 'null', snapshot_id = 'known'",
    }
    for change in lacking.values():
        with pytest.raises(StoreError, match="backtest_runs_provenance"):
            execute_sql(workspace, f"UPDATE backtest_runs SET {change}")
    execute_sql(workspace, "ALTER TABLE backtest_runs DROP CONSTRAINT backtest_runs_provenance")

    readers: list[Callable[[], Any]] = [
        lambda: backtests_summary(workspace, TO_WALK[:1]),
        lambda: walk_forward_summary(workspace, TO_WALK[:1]),
        lambda: publish_leaderboard(workspace),
        lambda: rollups_summary(workspace, ["1D"]),
        lambda: roll_up(workspace, "1D", RollupConfig()),
        lambda: second_opinion(workspace),
        lambda: replay_runs(workspace, [run_id]),
        lambda: explain_runs(workspace, run_id, run_id),
    ]
    for lacks, change in lacking.items():
        execute_sql(workspace, f"UPDATE backtest_runs SET {change}")
        execute_sql(workspace, f"UPDATE portfolio_runs SET {change}")
        for read in readers:
            with pytest.raises(ValueError, match=lacks) as refused:
                read()
            assert isinstance(refused.value, ProvenanceMissing)
