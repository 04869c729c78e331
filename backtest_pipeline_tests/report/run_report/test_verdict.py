"""Each threshold at its bound, the verdict from top to bottom, and the page that shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backtest_pipeline.report.run_report.contents import BoardPlace
from backtest_pipeline.report.run_report.run_document import report_tiles
from backtest_pipeline.report.run_report.verdict import (
    CHECKS,
    NAMES,
    VERDICT,
    Threshold,
    chip_of,
    figures_of,
    reasons_of,
    rules_table,
    verdict_of,
)
from backtest_pipeline_tests.documents import ROOT
from backtest_pipeline_tests.report.reported import reported

GOOD: dict[str, float | None] = {
    "trade_count": 39,
    "closed_trades": 38,
    "liquidated": 0,
    "total_return": 1.0,
    "psr": 0.99,
    "dsr": 0.99,
    "board_dsr": 0.99,
    "sharpe_low": 0.2,
    "track_record": 1.5,
    "p_random_entries": 0.01,
    "random_entry_ruined": 0.0,
    "p_drawdown": 0.5,
    "random_fill_low": 0.3,
    "break_even_over_costs": 10.0,
    "excess_return": 0.5,
    "information_ratio": 0.4,
    "fragile": 0,
}
LITTLE = 1e-9
AT_THEIR_BOUNDS = [
    ("trade_count", 0, 1, "No trade was made."),
    ("liquidated", 1, 0, "The account was lost."),
    ("total_return", 0, LITTLE, "It loses money."),
    ("closed_trades", 19, 20, "Too few closed trades to judge."),
    ("dsr", None, 0.95, "Too short a history to judge."),
    ("dsr", 0.95 - LITTLE, 0.95, "Not clearly better than luck."),
    (
        *("board_dsr", 0.95 - LITTLE, 0.95),
        "Better than luck on this market, not among all trials of the strategy.",
    ),
    ("sharpe_low", 0, LITTLE, "Better than luck alone, but its interval holds zero."),
    ("p_random_entries", 0.05 + LITTLE, 0.05, "Not clearly better than random entries."),
    ("excess_return", 0, LITTLE, "Better than luck, and worse than its benchmark."),
    ("information_ratio", 0, LITTLE, "Better than luck, but no steady gain on its benchmark."),
    ("fragile", 1, 0, "Better than luck, and fragile."),
    ("excess_return", None, LITTLE, "Better than luck; not compared with a benchmark."),
    (
        *("information_ratio", None, LITTLE),
        "Better than luck and its benchmark; how steadily is not known.",
    ),
    ("fragile", None, 0, "Better than luck and its benchmark; not yet assessed."),
    (
        *("sharpe_low", None, LITTLE),
        "Better than luck and its benchmark; its interval is not known.",
    ),
    (
        *("p_random_entries", None, 0.05),
        "Better than luck and its benchmark; not compared with random entries.",
    ),
]


def test_a_run_that_meets_no_doubt_is_called_robust() -> None:
    assert verdict_of(GOOD) == "Better than luck and its benchmark, and robust."
    assert {rule.figure for rule in (*VERDICT, *CHECKS)} == set(NAMES) == set(GOOD)


@pytest.mark.parametrize(("figure", "meets", "misses", "words"), AT_THEIR_BOUNDS)
def test_the_verdict_changes_at_the_bound(
    figure: str, meets: float | None, misses: float | None, words: str
) -> None:
    assert verdict_of({**GOOD, figure: meets}) == words
    assert verdict_of({**GOOD, figure: misses}) == verdict_of(GOOD)


def test_every_rule_of_the_verdict_is_tried() -> None:
    assert [words for *_, words in AT_THEIR_BOUNDS] == [rule.words for rule in VERDICT[:-1]]


COMPARISONS = ("excess_return", "information_ratio", "sharpe_low", "p_random_entries")


@pytest.mark.parametrize("fragile", [0, 1, None])
def test_what_was_not_compared_is_not_claimed(fragile: float | None) -> None:
    without = {**GOOD, **dict.fromkeys(COMPARISONS), "fragile": fragile}
    assert "its benchmark" not in verdict_of(without)
    assert "robust" not in verdict_of(without)
    for name in COMPARISONS:
        assert "robust" not in verdict_of({**GOOD, name: None})


def test_a_known_fault_is_said_before_what_is_not_known() -> None:
    unassessed = {**GOOD, "p_random_entries": None, "sharpe_low": None, "fragile": None}
    assert "worse than its benchmark" in verdict_of({**unassessed, "excess_return": -0.1})
    without = {**GOOD, "excess_return": None, "information_ratio": None}
    assert verdict_of({**without, "fragile": 1}) == "Better than luck, and fragile."


def test_an_earlier_rule_goes_before_a_later_one() -> None:
    assert verdict_of({**GOOD, "fragile": 1, "total_return": -0.5}) == "It loses money."


def test_what_is_undefined_meets_no_bound() -> None:
    unknown = dict.fromkeys(GOOD, None)
    assert verdict_of({**unknown, "total_return": 0.5}) == "Too short a history to judge."
    for rule in CHECKS:
        assert chip_of(rule, None).text == "not known"


@pytest.mark.parametrize("rule", CHECKS, ids=lambda rule: rule.figure)
def test_a_chip_changes_at_its_bound(rule: Threshold) -> None:
    towards = {"below": -LITTLE, "at most": 0, "above": LITTLE, "at least": 0}[rule.sign]
    beyond = {"below": 0, "at most": LITTLE, "above": 0, "at least": -LITTLE}[rule.sign]
    assert chip_of(rule, rule.bound + towards) == (rule.words, "ok")
    assert chip_of(rule, rule.bound + beyond) == (rule.else_words, "warn")


def test_the_figures_are_those_that_are_stored() -> None:
    run = reported()
    figures = figures_of(run)
    assert figures["closed_trades"] == 38
    assert figures["sharpe_low"] == 0.1
    assert figures["break_even_over_costs"] == pytest.approx(291 / 15)
    assert figures["fragile"] == 0.0
    assert figures["total_return"] == run.metrics["total_return"]


def test_a_run_that_is_not_assessed_has_no_figures_of_an_assessment() -> None:
    figures = figures_of(reported(assessed=False))
    of_assessment = ("sharpe_low", "p_random_entries", "fragile", "break_even_over_costs")
    assert {figures[name] for name in of_assessment} == {None}


def test_the_reasons_name_what_random_entries_lost() -> None:
    run = reported()
    assert run.doubts is not None
    numbers: dict[str, Any] = {**run.doubts.numbers, "random_entry_ruined": 0.656}
    doubts = type(run.doubts)(numbers, run.doubts.random_entries, 1000, 0)
    told = " ".join(reasons_of(reported(doubts=doubts)))
    assert "3.7% of random entries did as well; 65.6% of them lost everything." in told
    assert "291 bps a side" in told


def test_the_reasons_say_what_is_counted_and_what_the_leaderboard_counts() -> None:
    place = BoardPlace(3, 348, 0.8, 116, ["significance"])
    run = reported(board=place)
    run = replace(run, metrics={**run.metrics, "dsr": 0.998, "n_trials": 2.0})
    told = " ".join(reasons_of(run))
    assert "with probability 0.2% (2 trials: parameter sets on AAA|1D)." in told
    assert (
        "The leaderboard counts all 116 trials of the strategy: deflated Sharpe 80.0%, rank 3 of "
        "348, fails significance." in told
    )
    (tile,) = (tile for tile in report_tiles(run) if tile.title == "Deflated Sharpe")
    assert tile.below == "2 trials: parameter sets; leaderboard 80.0%, 116 trials"
    assert "not among all trials" in verdict_of({**GOOD, "board_dsr": place.dsr})
    assert "leaderboard" not in " ".join(reasons_of(replace(run, board=None)))


def test_the_page_shows_the_table_of_the_code() -> None:
    assert rules_table() in (ROOT / "docs/report.md").read_text()
