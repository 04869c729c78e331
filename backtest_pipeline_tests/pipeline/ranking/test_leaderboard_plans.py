"""Runs under plans are on the board, each with the reason why it has no rank."""

from __future__ import annotations

from backtest_pipeline.pipeline.planning.book_replans import replan
from backtest_pipeline.pipeline.planning.planned_runs import follow_book
from backtest_pipeline.pipeline.ranking.leaderboard import leaderboard_faults, publish_leaderboard
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline_tests.pipeline.planning.conftest import refreshed_store, store
from backtest_pipeline_tests.pipeline.planning.stores import SYMBOLS, added
from backtest_pipeline_tests.sql import execute_sql

__all__ = ["refreshed_store", "store"]


def test_books_of_one_and_of_several_symbols_are_on_the_board_without_a_rank(
    store: Workspace,
) -> None:
    for name, symbols in {"core": SYMBOLS[:1], "pair": SYMBOLS}.items():
        book = added(store, name, *symbols, replans={"judge": None})
        replan(store, book)
        follow_book(store, book, "1D", SimulationConfig())
    execute_sql(
        store,
        """UPDATE backtest_runs SET results = jsonb_set(results, '{within_training}', 'true')
        WHERE book = 'pair'""",
    )
    board = publish_leaderboard(store)
    assert leaderboard_faults(store)["runs_missing"] == 0
    rows = {row["signal_name"]: row for row in board.rows}
    assert rows["pair"]["symbol"] == "+".join(SYMBOLS)
    assert [rows[name]["within_training"] for name in ("core", "pair")] == [False, True]
    assert [rows[name]["rank"] for name in ("core", "pair")] == [None, None]
    assert "counts each plan as a trial" in rows["core"]["unranked"]
    assert rows["pair"]["unranked"].startswith("within_training: ")
    execute_sql(store, "INSERT INTO dim_assets (id, symbol) VALUES (78, 'REAL')")
    assert publish_leaderboard(store).is_new is False
