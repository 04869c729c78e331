"""Searches of random markets in batches, here or by the workers of a pool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import numpy as np

from backtest_pipeline.market.errors import WorkGivenUp
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.pools.spread import is_spread, pieces_of
from backtest_pipeline.pipeline.pools.work_pool import HERE, PoolWork, done
from backtest_pipeline.pipeline.stages.batch_files import BatchFiles
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.ranking.leaderboard import Gate
from backtest_pipeline.research.ranking.negative_controls import (
    Verdicts,
    search,
    search_grids,
    verdicts,
    walk_forwards_pass,
)
from backtest_pipeline.research.ranking.planted_edges import PLANTED_STRATEGY, planted_grid
from backtest_pipeline.research.ranking.random_markets import (
    BarMoves,
    RandomMarket,
    bar_moves,
    random_markets,
)
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.strategies.grid import ParameterGrid
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.trading.costs import CostModel

FREE = SimulationConfig(costs=CostModel(fee_bps=0.0, slippage_bps=0.0))
"""No trading costs in a control: costs would push lucky results down and flatter the rate."""
DAILY = "1D"
PRICES = ("open", "high", "low", "close")
_BATCH = 50  # searches at a time, to bound memory and to react to Ctrl-C
# One batch in this many also runs walk-forwards, which take four times as long as its searches.
_WALK_FORWARD_EVERY = 5


@dataclass(frozen=True)
class Market:
    """A kind of random market, and the true yearly Sharpe ratio planted in it, 0 for none."""

    kind: RandomMarket
    planted: float

    def __str__(self) -> str:
        name = self.kind.value.replace("_", " ")
        return f"{name}, Sharpe {self.planted:g}" if self.planted else name


@dataclass(frozen=True)
class MarketSearches:
    """All searches of a control, as they are done in any process.

    Attributes:
        files: of the daily bars that markets are modelled on.
        strategies: names of those that are searched with.
        gates: of the leaderboard.
        searches: number of searches in each kind of random market.
        n_bars: daily bars of each market.
        seed: seed of the random numbers.
    """

    files: BatchFiles
    strategies: tuple[str, ...]
    gates: tuple[Gate, ...]
    searches: int
    n_bars: int
    seed: int

    def grids(self, market: Market) -> list[ParameterGrid]:
        """What is searched with; around the rule with the planted edge where there is one."""
        grids = search_grids(strategy_of(name) for name in self.strategies)
        if not market.planted:
            return grids
        return [planted_grid() if g.strategy.name == PLANTED_STRATEGY.name else g for g in grids]

    def verdicts(
        self, workspace: Workspace, market: Market, universe: Sequence[BarMoves]
    ) -> Verdicts:
        """The verdicts of all searches of a market.

        Where an edge was planted, its strategy alone is walked forward, in each market, and judged
        as one of as many walk-forwards as there are strategies.

        Args:
            workspace: the open store, whose pool does them.
            market: the market.
            universe: what the daily bars give, see `bar_moves`.
        """
        firsts = range(0, self.searches, _BATCH)
        n_trials = sum(map(len, self.grids(market)))
        spread = is_spread(workspace.pool, self.searches * self.n_bars * n_trials)
        pool = workspace.pool if spread or workspace.pool.is_here else HERE
        pieces = (
            pieces_of(pool, firsts) if spread else [firsts[i : i + 1] for i in range(len(firsts))]
        )
        stage = f"searching {market}"
        work = PoolWork(
            stage,
            lambda piece: list(self._verdicts(market, universe, piece)),
            partial(searched_again, self, market),
        )
        found: list[Verdicts] = []
        workspace.progress(stage, 0, self.searches)
        for _, of_piece in done(pool, work, pieces):
            found += of_piece
            workspace.progress(stage, sum(v.n_searches for v in found), self.searches)
        return reduce(add, found)

    def _verdicts(
        self, market: Market, universe: Sequence[BarMoves], firsts: Sequence[int]
    ) -> Iterator[Verdicts]:
        grids = self.grids(market)
        walked, every = grids, _WALK_FORWARD_EVERY
        if market.planted:
            walked, every = [planted_grid()], 1
        like = _calendar(self.n_bars)
        for first in firsts:
            draws = range(first, min(first + _BATCH, self.searches))
            planted = market.planted / np.sqrt(365)
            bars = random_markets(market.kind, universe, like, draws, self.seed, planted)
            walk_forwards = (
                walk_forwards_pass(bars, walked, FREE, len(grids))
                if first % (every * _BATCH) == 0
                else None
            )
            yield verdicts(search(bars, grids, FREE), self.gates, walk_forwards)

    def again(
        self, workspace: Workspace, market: Market, firsts: Sequence[int]
    ) -> Iterator[Verdicts]:
        """The verdicts of some batches, on the bars as another process has read them."""
        universe = bar_moves(self.files.read(workspace, PRICES).panel)
        for one in self._verdicts(market, universe, firsts):
            if workspace.given_up.is_set():
                raise WorkGivenUp(f"searching {market}: it was ended before all were done")
            yield one


def searched_again(
    searches: MarketSearches, market: Market, workspace: Workspace, firsts: Sequence[int]
) -> list[Verdicts]:
    """The verdicts of some batches of searches, computed by a worker."""
    return list(searches.again(workspace, market, firsts))


def _calendar(n_bars: int) -> Panel:
    """A panel of daily timestamps; the actual dates do not matter."""
    daily = timeframe(DAILY)
    days = np.datetime64("2020-01-01", "us") + np.arange(n_bars) * np.timedelta64(1, "D")
    ends = daily.period_bounds(days.astype("M8[us]").astype(np.int64))[1]
    return Panel(daily, ("world",), np.array([0, n_bars]), ends - 1, {})
