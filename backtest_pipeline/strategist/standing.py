"""How a book has fared under the plan in force."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.strategist.known import BookState

_HOUR_US = DAY_US // 24


@dataclass(frozen=True)
class Standing:
    """How a book has fared since its plan took effect, as known at an instant.

    Attributes:
        plan_return: change of the equity, a fraction.
        plan_drawdown: deepest fall of the equity below its highest, a fraction, 0 or less.
        day_return: change of the equity since the UTC day began, a fraction.
        closed, won: trades closed, and those of them with a profit.
        triggered, blocked: entries that triggers asked for, and those of them that were blocked.
        idle_triggers: entries asked for since the last one that was made.
        idle_hours: hours since the close that the last entry that was made was decided at, or
            since the plan took effect.
    """

    plan_return: float = 0.0
    plan_drawdown: float = 0.0
    day_return: float = 0.0
    closed: int = 0
    won: int = 0
    triggered: int = 0
    blocked: int = 0
    idle_triggers: int = 0
    idle_hours: float = 0.0


@dataclass(frozen=True)
class BookPath:
    """What happened to a book at each stamp of its bars; arrays `(n_times,)`.

    Attributes:
        ts: int64, stamps, ascending, microseconds since 1970 UTC.
        equity: float64, at the stamp, in the quote currency.
        triggered: int64, entries that were due at the open of the stamp's bar, asked for at the
            close before: `blocked` and `taken` together, and others.
        blocked: int64, those of them that were blocked.
        taken: int64, those of them that were made.
        closed: int64, trades closed since the stamp before.
        won: int64, those of them with a profit.

    Raises:
        InvalidInput: for arrays of other lengths, stamps out of order, or counts that contradict
            each other.
    """

    ts: np.ndarray
    equity: np.ndarray
    triggered: np.ndarray
    blocked: np.ndarray
    taken: np.ndarray
    closed: np.ndarray
    won: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.ts)
        for name in ("equity", "triggered", "blocked", "taken", "closed", "won"):
            if len(getattr(self, name)) != n:
                raise InvalidInput(
                    f"path of a book: {name} has {len(getattr(self, name))} stamps, not {n}"
                )
        if np.any(np.diff(self.ts) <= 0):
            raise InvalidInput("path of a book: stamps must be ascending; sort them")
        if np.any(self.blocked + self.taken > self.triggered) or np.any(self.won > self.closed):
            raise InvalidInput(
                "path of a book: more entries were blocked and made than asked for, or more trades "
                "won than closed; count each once"
            )

    def standing(self, effective_us: int, instant_us: int) -> Standing:
        """How the book stands at an instant, under a plan that took effect at another.

        Stamps after the instant play no part. What was due at the stamp that the plan took effect
        at was decided at the close before, and is that of the plan before.

        Args:
            effective_us, instant_us: microseconds since 1970 UTC.
        """
        first = int(np.searchsorted(self.ts, effective_us))
        end = int(np.searchsorted(self.ts, instant_us, side="right"))
        if end <= first:
            return Standing()
        equity = self.equity[first:end]
        own = slice(first + 1, end)
        asked, made = self.triggered[own], self.taken[own]
        entries = np.flatnonzero(made)
        after = int(entries[-1]) + 1 if len(entries) else 0
        since = self.ts[first + after - 1] if after else effective_us
        return Standing(
            plan_return=float(equity[-1] / equity[0] - 1),
            plan_drawdown=float((equity / np.maximum.accumulate(equity)).min() - 1),
            day_return=self.state(instant_us).day_return,
            closed=int(self.closed[own].sum()),
            won=int(self.won[own].sum()),
            triggered=int(asked.sum()),
            blocked=int(self.blocked[own].sum()),
            idle_triggers=int(asked[after:].sum()),
            idle_hours=float(self.ts[end - 1] - since) / _HOUR_US,
        )

    def state(self, instant_us: int) -> BookState:
        """How the account stands at an instant.

        Raises:
            InvalidInput: where there is no stamp by then.
        """
        end = int(np.searchsorted(self.ts, instant_us, side="right"))
        if not end:
            raise InvalidInput("path of a book: it begins after this instant; give a later one")
        equity = self.equity[:end]
        # The day began with the equity of the last stamp before it.
        midnight = self.ts[end - 1] // DAY_US * DAY_US
        start = equity[max(int(np.searchsorted(self.ts, midnight)) - 1, 0)]
        return BookState(
            equity=float(equity[-1]),
            day_return=float(equity[-1] / start - 1),
            drawdown=float(equity[-1] / equity.max() - 1),
        )
