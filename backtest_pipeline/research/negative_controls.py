"""The pipeline's own false-positive rate: its whole search, where there is nothing to be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.research.leaderboard import Gate, with_significance
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.daily import daily_return_counts
from backtest_pipeline.simulation.orders import event_bits
from backtest_pipeline.strategies.base import Strategy, signal_events
from backtest_pipeline.strategies.grid import ParameterGrid, parameter_grid
from backtest_pipeline.strategies.registry import strategies

SIGNIFICANT = 0.95
_SWEPT = 2  # parameters of which several values are tried; the others stay in the middle


def search_grids() -> list[ParameterGrid]:
    """What a search tries: of each strategy the first, middle and last values of two parameters."""
    return [_small_grid(strategy) for strategy in strategies().values()]


def _small_grid(strategy: Strategy[Any]) -> ParameterGrid:
    few = {}
    for i, (name, values) in enumerate(strategy.grid.items()):
        middle = values[len(values) // 2]
        few[name] = sorted({values[0], middle, values[-1]}) if i < _SWEPT else [middle]
    return parameter_grid(strategy, few, most=3**_SWEPT)


def search(bars: Panel, grids: Sequence[ParameterGrid], config: SimulationConfig) -> pd.DataFrame:
    """Every combination of the grids on every asset, by the way that stored runs take.

    Args:
        bars: assets that are searched one by one, each of which is a board of its own.
        grids: what to try.
        config: costs, sizing and all else that a run assumes.

    Returns:
        One row per asset and combination: what a board reads, and the significance. The board is
        the asset's position, the family the strategy.
    """
    events, tried = [], []
    for grid in grids:
        for values in grid.combinations:
            params = grid.strategy.parse(dict(zip(grid.names, values, strict=True)))
            known = with_indicators(bars, grid.strategy.columns(params))
            events.append(event_bits(signal_events(grid.strategy, known, params)))
            tried.append(grid.strategy.signal_type)
    runs = pd.DataFrame(simulate_batch(bars, np.stack(events), config).metrics)
    asset = np.tile(np.arange(len(bars.assets)), len(tried))
    family = np.repeat(tried, len(bars.assets))
    n_trials = runs.groupby([asset, family])["sharpe"].transform("size")
    return with_significance(
        runs.assign(
            board=asset,
            family=family,
            n_trials=n_trials,
            n_trials_effective=n_trials.astype(float),
            n_families=len(set(tried)),
            n_days=daily_return_counts(bars.offsets, bars.ts // DAY_US)[asset],
            costs_paid=runs["fees_paid"] + runs["slippage_cost"] + runs["funding_paid"],
            initial_cash=config.initial_cash,
        )
    )


@dataclass(frozen=True)
class Verdicts:
    """What was believed of how many searches.

    Attributes:
        n_searches: searches.
        n_naive: those whose best trial by Sharpe ratio has a PSR of at least SIGNIFICANT, as if it
            had been the only one.
        n_in_family: those with a trial whose DSR within its own family is at least SIGNIFICANT, as
            if the other families had not been tried.
        n_significant: those with a trial whose DSR, allowing for the choice among families, is at
            least SIGNIFICANT.
        n_passed: those with a trial that passes every gate.
    """

    n_searches: int
    n_naive: int
    n_in_family: int
    n_significant: int
    n_passed: int

    def __add__(self, other: Verdicts) -> Verdicts:
        return Verdicts(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )

    @property
    def rate(self) -> float:
        """Share of the searches that were called significant."""
        return self.n_significant / self.n_searches

    @property
    def upper_bound(self) -> float:
        """One-sided 95 % confidence bound of the rate (Clopper and Pearson 1934)."""
        from scipy.stats import binomtest

        found = binomtest(self.n_significant, self.n_searches, alternative="less")
        return float(found.proportion_ci(0.95, "exact").high)


def verdicts(runs: pd.DataFrame, gates: Sequence[Gate]) -> Verdicts:
    """Count what is believed; `runs` as `search` gives them."""

    def boards_with(runs_that: np.ndarray) -> int:
        return len(np.unique(boards[runs_that]))

    boards = runs["board"].to_numpy()
    worst_first = runs.sort_values("sharpe", na_position="first")
    best = worst_first.drop_duplicates("board", keep="last")
    return Verdicts(
        n_searches=len(best),
        n_naive=np.sum(best["psr"].to_numpy() >= SIGNIFICANT).item(),
        n_in_family=boards_with(runs["dsr"].to_numpy() >= SIGNIFICANT),
        n_significant=boards_with(runs["dsr_across_families"].to_numpy() >= SIGNIFICANT),
        n_passed=boards_with(np.logical_and.reduce([gate.passed(runs) for gate in gates])),
    )
