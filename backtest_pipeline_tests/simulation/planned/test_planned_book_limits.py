"""What each limit blocks on a market made by hand, worked out row by row.

Half of 10,000 at 100 is 50 units; at 94 it is 53.1915, or 51.5957 after a loss of 300, and 30 % are
31.9149 or 30.9574. A row is: signal's bar, symbol, trigger, side, units, reason, detail.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backtest_pipeline.simulation.planned.planned_book import simulate_planned
from backtest_pipeline.simulation.trades import EXIT_REASONS
from backtest_pipeline.trading.block_reasons import BlockReason
from backtest_pipeline_tests.simulation.planned.hand_market import (
    EXIT,
    FREE,
    LONG,
    SHORT,
    TRIGGERS,
    Row,
    blocked,
    hand_made,
    hand_plan,
    stamp,
)

SIDES = "triggers ask for both sides at one bar"
RANK = "a trigger of higher priority acts at the same bar"
WAITS = "exit: no price at the next open; it waits for the next bar"
NO_BAR: Row = (35, "B", "panic", "long", 48.5, "emergency_exit_veto", WAITS)


def conflict(units: float = 30.9574) -> list[Row]:
    """A's bar 22 asks for both sides, whatever limits there are."""
    return [
        (22, "A", "trend", "long", units, "pending_entry_conflict", SIDES),
        (22, "A", "fade", "short", units, "pending_entry_conflict", SIDES),
    ]


def outranked(units: float = 30.9574) -> Row:
    """At A's bar 24 the trend goes before the dip."""
    return (24, "A", "dip", "long", units, "priority_skip", RANK)


AFTER = [*conflict(), outranked()]
LATER = [*conflict(), outranked(), NO_BAR]
PER_DAY, PER_SYMBOL = "2 entries today >= limit 2 a day", "1 entries of the symbol today >= limit 1"
OF_TIMEFRAME = "2 entries of the timeframe today >= limit 2"
OF_SESSION = "1 entries of the session today >= limit 1"
STOP = "loss at the stop 5 % of equity > limit 4 %"
SYMBOL = "symbol exposure 50 % of equity > limit 40 %"
FULL = "portfolio exposure 100 % of equity > limit 80 %"
SPENT = "risk of the day 10 % of equity > limit 6 %"
FLAT = "bar 1 of 2 without an entry of the symbol"
COOL = "cooldown: bar 1 of 2 without an entry of the trigger"
NO_SYMBOL, NO_SIDE = "the plan does not allow the symbol", "the plan does not allow the side"
NO_CATEGORY = "the plan does not allow the trigger's category"
NO_PANIC = "exit: the plan does not allow the category emergency_exit"
EARLY, LATE = "03:59 UTC is in no session", "23:59 UTC is in no session"


def too_large(detail: str) -> list[Row]:
    """All that want half of the equity, so that nothing is lost, nor is B held at bar 35."""
    return [
        (1, "A", "trend", "long", 50.0, "risk", detail),
        (1, "B", "trend", "long", 50.0, "risk", detail),
        (4, "A", "trend", "long", 50.0, "risk", detail),
        (7, "A", "fade", "short", 50.0, "risk", detail),
        (12, "A", "trend", "long", 50.0, "risk", detail),
        (12, "B", "trend", "long", 50.0, "risk", detail),
        (17, "A", "trend", "long", 53.1915, "risk", detail),
        *conflict(31.9149),
        outranked(31.9149),
        (24, "B", "trend", "long", 50.0, "risk", detail),
        (34, "B", "trend", "long", 50.0, "risk", detail),
    ]


CASES: dict[str, tuple[dict[str, Any], list[Row]]] = {
    "no limit": ({}, LATER),
    "day loss": (  # 50 units of A fall by 6: 300 of 10,000
        {"limits": {"max_daily_loss_pct": 2.0}},
        [(17, "A", "trend", "long", 51.5957, "daily_cap", "day loss -3 % <= limit -2 %"), *LATER],
    ),
    "day loss not reached": ({"limits": {"max_daily_loss_pct": 3.1}}, LATER),
    "trades a day": (  # A and B have entered on days 0, 2 and 4 when A asks again
        {"max_trades_per_day": 2},
        [
            (4, "A", "trend", "long", 50.0, "plan_limit", PER_DAY),
            (17, "A", "trend", "long", 51.5957, "plan_limit", PER_DAY),
            *AFTER,
            (27, "A", "dip", "long", 30.9574, "plan_limit", PER_DAY),
            NO_BAR,
        ],
    ),
    "triggers a symbol and day": (
        {"max_triggers_per_symbol_per_day": 1},
        [
            (4, "A", "trend", "long", 50.0, "trigger_load", PER_SYMBOL),
            (17, "A", "trend", "long", 51.5957, "trigger_load", PER_SYMBOL),
            *AFTER,
            (27, "A", "dip", "long", 30.9574, "trigger_load", PER_SYMBOL),
            NO_BAR,
        ],
    ),
    "trades of the timeframe": (
        {"max_trades_per_timeframe_per_day": {"4H": 2, "1D": 0}},
        [
            (4, "A", "trend", "long", 50.0, "timeframe_cap", OF_TIMEFRAME),
            (17, "A", "trend", "long", 51.5957, "timeframe_cap", OF_TIMEFRAME),
            *AFTER,
            (27, "A", "dip", "long", 30.9574, "timeframe_cap", OF_TIMEFRAME),
            NO_BAR,
        ],
    ),
    "session": (  # the first and the last close of a day are at 03:59 and 23:59
        {"sessions": [{"start": "04:00", "end": "20:00"}]},
        [
            (12, "A", "trend", "long", 50.0, "session_cap", EARLY),
            (12, "B", "trend", "long", 50.0, "session_cap", EARLY),
            (17, "A", "trend", "long", 53.1915, "session_cap", LATE),
            *conflict(31.9149),
            (24, "A", "trend", "long", 31.9149, "session_cap", EARLY),
            (24, "A", "dip", "long", 31.9149, "session_cap", EARLY),
            (24, "B", "trend", "long", 50.0, "session_cap", EARLY),
            (*NO_BAR[:4], 50.0, *NO_BAR[5:]),
        ],
    ),
    "trades of the session": (
        {"sessions": [{"start": "00:00", "end": "24:00", "max_trades": 1}]},
        [
            (1, "B", "trend", "long", 50.0, "session_cap", OF_SESSION),
            (4, "A", "trend", "long", 50.0, "session_cap", OF_SESSION),
            (12, "B", "trend", "long", 50.0, "session_cap", OF_SESSION),
            (17, "A", "trend", "long", 51.5957, "session_cap", OF_SESSION),
            *AFTER,
            (24, "B", "trend", "long", 48.5, "session_cap", OF_SESSION),
            (27, "A", "dip", "long", 30.9574, "session_cap", OF_SESSION),
            NO_BAR,
        ],
    ),
    "min hold": (  # the short of bar 7 reverses a position of 6 bars; panics are not held up
        {"min_hold_bars": 4},
        [
            (3, "A", "trend", "long", 50.0, "min_hold", "exit: held for 2 of 4 bars"),
            (9, "A", "fade", "short", 50.0, "min_hold", "exit: held for 2 of 4 bars"),
            (15, "A", "reduce", "long", 25.0, "min_hold", "exit: held for 3 of 4 bars"),
            *AFTER,
            (26, "A", "off", "long", 30.9574, "min_hold", "exit: held for 2 of 4 bars"),
            NO_BAR,
        ],
    ),
    "min flat": (
        {"min_flat_bars": 2},
        [
            (4, "A", "trend", "long", 50.0, "min_flat", FLAT),
            (17, "A", "trend", "long", 51.5957, "min_flat", FLAT),
            *AFTER,
            (27, "A", "dip", "long", 30.9574, "min_flat", FLAT),
            NO_BAR,
        ],
    ),
    "cooldown": (  # of the trigger alone: what closes at the open of bar 27 is not the dip's
        {"cooldown_bars": 2},
        [
            (4, "A", "trend", "long", 50.0, "min_flat", COOL),
            (17, "A", "trend", "long", 51.5957, "min_flat", COOL),
            *LATER,
        ],
    ),
    "position risk": (  # 10 % of a half; of 30 % it is 3 %, and of a dip 1.2 %
        {"limits": {"max_position_risk_pct": 4.0}},
        too_large(STOP),
    ),
    "symbol exposure": ({"limits": {"max_symbol_exposure_pct": 40.0}}, too_large(SYMBOL)),
    "portfolio exposure": (  # half and 30 % are exactly the limit
        {"limits": {"max_portfolio_exposure_pct": 80.0}},
        [
            (1, "B", "trend", "long", 50.0, "risk", FULL),
            (12, "B", "trend", "long", 50.0, "risk", FULL),
            *LATER,
        ],
    ),
    "risk budget": (  # an entry of half the equity is 5 %
        {"limits": {"max_daily_risk_budget_pct": 6.0}},
        [
            (1, "B", "trend", "long", 50.0, "risk_budget", SPENT),
            (4, "A", "trend", "long", 50.0, "risk_budget", SPENT),
            (12, "B", "trend", "long", 50.0, "risk_budget", SPENT),
            (17, "A", "trend", "long", 51.5957, "risk_budget", SPENT),
            *AFTER,
            (24, "B", "trend", "long", 48.5, "risk_budget", SPENT.replace("10 %", "8 %")),
            NO_BAR,
        ],
    ),
    "symbols": (
        {"allowed_symbols": ["A"]},
        [
            (1, "B", "trend", "long", 50.0, "symbol_veto", NO_SYMBOL),
            (12, "B", "trend", "long", 50.0, "symbol_veto", NO_SYMBOL),
            *AFTER,
            (24, "B", "trend", "long", 48.5, "symbol_veto", NO_SYMBOL),
            (34, "B", "trend", "long", 48.5, "symbol_veto", NO_SYMBOL),
        ],
    ),
    "directions": (  # the long of bar 22 has no conflict then, and is held at bar 24
        {"allowed_directions": ["long"]},
        [
            (7, "A", "fade", "short", 50.0, "direction", NO_SIDE),
            (22, "A", "fade", "short", 30.9574, "direction", NO_SIDE),
            NO_BAR,
        ],
    ),
    "categories": (  # so that A is held from bar 18 on
        {"allowed_categories": ["trend_continuation", "mean_reversion"]},
        [
            (7, "A", "fade", "short", 50.0, "category", NO_CATEGORY),
            (15, "A", "reduce", "long", 25.0, "category", f"exit: {NO_CATEGORY}"),
            (19, "A", "panic", "long", 51.5957, "emergency_exit_veto", NO_PANIC),
            (22, "A", "fade", "short", 30.9574, "category", NO_CATEGORY),
            (26, "A", "off", "long", 51.5957, "category", f"exit: {NO_CATEGORY}"),
            (*NO_BAR[:6], NO_PANIC),
        ],
    ),
    "stance": (
        {"stance": "wait"},
        [
            (bar, symbol, trigger, side, units, "plan_limit", "stance is wait")
            for bar, symbol, trigger, side, units in (
                (1, "A", "trend", "long", 50.0),
                (1, "B", "trend", "long", 50.0),
                (4, "A", "trend", "long", 50.0),
                (7, "A", "fade", "short", 50.0),
                (12, "A", "trend", "long", 50.0),
                (12, "B", "trend", "long", 50.0),
                (17, "A", "trend", "long", 53.1915),
                (22, "A", "trend", "long", 31.9149),
                (22, "A", "fade", "short", 31.9149),
                (24, "A", "trend", "long", 31.9149),
                (24, "A", "dip", "long", 31.9149),
                (24, "B", "trend", "long", 50.0),
                (27, "A", "dip", "long", 31.9149),
                (34, "B", "trend", "long", 50.0),
            )
        ],
    ),
    "expired": (  # the panic of bar 19 still acts
        {"valid_until": stamp(19)},
        [
            (bar, symbol, trigger, side, units, "plan_limit", "plan expired")
            for bar, symbol, trigger, side, units in (
                (22, "A", "trend", "long", 30.9574),
                (22, "A", "fade", "short", 30.9574),
                (24, "A", "trend", "long", 30.9574),
                (24, "A", "dip", "long", 30.9574),
                (24, "B", "trend", "long", 48.5),
                (27, "A", "dip", "long", 30.9574),
                (34, "B", "trend", "long", 48.5),
            )
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_limit_blocks_these_rows_and_no_others(name: str) -> None:
    change, expected = CASES[name]
    assert blocked(change) == expected


SMALL: Row = (24, "A", "trend", "long", 30.9574, "insufficient_cash", "order below min_notional")


def test_an_entry_that_the_account_cannot_make_is_blocked_too() -> None:
    dip: Row = (27, "A", "dip", *SMALL[3:])
    found = blocked({}, replace(FREE, min_notional=4000.0))
    assert found == [*conflict(), outranked(), SMALL, dip, NO_BAR]


MISSING = "a feature of the rule has no value at the signal's bar"
UNDEFINED = "the rule is undefined at the signal's bar"


def test_rules_without_a_value_block_what_they_might_have_entered() -> None:
    """`rsi_14` is missing at bar 20, and a volume of 2, that of an exit, divides by zero.

    A rule that cannot be evaluated is one row for each plan, at its first bar.
    """
    by_rsi = TRIGGERS["dip"] | {"entry": "rsi_14 > 50"}
    by_volume = TRIGGERS["fade"] | {"entry": f"1 / (volume - {EXIT}) > 5"}
    by_rank = TRIGGERS["trend"] | {"entry": "rank_pct(close) > 0.5"}
    found = blocked({}, triggers={"rsi": by_rsi, "volume": by_volume, "rank": by_rank})
    assert [row for row in found if row[2] == "rsi"] == [
        (20, symbol, "rsi", "long", units, "missing_indicator", MISSING)
        for symbol, units in (("A", 53.1915), ("B", 50.0))
    ]
    assert [row for row in found if row[2] == "volume"] == [
        (bar, symbol, "volume", "short", units, "expression_error", UNDEFINED)
        for bar, symbol, units in (
            *((3, "A", 50.0), (5, "B", 50.0), (9, "A", 50.0), (16, "A", 53.1915)),
            *((17, "B", 50.0), (29, "B", 50.0), (30, "A", 53.1915)),
        )
    ]
    failed = [row for row in found if row[2] == "rank"]
    assert [row[:6] for row in failed] == [
        (0, symbol, "rank", "long", 50.0, "expression_error") for symbol in ("A", "B")
    ]
    assert all(row[6].startswith("the rule cannot be evaluated: ") for row in failed)


def test_a_reversal_that_a_limit_blocks_still_closes() -> None:
    """A's long is closed at bar 8, where it would have become short."""
    change = {"min_flat_bars": 1}
    triggers = {
        "trend": TRIGGERS["trend"] | {"exit": None},
        "fade": TRIGGERS["fade"] | {"exit": None},
    }
    assert (LONG, SHORT) == (1, 3)
    found = blocked(change, triggers=triggers)
    held = "bar 1 of 1 without an entry of the symbol"
    assert (7, "A", "fade", "short", 50.0, "min_flat", held) in found
    assert (12, "A", "trend", "long", 50.0, "min_flat", held) not in found


TRADES = [  # symbol, entry's bar, bars held, units, exit, entering and leaving trigger, pnl
    ("A", 2, 2, 50.0, "signal", "trend", "trend", 0.0),
    ("A", 5, 3, 50.0, "reversal", "trend", "fade", 0.0),
    ("A", 8, 2, -50.0, "signal", "fade", "fade", 0.0),
    ("A", 13, 3, 25.0, "signal", "trend", "reduce", -150.0),
    ("A", 13, 4, 25.0, "signal", "trend", "trend", -150.0),
    ("A", 18, 2, 51.5957, "signal", "trend", "panic", 0.0),
    ("A", 25, 2, 30.9574, "signal", "trend", "off", 0.0),
    ("A", 28, 3, 30.9574, "signal", "dip", "dip", 0.0),
    ("B", 2, 4, 50.0, "signal", "trend", "trend", 0.0),
    ("B", 13, 5, 50.0, "signal", "trend", "trend", 0.0),
    ("B", 25, 5, 48.5, "signal", "trend", "trend", 0.0),
    ("B", 35, 1, 48.5, "signal", "trend", "panic", 0.0),
]


def test_without_limits_these_are_the_trades() -> None:
    """Where they change, PLANS_VERSION or ENGINE_VERSION has to be raised."""
    result = simulate_planned(hand_made(), [hand_plan({})], FREE)
    trades, of = result.book.trades, [*TRIGGERS, *TRIGGERS]
    found = zip(
        [result.book.panel.assets[column] for column in trades.column],
        trades.entry_bar.tolist(),
        trades.bars_held.tolist(),
        (trades.side * trades.size).round(4).tolist(),
        [EXIT_REASONS[reason] for reason in trades.exit_reason],
        [of[n] for n in result.trade_trigger],
        [of[n] for n in result.exit_trigger],
        (trades.pnl + 0.0).round(4).tolist(),
        strict=True,
    )
    assert list(found) == TRADES
    assert result.book.equity[0, -1] == pytest.approx(9_700.0, rel=1e-15)


def test_every_reason_occurs() -> None:
    reasons = {row[5] for _, rows in CASES.values() for row in rows}
    elsewhere = {"insufficient_cash", "missing_indicator", "expression_error"}  # the tests above
    assert reasons | elsewhere == {r.value for r in BlockReason if r is not BlockReason.OTHER}
