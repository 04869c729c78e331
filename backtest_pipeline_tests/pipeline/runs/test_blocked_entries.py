"""Each entry that a run does not make is a row with its reason, and the results count the rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import InvalidInput, RowsRefused, RunNotFound
from backtest_pipeline.pipeline.audits.stored_tables import check_dataset
from backtest_pipeline.pipeline.runs.blocked_entries import blocks_by_run, run_blocks, run_plans
from backtest_pipeline.pipeline.runs.blocked_entry_tables import block_table, limit_enforcement
from backtest_pipeline.pipeline.runs.identity import RunTerms
from backtest_pipeline.pipeline.runs.query import get_run
from backtest_pipeline.pipeline.runs.retention import delete_runs
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.blocked_entries import CAUSES
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, SHORT_ENTRY
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.run_tables.block_events import REASONS, BlockFilter
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import VolatilityScaled
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.on_demand import backtest_once
from backtest_pipeline_tests.pipeline.processes import MARKET
from backtest_pipeline_tests.simulation.by_hand import hand_panel
from backtest_pipeline_tests.simulation.markets import bars_of
from backtest_pipeline_tests.sql import execute_sql, scalar

FREE = SimulationConfig(CostModel(0.0, 0.0))
POOR = SimulationConfig(min_notional=1e9)
UNREADY = SimulationConfig(sizing=VolatilityScaled(lookback=200), min_notional=1e9)


@pytest.fixture(scope="module")
def stored(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    for database in database_like(template, "backtest"):
        yield Workspace(database, ArtifactStore(tmp_path_factory.mktemp("blocked")))


def run_with(workspace: Workspace, config: SimulationConfig, **changes: Any) -> UUID:
    what: dict[str, Any] = {"signal": "ema_9_21", "asset": "A", "tf": "1D"} | changes
    return backtest_once(workspace, MARKET, terms=RunTerms(config), **what)["run_id"]


def all_blocks(workspace: Workspace, run_id: UUID) -> list[dict[str, Any]]:
    found, cursor = [], None
    while True:
        page = run_blocks(workspace, run_id, limit=3, after=cursor)
        found += page.rows
        if (cursor := page.next) is None:
            return found


def test_a_batch_tells_each_block_with_its_bar_side_size_and_reason() -> None:
    # 10,000 at 100 are 100 units: below A's lot, below B's notional.
    panel = hand_panel({"A": bars_of([100] * 4), "B": bars_of([100] * 4)})
    events = np.zeros((2, 8), np.uint8)
    events[0, [0, 2]], events[0, 5], events[1, 0] = LONG_ENTRY, SHORT_ENTRY, SHORT_ENTRY
    config = replace(FREE, lot_size={"A": 101.0, "B": 0}, min_notional={"A": 0, "B": 10_001.0})
    batch = simulate_batch(panel, events, config)
    table = block_table(batch, ["A first", "B first", "A second", "B second"])

    def row(run_id: str, number: int, day: int, side: str, detail: str) -> dict[str, Any]:
        return {
            "run_id": run_id,
            "event_no": number,
            "symbol": run_id[0],
            "timeframe": "1D",
            "side": side,
            "qty": 100.0,
            "reason": "insufficient_cash",
            "class": "risk_valid",
            "ts": datetime(2024, 1, day, 23, 59, 59, 999_000, UTC),
            "detail": detail,
        }

    assert table.to_pylist() == [
        row("A first", 1, 2, "long", "order below one lot_size"),
        row("A first", 2, 4, "long", "order below one lot_size"),
        row("B first", 1, 3, "short", "order below min_notional"),
        row("A second", 1, 2, "short", "order below one lot_size"),
    ]
    assert limit_enforcement(batch) == [
        {"total": n, "by_reason": {"insufficient_cash": n} if n else {}} for n in (2, 1, 1, 0)
    ]


def test_an_entry_without_a_size_has_no_quantity() -> None:
    panel = hand_panel({"A": bars_of([100, 101, 100, 101, 100])})
    events = np.array([[0, LONG_ENTRY, 0, 0, 0]], np.uint8)
    batch = simulate_batch(panel, events, replace(FREE, sizing=VolatilityScaled(lookback=3)))
    (row,) = block_table(batch, ["one"]).to_pylist()
    assert (row["qty"], row["reason"], row["class"]) == (None, "missing_indicator", "quality_gate")
    assert row["ts"].day == 3
    assert limit_enforcement(batch) == [{"total": 1, "by_reason": {"missing_indicator": 1}}]


@pytest.mark.parametrize("config", [SimulationConfig(), POOR, UNREADY])
def test_the_rows_of_a_run_are_those_that_its_results_count(
    stored: Workspace, config: SimulationConfig
) -> None:
    for rebuild in (False, True):
        run_id = run_with(stored, config, rebuild=rebuild)
        blocks, run = all_blocks(stored, run_id), get_run(stored, run_id)
        assert [block["event_no"] for block in blocks] == list(range(1, len(blocks) + 1))
        assert run.results["limit_enforcement"] == {
            "total": len(blocks),
            "by_reason": Counter(block["reason"] for block in blocks),
        }
        assert run.results["blocked_entries"] == len(blocks)
        assert bool(blocks) == (config.min_notional != 0)
        assert blocks == sorted(blocks, key=lambda block: block["ts"])
        assert {(block["symbol"], block["timeframe"]) for block in blocks} <= {("A", "1D")}
    assert not any(check_dataset(stored, "backtests").values())


def test_causes_are_counted_by_run_and_filtered(stored: Workspace) -> None:
    poor, unready = run_with(stored, POOR), run_with(stored, UNREADY)
    run_with(stored, SimulationConfig())
    other = run_with(stored, POOR, asset="B")
    found = blocks_by_run(stored).rows
    assert [row["run_id"] for row in found] == [
        row["run_id"] for row in sorted(found, key=lambda row: row["completed_at"], reverse=True)
    ]
    assert {row["run_id"] for row in found} == {poor, unready, other}
    for row in found:
        rows = all_blocks(stored, row["run_id"])
        by_cause = Counter((block["reason"], block["class"]) for block in rows)
        assert row["total"] == len(rows)
        assert {(c["reason"], c["class"]): c["count"] for c in row["causes"]} == by_cause

    def wanted(**given: str) -> set[UUID]:
        return {row["run_id"] for row in blocks_by_run(stored, BlockFilter(**given)).rows}

    assert wanted(symbol="B") == {other}
    assert wanted(reason="missing_indicator") == {unready}
    assert wanted(reason="insufficient_cash", symbol="A") == {poor, unready}
    assert wanted(strategy="ema_crossover", timeframe="1D") == {poor, unready, other}
    assert wanted(strategy="rsi_mean_revert") == wanted(reason="other") == set()
    (row,) = blocks_by_run(stored, BlockFilter(reason="missing_indicator")).rows
    assert {cause["reason"] for cause in row["causes"]} == {"missing_indicator"}

    first = blocks_by_run(stored, limit=2)
    rest = blocks_by_run(stored, limit=2, after=first.next)
    assert [*first.rows, *rest.rows] == list(found)
    assert rest.next is None


def test_blocks_go_with_their_run_and_a_missing_one_is_seen(stored: Workspace) -> None:
    run_id = run_with(stored, POOR, signal="ema_21_50")
    assert all_blocks(stored, run_id)
    execute_sql(
        stored, "DELETE FROM block_events WHERE run_id = :run_id AND event_no = 1", run_id=run_id
    )
    assert check_dataset(stored, "backtests")["blocks_missing"] == 1
    delete_runs(stored, [run_id])
    assert check_dataset(stored, "backtests")["blocks_missing"] == 0
    for missing in (run_id, uuid4()):
        for read in (run_blocks, run_plans):
            with pytest.raises(RunNotFound, match=str(missing)):
                read(stored, missing)


def test_the_reasons_are_a_closed_list_everywhere(stored: Workspace) -> None:
    assert {cause.reason for cause in CAUSES.values()} <= set(REASONS)
    with pytest.raises(InvalidInput, match=r"'misfortune'.*daily_cap"):
        BlockFilter(reason="misfortune")
    query = """
        SELECT pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conname = 'block_events_reason_check'
    """
    listed = scalar(stored, query)
    assert tuple(re.findall(r"'(\w+)'", listed)) == REASONS
    run_id = run_with(stored, POOR)
    for change in ("reason = 'misfortune'", "class = 'fine'", "side = 'up'", "qty = 'NaN'"):
        refused = pytest.raises(RowsRefused, match="block_events_")
        with refused, stored.database.begin() as connection:
            connection.execute(
                sa.text(f"UPDATE block_events SET {change} WHERE run_id = :run_id"),
                {"run_id": run_id},
            )


PLAN: dict[str, Any] = {
    "replan_sequence": 1,
    "plan_id": "p-1",
    "generated_at_actual": datetime(2024, 6, 1, tzinfo=UTC),
    "effective_ts": datetime(2024, 3, 1, tzinfo=UTC),
    "valid_until": datetime(2024, 3, 2, tzinfo=UTC),
    "origin": "valid",
    "replan_reasons": ["initial_plan"],
    "plan": '{"stance": "active"}',
    "prompt_hash": None,
    "response_hash": None,
}


def log_plan(workspace: Workspace, run_id: UUID, **changes: Any) -> None:
    row = {"run_id": run_id, **PLAN, **changes}
    with workspace.database.begin() as connection:
        values = ", ".join(f":{name}" for name in row)
        connection.execute(
            sa.text(f"INSERT INTO plan_log ({', '.join(row)}) VALUES ({values})"), row
        )


def test_the_plans_of_a_run_are_read_in_their_order(stored: Workspace) -> None:
    run_id = run_with(stored, SimulationConfig())
    assert run_plans(stored, run_id) == []
    log_plan(stored, run_id, prompt_hash="a" * 32, response_hash="b" * 32)
    log_plan(stored, run_id, replan_sequence=2, replan_reasons=["new_day", "manual"])
    first, second = run_plans(stored, run_id)
    assert (first["replan_sequence"], second["replan_sequence"]) == (1, 2)
    assert (first["plan"], first["response_hash"]) == ({"stance": "active"}, "b" * 32)
    assert second["replan_reasons"] == ["new_day", "manual"]


@pytest.mark.parametrize(
    "change",
    [
        {"replan_reasons": ["a whim"]},
        {"replan_reasons": []},
        {"replan_reasons": [None]},
        {"replan_sequence": 0},
        {"replan_sequence": 9},
        {"valid_until": PLAN["effective_ts"]},
        {"origin": ""},
        {"plan": "[]"},
        {"plan_id": ""},
        {"prompt_hash": "short"},
        {"response_hash": "b" * 32},
        {"run_id": uuid4()},
    ],
)
def test_a_plan_that_makes_no_sense_is_not_logged(
    stored: Workspace, change: dict[str, Any]
) -> None:
    with pytest.raises(RowsRefused, match=r"plan_log_\w*(check|fkey|without_gaps|in_order)"):
        log_plan(stored, **{"run_id": run_with(stored, SimulationConfig()), **change})
