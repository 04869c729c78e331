"""Random entries matched to a run: the null hypothesis that its timing is luck."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.robustness.draws import Purpose, batches, generator, require_draws
from backtest_pipeline.research.robustness.repeat import RunInputs
from backtest_pipeline.simulation.columns import entry_fractions, with_sizing_columns
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.simulation.trades import Trades
from backtest_pipeline.trading.stops import StopRules


@dataclass(frozen=True)
class HoldingTimes:
    """Sides and holding times of a run's trades, without their dates.

    Attributes:
        side: int8 `(n_trades,)`, 1 long, -1 short, in the order of the trades.
        bars: int64 `(n_trades,)`, bars from the entry's open to the exit's open.
        first_row: first bar at whose open the run could have traded.
        end_row: last such bar; one past the last bar if the run ends with an open position.
    """

    side: np.ndarray
    bars: np.ndarray
    first_row: int
    end_row: int

    @property
    def least_gap(self) -> np.ndarray:
        """Fewest bars before each trade: 1 if the trade before it has the same side, else 0."""
        return np.concatenate(([0], self.side[1:] == self.side[:-1])).astype(np.int64)

    @property
    def free_bars(self) -> int:
        """Bars without a position, to be spread freely before, between and after trades."""
        held = int(self.bars.sum() + self.least_gap.sum())
        return self.end_row - self.first_row - held


def holding_times(panel: Panel, trades: Trades, config: SimulationConfig) -> HoldingTimes:
    """Sides and holding times of a run on the panel's only asset.

    A trade closed inside a bar is held until that bar's open, and for at least one bar; an open
    trade is held until the end. No trade can start before the sizing has a value.
    """
    exit_ = np.searchsorted(panel.ts, trades.exit_ts)
    held = np.where(trades.is_open, len(panel), exit_) - trades.entry_bar
    sized = with_sizing_columns(panel, config.sizing)
    has_size = np.isfinite(entry_fractions(sized, config.sizing, 1, config.max_leverage))
    return HoldingTimes(
        side=trades.side,
        bars=np.maximum(held, 1),
        first_row=max(1 + config.delay_bars, int(has_size.argmax())),
        end_row=len(panel) - 1 + int(trades.is_open.any()),
    )


def random_dates(holdings: HoldingTimes, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random entries and exits of the same trades, without overlap.

    The order of sides is kept. Holding times are shuffled within each side, and the free bars are
    spread so that every arrangement is equally likely.

    Returns:
        Rows of entry and of exit, at whose open each trade starts and ends, int64 `(n_trades,)`. A
        trade with its exit beyond the last bar stays open.
    """
    n = len(holdings.side)
    bars = holdings.bars.copy()
    for side in (1, -1):
        mine = holdings.side == side
        bars[mine] = rng.permutation(bars[mine])
    # Each choice of n separators among n + free_bars positions is one arrangement.
    separators = np.sort(rng.choice(holdings.free_bars + n, n, replace=False, shuffle=False))
    gap = np.diff(separators, prepend=-1) - 1 + holdings.least_gap
    exit_ = holdings.first_row + np.cumsum(gap + bars)
    return exit_ - bars, exit_


def place_trades(
    entry: np.ndarray, exit_: np.ndarray, side: np.ndarray, events: np.ndarray
) -> None:
    """Set the signals of the trades in one run's `events` (uint8), one bar before their fills."""
    np.bitwise_or.at(events, entry - 1, np.where(side > 0, LONG_ENTRY, SHORT_ENTRY).astype("u1"))
    left = exit_ < len(events)
    exits = np.where(side > 0, LONG_EXIT, SHORT_EXIT).astype("u1")
    np.bitwise_or.at(events, exit_[left] - 1, exits[left])


def random_entry_returns(run: RunInputs, trades: Trades, draws: int, seed: int) -> np.ndarray:
    """Total returns of runs with the same trades, sides and holding times at random dates.

    Costs and sizing are the run's; there are no stops, and a trade ends with its holding time. A
    random run ends with an open position only if the run itself does.

    Args:
        run: the run.
        trades: its trades, at least one.
        draws: number of random runs.
        seed: random seed.

    Returns:
        float64 `(draws,)`, fractions; empty if the trades do not fit into the bars (a trade stopped
        in its entry bar takes a whole bar here).

    Raises:
        InvalidInput: for a number of draws or a seed out of range.
    """
    require_draws(draws, seed)
    holdings = holding_times(run.panel, trades, run.config)
    if holdings.free_bars < 0:
        return np.empty(0)
    plain = replace(run.config, stops=StopRules(), cooldown_bars=0, delay_bars=0)
    at_once = replace(run, config=plain)
    returns = []
    for batch in batches(draws, len(run.panel)):
        events = np.zeros((len(batch), len(run.panel)), np.uint8)
        for i, draw in enumerate(batch):
            rng = generator(seed, Purpose.ENTRIES, draw)
            place_trades(*random_dates(holdings, rng), holdings.side, events[i])
        returns.append(at_once.simulated(events).metrics["total_return"])
    return np.concatenate(returns)
