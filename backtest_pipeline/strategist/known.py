"""What a strategist may see: everything up to an instant, and nothing later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.vocabulary import ReplanReason

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def stamp_of(instant_us: int) -> datetime:
    """Microseconds since 1970 UTC as a stamp.

    Examples:
        >>> stamp_of(1_000_000).isoformat()
        '1970-01-01T00:00:01+00:00'
    """
    return _EPOCH + int(instant_us) * _MICROSECOND


def microseconds_of(stamp: datetime) -> int:
    """A stamp as microseconds since 1970 UTC.

    Examples:
        >>> microseconds_of(stamp_of(1_700_000_000_123_456))
        1700000000123456
    """
    return (stamp - _EPOCH) // _MICROSECOND


@dataclass(frozen=True)
class BookState:
    """How the account stands at an instant.

    Attributes:
        equity: in the quote currency.
        day_return: change of the equity since the UTC day began, a fraction.
        drawdown: distance of the equity from its highest so far, a fraction, 0 or less.
    """

    equity: float
    day_return: float = 0.0
    drawdown: float = 0.0


@dataclass(frozen=True)
class Occasion:
    """What a plan is wanted for.

    Attributes:
        instant_us: the last instant whose data is known, microseconds since 1970 UTC.
        symbols: symbols of the book, in alphabetical order.
        timeframes: timeframes of the book, the shortest first.
        reasons: why a plan is wanted.
        valid_for: how long the plan shall be valid.
        previous: the plan in force; None if there is none.
        book: how the account stands; None where nothing has been traded.
    """

    instant_us: int
    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    reasons: tuple[ReplanReason, ...]
    valid_for: timedelta
    previous: Plan | None = None
    book: BookState | None = None

    @property
    def instant(self) -> datetime:
        """The instant as a stamp in UTC."""
        return stamp_of(self.instant_us)


@dataclass(frozen=True)
class Known:
    """An occasion with what is known at its instant; `known_at` makes it.

    Attributes:
        occasion: what a plan is wanted for.
        panels: bars and features by timeframe, from each symbol's first bar on, none later than
            the instant; the same symbols in each.
    """

    occasion: Occasion
    panels: Mapping[str, Panel]


def known_at(
    panels: Mapping[str, Panel],
    instant_us: int,
    *,
    reasons: tuple[ReplanReason, ...],
    valid_for: timedelta,
    previous: Plan | None = None,
    book: BookState | None = None,
) -> Known:
    """What is known at an instant: copies of the bars up to it, without any later one.

    Args:
        panels: bars and features by timeframe, the same symbols in each; they may go on after the
            instant.
        instant_us: microseconds since 1970 UTC; what is known reaches up to the last bar by then.
        reasons, valid_for, previous, book: as in `Occasion`.

    Raises:
        InvalidInput: where there is no timeframe, the timeframes have other symbols, no bar is
            known yet, or the previous plan saw data that is not known yet.
    """
    symbols, timeframes = book_of(panels)
    cut = {name: panel.take(panel.ts <= instant_us) for name, panel in panels.items()}
    last = max((int(panel.ts.max()) for panel in cut.values() if len(panel)), default=None)
    if last is None:
        raise InvalidInput(
            f"nothing is known at {stamp_of(instant_us).isoformat()}: no symbol has a bar by then; "
            "give a later instant"
        )
    if previous is not None and microseconds_of(previous.generated_at) > last:
        raise InvalidInput(
            f"the previous plan {previous.plan_id} saw data up to "
            f"{previous.generated_at.isoformat()}, after {stamp_of(last).isoformat()}; plan in the "
            "order of time"
        )
    occasion = Occasion(last, symbols, timeframes, reasons, valid_for, previous, book)
    return Known(occasion, cut)


def book_of(panels: Mapping[str, Panel]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The symbols of a book in alphabetical order, and its timeframes, the shortest first.

    Raises:
        InvalidInput: where there is no timeframe, or the timeframes have other symbols.
    """
    if not panels:
        raise InvalidInput("a book has no timeframe; name at least one")
    (first, panel), *others = panels.items()
    for name, other in others:
        if set(other.assets) != set(panel.assets):
            differing = sorted(set(other.assets) ^ set(panel.assets))
            raise InvalidInput(
                f"the symbols of {name} and {first} differ: {', '.join(differing)[:200]}; give "
                "each timeframe the same symbols"
            )
    timeframes = sorted(panels, key=lambda name: timeframe(name).sort_key)
    return tuple(sorted(panel.assets)), tuple(timeframes)


def stamps_of(panel: Panel) -> np.ndarray:
    """Every stamp that any symbol has, ascending, int64 `(n_times,)`."""
    return np.unique(panel.ts)
