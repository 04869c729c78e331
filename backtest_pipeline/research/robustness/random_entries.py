"""Random entries that match a run: the null hypothesis that its timing is luck."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.robustness.draws import Purpose, blocks, generator, require_draws
from backtest_pipeline.research.robustness.repeat import RunInputs
from backtest_pipeline.simulation.columns import entry_fractions, with_sizing_columns
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.simulation.trades import Trades
from backtest_pipeline.trading.stops import StopRules


@dataclass(frozen=True)
class Holdings:
    """What a run held, without where.

    Attributes:
        side: int8 `(n_trades,)`, 1 long, -1 short, in the order of the trades.
        bars: int64 `(n_trades,)`, from the entry's open to the exit's open.
        first_row: the first bar at whose open the run could have filled.
        end_row: the last one; beyond the bars where the run itself ends in position.
    """

    side: np.ndarray
    bars: np.ndarray
    first_row: int
    end_row: int

    @property
    def least_gap(self) -> np.ndarray:
        """Bars that must lie before each trade; a side that was left is not entered at once."""
        return np.concatenate(([0], self.side[1:] == self.side[:-1])).astype(np.int64)

    @property
    def free_bars(self) -> int:
        """Bars that can lie before, between and after the trades as one likes."""
        held = int(self.bars.sum() + self.least_gap.sum())
        return self.end_row - self.first_row - held


def holdings_of(panel: Panel, trades: Trades, config: SimulationConfig) -> Holdings:
    """What a run on the panel's only asset held.

    A position that was left within a bar counts until that bar's open, and at least one bar; one
    that is still open counts until the end. Bars before the sizing has a value are no places for a
    trade.
    """
    exit_ = np.searchsorted(panel.ts, trades.exit_ts)
    held = np.where(trades.is_open, len(panel), exit_) - trades.entry_bar
    sized = with_sizing_columns(panel, config.sizing)
    has_size = np.isfinite(entry_fractions(sized, config.sizing, 1, config.max_leverage))
    return Holdings(
        side=trades.side,
        bars=np.maximum(held, 1),
        first_row=max(1 + config.delay_bars, int(has_size.argmax())),
        end_row=len(panel) - 1 + int(trades.is_open.any()),
    )


def random_places(holdings: Holdings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same trades at random, non-overlapping places.

    Holding times are put in random order within each side, and the free bars are spread so that
    every way to spread them is as likely as any other. The order of sides stays.

    Returns:
        Rows of entry, and of exit: the bars at whose open each trade begins and ends, int64
        `(n_trades,)`. An exit beyond the last bar is none: the position stays open.
    """
    n = len(holdings.side)
    bars = holdings.bars.copy()
    for side in (1, -1):
        mine = holdings.side == side
        bars[mine] = rng.permutation(bars[mine])
    # Every choice of n bars among the free ones and n separators is one way to spread them.
    separators = np.sort(rng.choice(holdings.free_bars + n, n, replace=False, shuffle=False))
    gap = np.diff(separators, prepend=-1) - 1 + holdings.least_gap
    exit_ = holdings.first_row + np.cumsum(gap + bars)
    return exit_ - bars, exit_


def place_trades(
    entry: np.ndarray, exit_: np.ndarray, side: np.ndarray, events: np.ndarray
) -> None:
    """Write the signals, one bar ahead of their fills, into one run's `events` (uint8)."""
    np.bitwise_or.at(events, entry - 1, np.where(side > 0, LONG_ENTRY, SHORT_ENTRY).astype("u1"))
    left = exit_ < len(events)
    exits = np.where(side > 0, LONG_EXIT, SHORT_EXIT).astype("u1")
    np.bitwise_or.at(events, exit_[left] - 1, exits[left])


def random_entry_returns(run: RunInputs, trades: Trades, draws: int, seed: int) -> np.ndarray:
    """Total returns of runs that trade as often, as long and on the same sides, at random places.

    They pay the same costs and are sized by the same rule; they leave when the holding time is
    over, and have no stops. They end in position only if the run itself does.

    Args:
        run: the run.
        trades: what it traded, at least one.
        draws: random runs.
        seed: of the random numbers.

    Returns:
        float64 `(draws,)`, fractions; empty where the trades leave no room for other places (a
        position stopped in the bar of its entry takes a whole bar here).

    Raises:
        InvalidInput: without draws.
    """
    require_draws(draws, seed)
    holdings = holdings_of(run.panel, trades, run.config)
    if holdings.free_bars < 0:
        return np.empty(0)
    at_once = replace(
        run, config=replace(run.config, stops=StopRules(), cooldown_bars=0, delay_bars=0)
    )
    found = []
    for block in blocks(draws, len(run.panel)):
        events = np.zeros((len(block), len(run.panel)), np.uint8)
        for i, draw in enumerate(block):
            rng = generator(seed, Purpose.ENTRIES, draw)
            place_trades(*random_places(holdings, rng), holdings.side, events[i])
        found.append(at_once.simulated(events).metrics["total_return"])
    return np.concatenate(found)
