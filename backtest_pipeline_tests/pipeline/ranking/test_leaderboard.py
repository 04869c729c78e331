"""The leaderboard of a store: complete, in order, judged by gates that came first."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
import sqlalchemy as sa

from backtest_pipeline import explore, load_bars
from backtest_pipeline.market.errors import InvalidInput, StoreError, UnknownName
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.pipeline.ranking.board_tables import leaderboard_summary, shown_rows
from backtest_pipeline.pipeline.ranking.leaderboard import (
    leaderboard_faults,
    publish_leaderboard,
    register_gates,
)
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.runs.reports.reported_runs import reported_run
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline_tests.pipeline.markets import StaticSource, refresh, until, us, whole
from backtest_pipeline_tests.pipeline.on_demand import backtest_once
from backtest_pipeline_tests.sql import count, execute_sql, scalar

SOUND = dict.fromkeys(
    (
        *("no_board", "ranks_not_contiguous", "runs_missing", "runs_outdated"),
        "runs_ranked_in_quarantine",
    ),
    0,
)
GATES = [{"name": "trades", "metric": "trade_count", "at_least": 5}]


def test_every_current_run_is_on_the_board_once(workspace: Workspace) -> None:
    assert leaderboard_faults(workspace) == {**SOUND, "no_board": 1}
    refresh(workspace, whole())
    board = publish_leaderboard(workspace)
    assert board.is_new
    assert leaderboard_faults(workspace) == SOUND
    ranked = [row for row in board.rows if row["rank"]]
    assert [row["rank"] for row in ranked] == list(range(1, len(ranked) + 1))
    assert len(ranked) == board.about["n_ranked"] > 20
    dsr = [row["dsr"] for row in ranked]
    assert dsr == sorted(dsr, reverse=True)
    sharpe = [row["sharpe"] for row in ranked]
    assert sharpe != sorted(sharpe, reverse=True)
    assert len(board.rows) == count(workspace, "backtest_runs")
    for row in board.rows:
        assert (row["rank"] is None) == (row["unranked"] is not None)
        if row["rank"] is None:
            assert row["unranked"].startswith("no Sharpe ratio")
            assert row["sharpe"] is None
        else:
            assert set(row["scores"]) == {"balanced", "risk_focus", "quality", "low_cost"}
            assert row["passed"] == all(row["gates"].values())
            assert row["n_trials"] >= 10
            assert "dsr" not in row["undefined"]


def test_a_board_of_the_same_runs_is_kept(workspace: Workspace) -> None:
    refresh(workspace, whole(), [Partition("S-MU", "1D")])
    first = publish_leaderboard(workspace)
    again = publish_leaderboard(workspace)
    assert first.is_new
    assert not again.is_new
    assert (again.about, again.rows) == (first.about, first.rows)
    refresh(workspace, whole(), [Partition("S-ALPHA", "1W")])
    assert leaderboard_faults(workspace)["runs_missing"] == 6
    more = publish_leaderboard(workspace)
    assert more.about["board_id"] != first.about["board_id"]
    assert leaderboard_faults(workspace) == SOUND
    assert count(workspace, "leaderboards") == 2


def test_a_run_by_hand_is_a_trial_without_a_rank(workspace: Workspace) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    before = publish_leaderboard(workspace)
    window = Window(date(2025, 1, 1), date(2025, 12, 1))
    terms = RunTerms(SimulationConfig(), window)
    backtest_once(workspace, whole(), signal="ema_9_21", asset="S-ALPHA", tf="1D", terms=terms)
    after = publish_leaderboard(workspace)
    (by_hand,) = [row for row in after.rows if row["unranked"]]
    assert by_hand["unranked"].startswith("not from the latest refresh")
    assert after.about["n_ranked"] == before.about["n_ranked"] == 6
    trials = {row["n_trials"] for row in after.rows if row["family"] == "ema_crossover"}
    assert trials - {None} == {3}  # a preset in a window of one's own is no other set of parameters
    assert leaderboard_faults(workspace) == SOUND


def test_the_report_of_a_run_shows_its_place_on_the_newest_board(workspace: Workspace) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    run_id = scalar(workspace.database, "SELECT min(run_id::text)::uuid FROM backtest_runs")
    assert reported_run(workspace, run_id).board is None
    board = publish_leaderboard(workspace)
    (row,) = [row for row in board.rows if row["run_id"] == run_id]
    place = reported_run(workspace, run_id).board
    assert place is not None
    assert (place.rank, place.dsr, place.n_trials) == (row["rank"], row["dsr"], row["n_trials"])
    assert place.n_ranked == board.about["n_ranked"] == 6
    assert set(place.fails) == {name for name, passed in row["gates"].items() if not passed}


def test_what_a_sweep_tries_lowers_the_board(workspace: Workspace) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    before = {row["run_id"]: row for row in publish_leaderboard(workspace).rows}
    explore(
        load_bars(asset="S-ALPHA"),
        "ema",
        {"fast": range(2, 8), "slow": range(30, 90, 10)},
        asset="S-ALPHA",
        workspace=workspace,
    )
    board = publish_leaderboard(workspace)
    assert board.is_new
    assert board.about["board_id"] != next(iter(before.values()))["board_id"]
    for row in board.rows:
        old = before[row["run_id"]]
        if row["family"] == "ema_crossover":
            assert (old["n_trials"], row["n_trials"]) == (3, 39)
            assert row["dsr"] < old["dsr"]
            assert 1 <= row["n_trials_effective"] < 39
        else:
            assert (row["n_trials"], row["dsr"]) == (old["n_trials"], old["dsr"])
        assert row["dsr"] <= row["dsr_effective"] <= row["psr"]
        assert row["n_families"] == 3
    assert not publish_leaderboard(workspace).is_new


def test_the_days_of_a_run_are_the_returns_that_were_measured(workspace: Workspace) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "4H"), Partition("S-ALPHA", "1D")])
    days = {(row["tf"], row["n_days"]) for row in publish_leaderboard(workspace).rows}
    with workspace.database.begin() as connection:
        measured = connection.execute(sa.text("SELECT DISTINCT tf, n_obs FROM trials")).all()
    assert days == {tuple(row) for row in measured}


def test_gates_that_came_after_the_results_are_refused_or_said(workspace: Workspace) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    assert not publish_leaderboard(workspace).about["registered_after_results"]
    register_gates(workspace, "easy", GATES)
    with pytest.raises(InvalidInput, match=r"after 6 of the configurations .* prove nothing"):
        publish_leaderboard(workspace, gates="easy")
    late = publish_leaderboard(workspace, gates="easy", late_gates=True)
    assert late.about["registered_after_results"]
    assert late.about["gates"] == GATES
    assert leaderboard_summary(late).numbers["registered_after_results"]
    with pytest.raises(UnknownName, match="did you mean easy"):
        publish_leaderboard(workspace, gates="eazy")


def test_no_rebuild_and_no_other_assumption_makes_known_results_young(
    workspace: Workspace,
) -> None:
    partition = Partition("S-ALPHA", "1D")
    refresh(workspace, until("2025-11-01"), [partition])
    register_gates(workspace, "easy", GATES)
    for source, config, rebuild in (
        (until("2025-11-01"), SimulationConfig(), True),
        (whole(), SimulationConfig(), False),
        (whole(), SimulationConfig(initial_cash=9_999.0), False),
    ):
        refresh(workspace, source, [partition], config, rebuild=rebuild)
        with pytest.raises(InvalidInput, match="after 6 of the configurations"):
            publish_leaderboard(workspace, gates="easy")
    assert publish_leaderboard(workspace, gates="easy", late_gates=True).about[
        "registered_after_results"
    ]


def test_gates_judge_what_was_first_tried_after_them(workspace: Workspace) -> None:
    register_gates(workspace, "easy", GATES)
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    assert not publish_leaderboard(workspace, gates="easy").about["registered_after_results"]


def test_a_board_names_the_gates_that_it_was_not_shown_with(workspace: Workspace) -> None:
    register_gates(workspace, "easy", GATES)
    empty = publish_leaderboard(workspace)
    assert empty.gate_sets_not_shown == ["easy"]
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    register_gates(workspace, "late", [{"name": "trades", "metric": "trade_count", "at_least": 1}])
    easy = publish_leaderboard(workspace, gates="easy")
    assert (easy.about["open_gate_sets"], easy.gate_sets_not_shown) == (
        ["default", "easy"],
        ["default"],
    )
    late = publish_leaderboard(workspace, gates="late", late_gates=True)
    assert late.gate_sets_not_shown == ["default", "easy"]
    summary = leaderboard_summary(late)
    assert summary.numbers["open_gate_sets"] == 2
    assert summary.tables["gate_sets_not_shown"] == [{"gate_set": "default"}, {"gate_set": "easy"}]


def test_a_board_that_hides_late_gates_is_marked_by_the_database(workspace: Workspace) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    register_gates(workspace, "easy", GATES)
    shown = publish_leaderboard(workspace).about
    assert not shown["registered_after_results"]
    forged = "SELECT 'forged', gate_set_id, FALSE, 1, 1, '1' FROM gate_sets WHERE name = 'easy'"
    execute_sql(
        workspace,
        "INSERT INTO leaderboards (board_id, gate_set_id, registered_after_results, n_ranked,"
        f" n_passed, code_version) {forged}",
    )
    row = (
        "SELECT 'forged', run_id, NULL::int, 'none', signal_name, family, symbol, tf, scores,"
        " gates, passed, undefined FROM leaderboard WHERE rank = 1"
    )
    execute_sql(
        workspace,
        "INSERT INTO leaderboard (board_id, run_id, rank, unranked, signal_name, family, symbol,"
        f" tf, scores, gates, passed, undefined) {row}",
    )
    late = "SELECT registered_after_results FROM leaderboards WHERE board_id = 'forged'"
    assert not scalar(workspace, late)
    execute_sql(
        workspace,
        "UPDATE leaderboard SET rank = 1, unranked = NULL WHERE board_id = 'forged'",
    )
    assert scalar(workspace, late)


def test_a_run_stays_the_trial_that_it_was(workspace: Workspace) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    other = "UPDATE backtest_runs SET trial_id = (SELECT max(trial_id::text) FROM trials)::uuid"
    with pytest.raises(StoreError, match="UPDATE of backtest_runs"):
        execute_sql(workspace, other)


def test_a_board_that_was_tampered_with_is_noticed(workspace: Workspace) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    publish_leaderboard(workspace)
    execute_sql(workspace, "UPDATE leaderboard SET rank = 99 WHERE rank = 2")
    assert leaderboard_faults(workspace) == {**SOUND, "ranks_not_contiguous": 1}
    execute_sql(workspace, "DELETE FROM leaderboard WHERE rank = 99")
    assert leaderboard_faults(workspace) == {
        **SOUND,
        "ranks_not_contiguous": 1,
        "runs_missing": 1,
    }
    execute_sql(workspace, "UPDATE backtest_runs SET is_current = FALSE")
    assert leaderboard_faults(workspace)["runs_outdated"] == 5


def test_an_empty_store_has_an_empty_board(workspace: Workspace) -> None:
    board = publish_leaderboard(workspace)
    assert (board.about["n_ranked"], list(board.rows)) == (0, [])
    assert leaderboard_faults(workspace) == SOUND
    assert shown_rows(board) == []


def daily(asset: str, log_moves: np.ndarray) -> Panel:
    close = 100 * np.exp(np.cumsum(log_moves))
    open_ = np.concatenate(([100.0], close[:-1]))
    ts = us("2026-01-01") - 1000 - DAY_US * np.arange(len(close))[::-1]
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) * 1.001,
        "low": np.minimum(open_, close) * 0.999,
        "close": close,
        "volume": np.ones(len(close)),
    }
    return Panel(timeframe("1D"), (asset,), np.array([0, len(close)]), ts, columns)


def test_a_real_edge_passes_every_default_gate_and_a_bad_run_none(workspace: Workspace) -> None:
    rng = np.random.default_rng(4)
    # Trends of 80 days, up and down by turns, are what breakouts and crossovers earn on.
    turns = np.where(np.arange(2600) // 80 % 2 == 0, 0.01, -0.01)
    good = daily("GOOD", turns + rng.normal(0, 0.012, 2600))
    # A short and wild life: whoever follows a trend of 12 days buys its end and sells the next's.
    wild = np.where(np.arange(300) // 12 % 2 == 0, 0.05, -0.05)
    bad = daily("BAD", wild + rng.normal(0, 0.005, 300))
    panel = Panel.join(timeframe("1D"), ("BAD", "GOOD"), [bad, good], tuple(good.columns))
    refresh(workspace, StaticSource({"1D": panel}), [Partition(a, "1D") for a in ("BAD", "GOOD")])
    board = publish_leaderboard(workspace)
    best = board.rows[0]
    assert best["symbol"] == "GOOD"
    assert best["passed"], best["gates"]
    hopeless = [row for row in board.rows if row["rank"] and not any(row["gates"].values())]
    assert {row["symbol"] for row in hopeless} == {"BAD"}
    assert all(row["rank"] > best["rank"] for row in hopeless)


def test_people_see_the_order_that_they_ask_for(refreshed: Workspace) -> None:
    board = publish_leaderboard(refreshed)
    weekly = shown_rows(board, scheme="low_cost", tf="1W", limit=5)
    assert len(weekly) == 5
    assert {row["timeframe"] for row in weekly} == {"1W"}
    scores = [row["low_cost"] for row in weekly]
    assert scores == sorted(scores, reverse=True)
    assert [row["rank"] for row in shown_rows(board, limit=3)] == [1, 2, 3]
    tables = leaderboard_summary(board).tables
    assert len(tables["best_by_significance"]) == 10
