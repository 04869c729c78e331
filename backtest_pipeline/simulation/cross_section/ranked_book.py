"""A book that holds the ends of a ranking: the universe in, trades and equity out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import BadSymbols, InvalidInput, NotEnoughBars
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.blocked_entries import Refusals
from backtest_pipeline.simulation.book import held_equally, in_order_of_entry, instants_of
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.cross_section.rebalanced_account import Rebalanced, rebalance
from backtest_pipeline.simulation.cross_section.targets import (
    TRADED,
    Scores,
    Targets,
    targets_of,
    with_scores,
)
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.inputs import require_bars, unusable
from backtest_pipeline.simulation.marks import marks_of
from backtest_pipeline.simulation.metrics.metrics import compute_metrics_batch
from backtest_pipeline.simulation.orders import NOTHING_PENDING
from backtest_pipeline.simulation.trades import trade_log
from backtest_pipeline.strategies.cross_section.definition import CrossSection

_FEWEST_BARS = 2
_HELD = ("costs", "initial_cash", "risk_free")
"""What a ranked book takes of a `SimulationConfig`."""


@dataclass(frozen=True)
class RankedBook:
    """The book of a cross-sectional strategy.

    Attributes:
        assets: its assets in alphabetical order, those with bars in the window.
        left: number of bars of the window, by asset, from the asset's first one on that cannot be
            traded on; it counts as delisted from there.
        dropped: assets with bars in the window that are not ranked, because such a bar came before.
        scores: what was ranked, at each instant.
        targets: the weights that were decided.
        rebalanced: the account.
        account: the book as a batch of one run on one asset, whose name is the label; its trades
            by entry.
        symbols: asset of each of those trades.
        is_part: bool, whether a part of the position went on after it.
    """

    assets: tuple[str, ...]
    left: dict[str, int]
    dropped: tuple[str, ...]
    scores: Scores
    targets: Targets
    rebalanced: Rebalanced
    account: BatchResult
    symbols: list[str]
    is_part: list[bool]

    @property
    def exposure(self) -> np.ndarray:
        """Value of the positions over the equity, shorts negative, float64 `(n_times,)`."""
        return self.rebalanced.weight.sum(axis=1)


def require_plain(config: SimulationConfig) -> None:
    """Raises InvalidInput naming each setting that a book which ranks its assets does not have."""
    plain = SimulationConfig()
    names = [n for n in SimulationConfig.__dataclass_fields__ if n not in _HELD]
    given = [name for name in names if getattr(config, name) != getattr(plain, name)]
    if given:
        raise InvalidInput(
            f"{', '.join(given)}: a cross-section has no such setting; it has {', '.join(_HELD)}, "
            "and the strategy says the rest"
        )


def until_unusable(panel: Panel) -> np.ndarray:
    """Rows before the first one of their asset that cannot be traded on, bool `(n_rows,)`.

    What follows a bad bar is another market, such as after a new denomination; what came before it
    stays as it was known then.
    """
    n_bad = np.cumsum(unusable(panel))
    before = np.append(0, n_bad)[panel.offsets[:-1]]
    return n_bad - before[panel.segment_of_row] == 0


def _counts(panel: Panel, rows: np.ndarray) -> dict[str, int]:
    """How many of these rows, bool `(n_rows,)`, each asset has; without those that have none."""
    counts = np.bincount(panel.segment_of_row[rows], minlength=len(panel.assets)).tolist()
    return {asset: n for asset, n in zip(panel.assets, counts, strict=True) if n}


def simulate_ranked(
    rule: CrossSection,
    panel: Panel,
    config: SimulationConfig,
    label: str,
    *,
    window: np.ndarray | None = None,
    funding: FundingRates | None = None,
) -> RankedBook:
    """Rank a universe at each rebalance, and trade the weights out of one account.

    Args:
        rule: the strategy.
        panel: all assets in any order, each from its first bar on, with the columns that the
            strategy reads or bars that they can be computed from.
        config: costs, starting cash and risk-free return.
        label: what all assets are called together.
        window: bool `(n_rows,)`, rows to trade on; the others are history. All where None.
        funding: rates by symbol, in place of the flat rate of the costs.

    Raises:
        BadSymbols: for fewer than two assets with bars in the window.
        NotEnoughBars: for fewer than two instants.
        InvalidInput: for bad bars, settings that it has not, or scores that cannot be ranked at any
            rebalance, with the reason.
    """
    require_plain(config)
    is_usable = until_unusable(panel)
    inside = np.ones(len(panel), bool) if window is None else window
    traded, left = is_usable & inside, _counts(panel, inside & ~is_usable)
    kept = panel.take(traded)
    names = sorted(a for a, n in zip(kept.assets, kept.lengths.tolist(), strict=True) if n)
    if len(names) < 2:
        raise BadSymbols(
            f"{rule.name}: a cross-section ranks at least two assets, and "
            f"{', '.join(names) or 'none'} has bars in the window; give more symbols"
        )
    scored = with_scores(rule, panel)
    bars = scored.take(traded).select(names)
    require_bars(bars)
    ts, table = instants_of(bars, np.arange(len(names)))
    if len(ts) < _FEWEST_BARS:
        raise NotEnoughBars(f"{rule.name}: fewer than {_FEWEST_BARS} bars in the window")
    scores = Scores.of(bars, ts, table)
    targets = targets_of(rule, scores, panel.timeframe.name)
    _require_rankable(rule, targets)
    rebalanced = rebalance(bars, table, targets, config.costs, config.initial_cash, rule, funding)
    account = Panel(bars.timeframe, (label,), np.array([0, len(ts)]), ts, {})
    of_assets = trade_log(bars, rebalanced.trades)
    # As the trade log sorts them.
    records = np.lexsort((rebalanced.trades["entry_row"], rebalanced.trades["column"]))
    order, trades = in_order_of_entry(of_assets, bars, account)
    marks, equity = marks_of(account), rebalanced.equity[None, :]
    benchmark = held_equally(bars, table, np.arange(len(names)), config)
    metrics = compute_metrics_batch(
        account, marks, equity, benchmark, trades, risk_free=config.risk_free
    )
    gross = np.abs(rebalanced.weight).sum(axis=1)
    metrics["exposure"] = np.array([np.mean(gross > 0)])
    nothing = np.zeros(0, np.int64)
    return RankedBook(
        assets=tuple(names),
        left=left,
        dropped=tuple(sorted(set(left) - set(names))),
        scores=scores,
        targets=targets,
        rebalanced=rebalanced,
        account=BatchResult(
            panel=account,
            marks=marks,
            equity=equity,
            benchmark=benchmark,
            trades=trades,
            held=np.zeros((len(order), 2), np.int64),
            refusals=Refusals(nothing, nothing, nothing, nothing, nothing, nothing),
            metrics=metrics,
            pending=np.array([NOTHING_PENDING], np.int8),
            liquidated=np.array([rebalanced.is_ruined]),
            refused=np.zeros(1, np.int64),
            conflicts=np.zeros(1, np.int64),
        ),
        symbols=[names[column] for column in of_assets.column[order].tolist()],
        is_part=rebalanced.trades["is_part"][records][order].tolist(),
    )


def _require_rankable(rule: CrossSection, targets: Targets) -> None:
    counts = targets.counts()
    if TRADED not in counts:
        why = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in counts.items())
        raise InvalidInput(
            f"{rule.name}: nothing could be ranked at any of {len(targets.step)} rebalances"
            f"{f' ({why})' if why else ''}; look at score, universe and min_history, or give more "
            "bars"
        )
