"""The same rule on the same bars in random order: the null hypothesis that its timing is luck.

Moving the trades about on the path that made them is no such test: a rule that buys after a fall
knows that path, and passes on driftless random walks far too often. Here the bars are
permuted, the features are computed from them again, and the rule decides on those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.panel import BAR_COLUMNS, Panel
from backtest_pipeline.research.robustness.bootstrap import FEWEST_DAYS, optimal_block_length
from backtest_pipeline.research.robustness.draws import Purpose, batches, generator, require_draws
from backtest_pipeline.research.robustness.repeat import Rule, RunInputs
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.orders import condition_bits
from backtest_pipeline.strategies.strategy import Params, Strategy, conditions_of
from backtest_pipeline.trading.conditions import Conditions

MOST_PERMUTATIONS = 200
"""Each computes features and conditions again; 200 tell 0.05 from 0.02 and from 0.1."""
_PRICES = ("open", "high", "low", "close")
_FEATURES = 100  # columns that a rule may compute for each bar


@dataclass(frozen=True)
class PermutedRuns:
    """Runs of one rule on permuted bars.

    Attributes:
        block_length: bars that stay together.
        total_return: float64 `(draws,)`, fractions.
        ruined: bool `(draws,)`, whether the account was liquidated.
    """

    block_length: int
    total_return: np.ndarray
    ruined: np.ndarray


def rule_of(strategy: Strategy[Any], params: Params) -> Callable[[Panel], Conditions]:
    """Conditions of a strategy on bars, its features computed from them."""
    names = strategy.columns(params)

    def conditions(bars: Panel) -> Conditions:
        return conditions_of(strategy, with_indicators(bars, names), params)

    return conditions


def bars_of(panel: Panel, before: int | None = None) -> Panel:
    """The bars of a panel without its features, up to the stamp `before` if given."""
    columns = {name: panel[name] for name in BAR_COLUMNS if name in panel.columns}
    bars = Panel(panel.timeframe, panel.assets, panel.offsets, panel.ts, columns)
    return bars if before is None else bars.take(bars.ts < before)


def permuted_returns(run: RunInputs, rule: Rule, draws: int, seed: int) -> PermutedRuns:
    """Total returns of the run's rule on its bars in random order.

    Costs, sizing and stops are the run's. Bars before the run stay as they are. Finer bars, whose
    order inside a permuted bar is unknown, are left out.

    Args:
        run: the run.
        rule: its rule, and the bars before it.
        draws: number of permuted markets.
        seed: random seed.

    Raises:
        InvalidInput: for a number of draws or a seed out of range.
    """
    require_draws(draws, seed)
    own = bars_of(run.panel)
    length = block_bars(own)
    returns, ruined = [], []
    for batch in batches(draws, _FEATURES * (len(own) + len(rule.history))):
        markets, is_own = _joined(
            rule.history, [permuted(own, rule.history, length, seed, draw) for draw in batch]
        )
        events = condition_bits(rule.conditions(markets))
        panel = with_config_columns(markets, run.config).take(is_own)
        result = simulate_batch(
            panel,
            np.ascontiguousarray(events[None, is_own]),
            run.config,
            funding=run.funding,
            benchmark=np.full(len(panel), run.config.initial_cash),
        )
        returns.append(result.metrics["total_return"])
        ruined.append(result.liquidated)
    return PermutedRuns(length, np.concatenate(returns), np.concatenate(ruined))


def block_bars(bars: Panel) -> int:
    """Bars that stay together: as long as the size of moves depends on earlier ones.

    1 on a random walk. On real markets, blocks keep calm and wild weeks together; what a rule gains
    from dependence within a block is there after the permutation too.
    """
    if len(bars) <= FEWEST_DAYS:
        return 1
    moves = np.abs(np.diff(np.log(bars["close"])))
    return int(np.ceil(optimal_block_length(moves)))


def permuted(bars: Panel, history: Panel, length: int, seed: int, draw: int) -> Panel:
    """One asset's bars with their moves in random order, in blocks of `length`.

    The moves of each bar, from the close before to its open and from there to high, low and close,
    are taken as logarithms, so that the last close stays the same. All other columns move with
    their bar; stamps stay. Without history the first bar stays too, since nothing is before it.
    """
    first = 0 if len(history) else 1
    logs = {name: np.log(bars[name]) for name in _PRICES}
    start = float(np.log(history["close"][-1])) if len(history) else float(logs["close"][0])
    before = np.concatenate(([start], logs["close"][:-1]))[first:]
    order = _order(len(bars) - first, length, generator(seed, Purpose.PERMUTED_BARS, draw))
    open_, high, low, close = (logs[name][first:] for name in _PRICES)
    moved_to = start + np.cumsum((close - before)[order])
    opened_at = moved_to - (close - open_)[order]
    opens, closes = np.exp(opened_at), np.exp(moved_to)
    highs = np.exp(opened_at + (high - open_)[order])
    lows = np.exp(opened_at + (low - open_)[order])
    # Rounding must not lift a close above a high of the same move.
    prices = {
        "open": opens,
        "high": np.maximum.reduce((opens, highs, closes)),
        "low": np.minimum.reduce((opens, lows, closes)),
        "close": closes,
    }
    others = {n: column[first:][order] for n, column in bars.columns.items() if n not in prices}
    return bars.with_columns(
        {n: np.concatenate((bars[n][:first], v)) for n, v in (prices | others).items()}
    )


def _order(n: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation of n in which blocks keep their order; where blocks are cut is random too."""
    cut = np.arange(n) + int(rng.integers(length))
    n_blocks = int(cut[-1]) // length + 1 if n else 0
    rank = rng.permutation(n_blocks)
    return np.argsort(rank[cut // length], kind="stable")


def _joined(history: Panel, markets: list[Panel]) -> tuple[Panel, np.ndarray]:
    """One segment per market, each after the same history, and which rows are the market's own."""
    names = markets[0].columns.keys()
    pieces = [piece for market in markets for piece in (history, market)]
    n = len(history) + len(markets[0])
    panel = Panel(
        markets[0].timeframe,
        markets[0].assets * len(markets),
        np.arange(len(markets) + 1, dtype=np.int64) * n,
        np.concatenate([piece.ts for piece in pieces]),
        {name: np.concatenate([piece[name] for piece in pieces]) for name in names},
    )
    return panel, np.arange(len(panel)) % n >= len(history)
