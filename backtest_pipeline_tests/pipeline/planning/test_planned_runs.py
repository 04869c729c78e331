"""A run under plans: rows that agree with each other, published once, for one book or another."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from backtest_pipeline.market.errors import InvalidInput, NotEnoughBars
from backtest_pipeline.pipeline.audits.stored_metrics import check_stored_metrics
from backtest_pipeline.pipeline.audits.stored_tables import check_dataset
from backtest_pipeline.pipeline.planning import planned_runs
from backtest_pipeline.pipeline.planning.book_replans import replan
from backtest_pipeline.pipeline.planning.books import request_replan
from backtest_pipeline.pipeline.planning.due_replans import stale_runs
from backtest_pipeline.pipeline.planning.planned_runs import FollowedBook, follow_book
from backtest_pipeline.pipeline.runs.query import RunFilter, get_run, list_runs, run_trades
from backtest_pipeline.pipeline.runs.retention import delete_runs, remove_source, retain
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline_tests.pipeline.planning.stores import SYMBOLS, added, refreshed, without_last
from backtest_pipeline_tests.sql import column, count, execute_sql, rows

COSTLY = SimulationConfig()
OF_STRATEGISTS = "trials WHERE source = 'strategist'"
TERMS = "plan - '{plan_id,generated_at,effective_ts,valid_until,regime}'::text[]"


def followed(store: Workspace, book: PlanBook, **config: Any) -> FollowedBook:
    replan(store, book)
    return follow_book(store, book, "1D", replace(COSTLY, **config))


@pytest.mark.parametrize("symbols", [SYMBOLS[:1], SYMBOLS])
def test_what_is_stored_of_a_run_agrees_with_itself(
    store: Workspace, symbols: tuple[str, ...]
) -> None:
    book = added(store, "core", *symbols)
    run_id = followed(store, book).run_id
    run = get_run(store, run_id)
    assert (run.split, run.symbol) == ("planned", "+".join(symbols))
    assert run.strategy == "strategist:rules"
    blocks = rows(store, "SELECT * FROM block_events ORDER BY event_no")
    plans = rows(store, "SELECT * FROM plan_log ORDER BY replan_sequence")
    trades = run_trades(store, run_id, limit=1000).rows
    enforced = run.results["limit_enforcement"]
    assert enforced["total"] == len(blocks)
    assert enforced["by_reason"] == Counter(block["reason"] for block in blocks)
    exits = sum(block["detail"].startswith("exit: ") for block in blocks)
    assert enforced["entries"]["blocked"] == len(blocks) - exits == run.results["blocked_entries"]
    assert enforced["exits"]["blocked"] == exits
    for kind in ("entries", "exits"):
        of = enforced[kind]
        assert 0 <= of["triggered"] - of["made"] - of["blocked"] <= 1
    assert run.results["plan_log"]["total"] == len(plans)
    assert run.results["plan_log"]["by_reason"] == Counter(
        reason for plan in plans for reason in plan["replan_reasons"]
    )
    assert run.results["plan_log"]["suppressed"] == sum(plan["suppressed"] for plan in plans)
    assert run.results["trades"] == len(trades) > 0
    known = {t["id"] for plan in plans for t in plan["plan"].get("triggers", [])}
    assert {trade["trigger_id"] for trade in trades} <= known
    assert {trade["symbol"] for trade in trades} == set(symbols)
    assert [trade["entry_ts"] for trade in trades] == sorted(t["entry_ts"] for t in trades)


def test_a_stored_run_is_not_computed_again_and_another_plan_makes_another(
    store: Workspace,
) -> None:
    book = added(store)
    first = followed(store, book)
    assert first.is_new
    assert follow_book(store, book, "1D", COSTLY) == FollowedBook(first.run_id, is_new=False)
    other = added(store, "other")
    assert followed(store, other).run_id != first.run_id
    refreshed(store, without_last(4))
    request_replan(store, "core", "ann")
    second = followed(store, book)
    assert second.run_id != first.run_id
    current = "SELECT run_id FROM backtest_runs WHERE is_current AND book = 'core'"
    assert column(store, current) == [second.run_id]
    assert count(store, "backtest_runs") == 3


def test_a_replan_that_changes_nothing_is_counted_by_the_next_run_too(store: Workspace) -> None:
    book = added(store, replans={"judge": None})
    first = followed(store, book)
    assert stale_runs(store.database) == []
    suppressed = "SELECT suppressed FROM plans ORDER BY sequence"
    before = column(store, suppressed)
    request_replan(store, "core", "ann")
    replan(store, book)
    now = column(store, suppressed)
    assert now == [*before[:-1], before[-1] + 1]
    (stale,) = stale_runs(store.database)
    assert (stale.book.name, stale.timeframe) == ("core", "1D")
    second = follow_book(store, book, "1D", COSTLY)
    assert second.is_new
    assert get_run(store, second.run_id).results["plan_log"]["suppressed"] == sum(now)
    logged = "SELECT suppressed FROM plan_log WHERE run_id = :run_id ORDER BY replan_sequence"
    assert column(store, logged, run_id=second.run_id) == now
    assert get_run(store, first.run_id).results["plan_log"]["suppressed"] == sum(before)
    assert stale_runs(store.database) == []


def test_what_the_judge_asks_for_is_stored_with_the_run_or_not_at_all(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = added(store, replans={"judge": {"score_below": 100.0}})
    replan(store, book)
    write, asked = planned_runs.write_plan_log, "replan_requests WHERE reason = 'judge_triggered'"
    # Of the past the judge was heard on the newest day too.
    execute_sql(store, "UPDATE plans SET judged_at = NULL")

    def killed(*args: Any) -> None:
        write(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(planned_runs, "write_plan_log", killed)
    with pytest.raises(KeyboardInterrupt):
        follow_book(store, book, "1D", COSTLY)
    assert count(store, "backtest_runs") == count(store, asked) == 0
    monkeypatch.undo()
    run = follow_book(store, book, "1D", COSTLY)
    assert run.is_new
    assert run.judged == tuple(
        column(store, f"SELECT detail FROM {asked} AND requested_by = 'judge'")
    )
    assert "score" in run.judged[0]


def test_proposals_are_trials_of_the_ledger_equal_terms_once(store: Workspace) -> None:
    book = added(store)
    run_id = followed(store, book).run_id
    terms = f"SELECT DISTINCT {TERMS} FROM plans"
    n = len(rows(store, terms))
    assert 1 < n < count(store, "plans")
    assert count(store, OF_STRATEGISTS) == 1 + n
    # How each proposal would have done alone is not known: all count in full.
    (deflated,) = rows(store, "SELECT * FROM backtest_metrics")
    assert (deflated["n_trials"], deflated["n_trials_effective"]) == (1 + n, 1 + n)
    assert deflated["dsr_effective"] == deflated["dsr"] < deflated["psr"]
    measured = f"{OF_STRATEGISTS} AND sharpe IS NOT NULL AND weekly_returns <> '{{}}'"
    assert count(store, measured) == 1
    refreshed(store, without_last(3))
    request_replan(store, "core", "ann")
    assert followed(store, book).run_id != run_id
    assert count(store, OF_STRATEGISTS) == 2 + len(rows(store, terms))
    assert count(store, measured) == 2


def test_runs_of_books_are_listed_and_found_by_each_of_their_symbols(store: Workspace) -> None:
    pair = followed(store, added(store, "pair", *SYMBOLS)).run_id
    alone = followed(store, added(store, "alone")).run_id

    def found(symbol: str) -> set[object]:
        return {row["run_id"] for row in list_runs(store, RunFilter(symbol=symbol)).rows}

    assert found("S-ALPHA") == {pair, alone}
    assert found("S-BETA") == {pair}
    assert found("S-ALPHA+S-BETA") == {pair}
    assert found("S-GAMMA") == set()
    (row,) = [row for row in list_runs(store).rows if row["run_id"] == pair]
    assert row["synthetic"]


def test_a_book_without_plans_or_bars_under_them_has_no_run(store: Workspace) -> None:
    book = added(store)
    with pytest.raises(InvalidInput, match="plan book core has no plan yet"):
        follow_book(store, book, "1D", COSTLY)
    execute_sql(store, "UPDATE plan_books SET start = '2025-12-26'")
    late = replace(book, start=date(2025, 12, 26))
    with pytest.raises(NotEnoughBars, match="fewer than 2 bars from the first plan on"):
        followed(store, late)
    with pytest.raises(NotEnoughBars, match=r"S-ALPHA\|7D: no bars are stored"):
        follow_book(store, replace(late, timeframes=("1D", "7D")), "7D", COSTLY)


def test_a_run_is_not_published_under_plans_that_were_replaced_meanwhile(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = added(store)
    replan(store, book)
    simulate, tries = planned_runs.planned_account, []

    def slow(*args: Any) -> Any:
        account = simulate(*args)
        if not tries:
            execute_sql(
                store,
                "UPDATE plans SET plan_id = plan_id || 'x' WHERE sequence ="
                " (SELECT max(sequence) FROM plans)",
            )
        tries.append(1)
        return account

    monkeypatch.setattr(planned_runs, "planned_account", slow)
    assert follow_book(store, book, "1D", COSTLY).is_new
    assert len(tries) == 2


def test_retention_keeps_the_current_run_of_a_book_and_removes_older_ones(
    store: Workspace,
) -> None:
    book = added(store)
    first = followed(store, book).run_id
    second = followed(store, book, initial_cash=5_000.0).run_id
    execute_sql(store, "UPDATE backtest_runs SET completed_at = '2020-01-01Z'")
    report = retain(store, days=90)
    assert report.rows["runs"] == 1
    assert column(store, "SELECT run_id FROM backtest_runs") == [second] != [first]
    assert set(column(store, "SELECT DISTINCT run_id FROM plan_log")) == {second}
    execute_sql(store, "DELETE FROM plan_books")
    assert delete_runs(store, [second]) == 1
    assert count(store, "plan_log") == count(store, "block_events") == 0


def test_checks_find_what_was_taken_from_a_run_or_a_book(store: Workspace) -> None:
    books = {"planned_backtests": SYMBOLS[:1], "planned_portfolios": SYMBOLS}
    runs = {
        asset: followed(store, added(store, f"of-{len(symbols)}", *symbols)).run_id
        for asset, symbols in books.items()
    }
    for asset in (*books, "strategy_plans", "backtests"):
        assert set(check_dataset(store, asset).values()) == {0}, asset
    assert check_stored_metrics(store).differing == {}
    asset, run_id = "planned_portfolios", runs["planned_portfolios"]
    newest = "SELECT max(replan_sequence) FROM plan_log WHERE run_id = :run_id"
    execute_sql(
        store,
        f"DELETE FROM plan_log WHERE run_id = :run_id AND replan_sequence = ({newest})",
        run_id=run_id,
    )
    execute_sql(store, "UPDATE backtest_trades SET trigger_id = 't_none' WHERE trade_no = 1")
    execute_sql(
        store,
        "UPDATE block_events SET reason = 'other' WHERE event_no = 1 AND run_id = :run_id",
        run_id=run_id,
    )
    found = check_dataset(store, asset)
    assert (found["plans_missing"], found["blocks_missing"]) == (1, 1)
    assert found["trades_without_trigger"] == 1
    assert check_dataset(store, "planned_backtests") == {
        **dict.fromkeys(found, 0),
        "trades_without_trigger": 1,
    }


def test_books_of_a_removed_source_go_with_their_runs(store: Workspace) -> None:
    followed(store, added(store, "pair", *SYMBOLS))
    remove_source(store, "static")
    for table in ("plan_books", "plans", "plan_log", "backtest_runs", "dim_assets"):
        assert count(store, table) == 0, table
