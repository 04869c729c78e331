"""Triggers read a user's own columns and ranks as strategies do, and no value of a later bar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.pipeline.planning.book_replans import replan
from backtest_pipeline.pipeline.planning.books import find_book
from backtest_pipeline.pipeline.planning.due_replans import stale_runs
from backtest_pipeline.pipeline.planning.planned_runs import follow_book
from backtest_pipeline.pipeline.replay.worker import PROTOCOL, respond
from backtest_pipeline.pipeline.replay.worker_process import ReplayRequest
from backtest_pipeline.pipeline.runs.query import run_trades
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.run_tables.recorded_runs import recorded_runs
from backtest_pipeline_tests.own_columns import scores, with_columns
from backtest_pipeline_tests.pipeline.planning.stores import (
    SYMBOLS,
    added,
    market,
    refreshed,
    without_last,
)
from backtest_pipeline_tests.sql import column, execute_sql

ALPHA, BETA = SYMBOLS
RANK = "rank_pct(close / shift(close, 20))"
SIZE = "rank_pct(close)"


def trigger(symbol: str, **rules: Any) -> dict[str, Any]:
    category = "mean_reversion" if "strategy" in rules else "trend_continuation"
    fixed = {"timeframe": "1D", "direction": "long", "stop_loss_pct": 60.0}
    return {"symbol": symbol, "category": category, **fixed, **rules}


TRIGGERS = [
    trigger(ALPHA, strategy="scored"),
    trigger(BETA, entry=f"{RANK} > 0.75", exit=f"{RANK} < 0.75"),
]


FIXED = {"mode": "fixed", "fraction": 0.3}


def followed(store: Workspace, sizing: dict[str, Any] = FIXED) -> UUID:
    """The run of the book under one plan of these triggers, from the first bar on."""
    book = added(store, "core", *SYMBOLS, replans={"judge": None})
    replan(store, book)
    execute_sql(store, "DELETE FROM plans WHERE sequence > 1")
    execute_sql(
        store,
        "UPDATE plans SET plan = plan - 'plan_id' || CAST(:changed AS jsonb)",
        changed=json.dumps(
            {
                "triggers": TRIGGERS,
                "valid_until": "2030-01-01T00:00:00Z",
                "stance": "active",
                "limits": {},
                "sizing": sizing,
            }
        ),
    )
    return follow_book(store, book, "1D", SimulationConfig()).run_id


def trades_of(store: Workspace, run_id: UUID, symbol: str) -> pd.DataFrame:
    found = pd.DataFrame([dict(row) for row in run_trades(store, run_id, limit=1000).rows])
    return pd.DataFrame(found[found["symbol"] == symbol])


def signal_bars(trades: pd.DataFrame, stamp: str = "entry_ts") -> pd.DatetimeIndex:
    """The days at whose close the orders were decided: those before the opens that filled them."""
    opens = pd.DatetimeIndex(pd.to_datetime(trades[stamp].tolist(), utc=True))
    return (opens - pd.Timedelta(days=1)).normalize()


@pytest.fixture
def score() -> pd.DataFrame:
    return scores(SYMBOLS, n=420)


def test_a_trigger_enters_where_the_column_or_rank_of_its_rule_says_so(
    store: Workspace, score: pd.DataFrame, tmp_path: Path
) -> None:
    with with_columns(store, tmp_path, {"mine.csv": score}) as (own, _):
        run_id = followed(own)
        entered = trades_of(own, run_id, ALPHA)
        known = score[score["symbol"] == ALPHA].set_index("ts")["score"]
        known.index = pd.DatetimeIndex(known.index).normalize()
        assert len(entered) > 20
        assert np.all(known.reindex(signal_bars(entered)).to_numpy() > 0.6)
        ratio = {n: pd.Series(market().select([n])["close"]).pct_change(20) for n in SYMBOLS}
        days = pd.to_datetime(market().select([BETA]).ts, unit="us", utc=True).normalize()
        best = pd.Series((ratio[BETA] > ratio[ALPHA]).to_numpy(), index=days)
        entered = trades_of(own, run_id, BETA)
        assert len(entered) > 3
        assert best.reindex(signal_bars(entered)).all()
        assert stale_runs(own.database) == []
    with with_columns(store, tmp_path, {}) as (without, _):
        (tmp_path / "columns" / "mine.csv").unlink()
        follow_book(without, find_book(without, "core"), "1D", SimulationConfig())
        query = """SELECT DISTINCT b.detail FROM block_events b JOIN backtest_runs USING (run_id)
            WHERE is_current AND reason = 'expression_error'"""
        (failure,) = column(without, query)
        assert "strategy scored: no feature 'calm'" in failure


def test_a_rule_that_names_a_column_of_the_users_own_says_how_it_is_read() -> None:
    with pytest.raises(ValueError, match="is read through a strategy that declares it"):
        Trigger(**trigger(ALPHA, entry="score > 0.6"))


@pytest.mark.parametrize("sizing", [FIXED, {"mode": "expression", "fraction": f"0.3 * {SIZE}"}])
def test_such_a_run_is_made_from_its_columns_and_replayed_with_them(
    store: Workspace, score: pd.DataFrame, tmp_path: Path, sizing: dict[str, Any]
) -> None:
    with with_columns(store, tmp_path, {"mine.csv": score}) as (own, _):
        run_id = followed(own, sizing)
        with own.database.begin() as connection:
            (recorded,) = recorded_runs(connection, [run_id])
        ranked = [] if sizing is FIXED else [SIZE]
        read = {key for key in recorded.dataset_versions if "columns:" in key}
        assert read == {f"{s}|1D|columns:{d}" for s in SYMBOLS for d in ("mine", RANK, *ranked)}
        request = json.loads(json.dumps(ReplayRequest.of(recorded).as_json()))
        root = str(own.artifacts.root)
        answer = respond(
            {"protocol": PROTOCOL, "artifacts": root, "series": False, "runs": [request]}
        )
        (result,) = answer["runs"]
        assert result.get("error") is None
        assert (result["run_id"], result["fingerprint"]) == (str(run_id), recorded.fingerprint)


def test_later_bars_and_values_change_no_earlier_trade(
    store: Workspace, score: pd.DataFrame, tmp_path: Path
) -> None:
    with with_columns(store, tmp_path, {"mine.csv": score}) as (own, put):
        before = followed(own)
        last = score["ts"].max() - pd.Timedelta(days=4)
        later = score["ts"] > last
        put("mine.csv", score.assign(score=np.where(later, 1 - score["score"], score["score"])))
        refreshed(own, without_last(2))
        found = follow_book(own, find_book(own, "core"), "1D", SimulationConfig())
        assert found.is_new
        closed = trades_of(own, before, ALPHA)
        closed = closed[closed["exit_ts"] < closed["exit_ts"].max()]
        now = trades_of(own, found.run_id, ALPHA).head(len(closed))
        assert now["entry_ts"].tolist() == closed["entry_ts"].tolist()
        assert now["pnl"].tolist() == closed["pnl"].tolist()
        put("mine.csv", score.assign(score=1 - score["score"]))
        other = follow_book(own, find_book(own, "core"), "1D", SimulationConfig())
        assert other.run_id != found.run_id
