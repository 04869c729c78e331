"""Negative controls: the false-positive rate of the whole search, measured on random markets.

In random markets with a planted edge the same figures are the power of the search.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.research.ranking.leaderboard import Gate, with_significance
from backtest_pipeline.research.ranking.trials import Family, family_of
from backtest_pipeline.research.validation.efficiency import WalkForwardVerdict, efficiency
from backtest_pipeline.research.validation.optimizer import Objective, Search
from backtest_pipeline.research.validation.schedule import Schedule, tasks_of
from backtest_pipeline.research.validation.walk_forward import (
    Question,
    choose,
    stitched,
    trade_stitched,
)
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.metrics.daily import daily_return_counts, daily_returns
from backtest_pipeline.simulation.orders import condition_bits
from backtest_pipeline.simulation.rules import RulesOfRuns, config_for
from backtest_pipeline.strategies.grid import ParameterGrid, parameter_grid, parameter_space
from backtest_pipeline.strategies.strategy import Strategy, conditions_of

NEGATIVE_CONTROLS_VERSION = 2
"""Raise it when the random markets, their search or their verdicts change."""
SIGNIFICANT = 0.95
_SWEPT = 2  # parameters that vary; the others keep the middle value of their grid


def search_grids(searched: Iterable[Strategy[Any]]) -> list[ParameterGrid]:
    """The grids of a search: first, middle and last value of two parameters of each strategy."""
    return [_small_grid(strategy) for strategy in searched]


def _small_grid(strategy: Strategy[Any]) -> ParameterGrid:
    few = {}
    for i, (name, values) in enumerate(strategy.grid.items()):
        middle = values[len(values) // 2]
        few[name] = sorted({values[0], middle, values[-1]}) if i < _SWEPT else [middle]
    return parameter_grid(strategy, few, most=3**_SWEPT)


def search(bars: Panel, grids: Sequence[ParameterGrid], config: SimulationConfig) -> pd.DataFrame:
    """Run every combination of the grids on every asset, with the code that stored runs use.

    Args:
        bars: assets; each is searched separately and has its own board.
        grids: combinations to try.
        config: costs, sizing and everything else that a run assumes.

    Returns:
        One row per asset and combination: RUN_COLUMNS and DERIVED of the leaderboard, `board`
        (position of the asset) and `family` (name of the strategy).
    """
    events, tried, rules = [], [], []
    for grid in grids:
        for values in grid.combinations:
            params = grid.strategy.parse(dict(zip(grid.names, values, strict=True)))
            known = with_indicators(bars, grid.strategy.columns(params))
            events.append(condition_bits(conditions_of(grid.strategy, known, params)))
            rules.append(config_for(config, grid.strategy, params).rules)
            tried.append(grid.strategy.name)
    by_run = RulesOfRuns.by_run(rules, len(bars.assets))
    batch = simulate_batch(bars, np.stack(events), config, rules=by_run)
    runs = pd.DataFrame(batch.metrics)
    asset = np.tile(np.arange(len(bars.assets)), len(tried))
    families = _families(bars, batch.equity, tried)
    return with_significance(
        runs.assign(
            board=asset,
            family=np.repeat(tried, len(bars.assets)),
            n_trials=[family.n_trials for family in families],
            n_trials_effective=[family.n_effective for family in families],
            n_families=len(set(tried)),
            n_days=daily_return_counts(bars.offsets, bars.ts // DAY_US)[asset],
            costs_paid=runs["fees_paid"] + runs["slippage_cost"] + runs["funding_paid"],
            initial_cash=config.initial_cash,
        )
    )


def _families(bars: Panel, equity: np.ndarray, tried: Sequence[str]) -> list[Family]:
    """The family of each run: all trials of its strategy on its asset."""
    days = bars.ts // DAY_US
    slices = [slice(start, end) for start, end in pairwise(bars.offsets)]
    by_asset = [daily_returns(equity[:, rows], days[rows]) for rows in slices]
    of_strategy = {name: np.flatnonzero([other == name for other in tried]) for name in set(tried)}
    families = {
        name: [family_of(len(own), returns[:, own]) for returns in by_asset]
        for name, own in of_strategy.items()
    }
    return [family for name in tried for family in families[name]]


def walk_forwards_pass(
    bars: Panel, grids: Sequence[ParameterGrid], config: SimulationConfig, n_walk_forwards: int
) -> np.ndarray:
    """Whether a walk-forward of each strategy passes on each asset, with the default schedule.

    Args:
        bars: assets, each walked forward separately.
        grids: combinations that each strategy's training windows choose from.
        config: costs, sizing and everything else that a run assumes.
        n_walk_forwards: walk-forwards of an asset, as one of which each is judged.

    Returns:
        bool `(2, n_grids, n_assets)`: judged as one of `n_walk_forwards`, and as the only one, as
        it is where it was declared beforehand. All False if the bars are too few for a fold.
    """
    passed = np.zeros((2, len(grids), len(bars.assets)), bool)
    try:
        tasks = [task for asset in bars.assets for task in tasks_of(bars, asset, Schedule())[0]]
    except InvalidInput:  # too few bars for a single fold: nothing can pass
        return passed
    for g, grid in enumerate(grids):
        values = zip(*grid.combinations, strict=True)
        axes = {name: sorted(set(axis)) for name, axis in zip(grid.names, values, strict=True)}
        space = parameter_space(grid.strategy, axes)
        question = Question(space, Search(), Objective.of("sharpe"), config)
        chosen = choose(bars, tasks, question)
        psr = trade_stitched([stitched(bars, tasks, chosen, question)], config).metrics["psr"]
        for a, asset in enumerate(bars.assets):
            of_asset = [c for task, c in zip(tasks, chosen, strict=True) if task.asset == asset]
            sharpes = ([c.train["sharpe"] for c in of_asset], [c.test["sharpe"] for c in of_asset])
            for i, n in enumerate((n_walk_forwards, 1)):
                judged = efficiency(*sharpes, float(psr[a]), n)
                passed[i, g, a] = judged.verdict is WalkForwardVerdict.PASSED
    return passed


@dataclass(frozen=True)
class Verdicts:
    """How many searches of random markets were called significant.

    All of them are false positives where no edge was planted.

    Attributes:
        n_searches: number of searches, one per random market.
        n_naive: searches whose best trial by Sharpe ratio has a PSR of at least SIGNIFICANT, with
            no correction for the number of trials.
        n_in_family: searches with a trial whose DSR within its family is at least SIGNIFICANT, with
            no correction for the other families.
        n_significant: searches with a trial whose DSR, corrected for the choice among families, is
            at least SIGNIFICANT.
        n_passed: searches with a trial that passes every gate.
        n_families: families of all searches: one per strategy and random market.
        n_run, n_run_effective: families with a trial whose DSR is at least SIGNIFICANT, for the
            number of trials and for the effective number. Stored runs carry these two, and `run`
            prints them.
        n_walk_forwards: number of walk-forwards.
        n_walk_forwards_passed: walk-forwards with the verdict "passed".
        n_declared_passed: walk-forwards that pass if declared beforehand.
    """

    n_searches: int
    n_naive: int
    n_in_family: int
    n_significant: int
    n_passed: int
    n_families: int
    n_run: int
    n_run_effective: int
    n_walk_forwards: int = 0
    n_walk_forwards_passed: int = 0
    n_declared_passed: int = 0

    def __add__(self, other: Verdicts) -> Verdicts:
        return Verdicts(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )

    @property
    def rate(self) -> float:
        """Share of searches called significant, after all corrections."""
        return self.n_significant / self.n_searches

    @property
    def run_rate(self) -> float:
        """Share of families whose best run was called significant, by the more lenient DSR."""
        return max(self.n_run, self.n_run_effective) / self.n_families

    @property
    def walk_forward_rate(self) -> float:
        """Share of walk-forwards that passed; 0 if there was none."""
        return self.n_walk_forwards_passed / max(self.n_walk_forwards, 1)

    @property
    def upper_bound(self) -> float:
        """Upper end of the one-sided 95 % confidence interval of `rate` (Clopper, Pearson 1934)."""
        from scipy.stats import binomtest

        test = binomtest(self.n_significant, self.n_searches, alternative="less")
        return float(test.proportion_ci(0.95, "exact").high)


def verdicts(
    runs: pd.DataFrame, gates: Sequence[Gate], walk_forwards: np.ndarray | None = None
) -> Verdicts:
    """Count the significant searches.

    Args:
        runs: returned by `search`.
        gates: gates of the leaderboard.
        walk_forwards: returned by `walk_forwards_pass`; None if there were none.
    """

    def boards_with(runs_that: np.ndarray) -> int:
        return len(np.unique(boards[runs_that]))

    boards = runs["board"].to_numpy()
    worst_first = runs.sort_values("sharpe", na_position="first")
    best = worst_first.drop_duplicates("board", keep="last")
    names = ["dsr", "dsr_effective"]
    highest = pd.DataFrame(runs.groupby(["board", "family"])[names].max()).to_numpy(float)
    significant = np.sum(highest >= SIGNIFICANT, axis=0).tolist()
    passed = np.zeros((2, 0, 0), bool) if walk_forwards is None else walk_forwards
    as_one_of_several, declared = passed.sum(axis=(1, 2)).tolist()
    return Verdicts(
        n_searches=len(best),
        n_naive=np.sum(best["psr"].to_numpy() >= SIGNIFICANT).item(),
        n_in_family=boards_with(runs["dsr"].to_numpy() >= SIGNIFICANT),
        n_significant=boards_with(runs["dsr_across_families"].to_numpy() >= SIGNIFICANT),
        n_passed=boards_with(np.logical_and.reduce([gate.passed(runs) for gate in gates])),
        n_families=len(highest),
        n_run=significant[0],
        n_run_effective=significant[1],
        n_walk_forwards=passed[0].size,
        n_walk_forwards_passed=as_one_of_several,
        n_declared_passed=declared,
    )
