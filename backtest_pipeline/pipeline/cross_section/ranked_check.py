"""What `strategies check` tells of a cross-section: look-ahead, speed, rebalances, coefficients."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from backtest_pipeline.market.errors import LooksAhead
from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.pipeline.cross_section.ranked_account import RankedAccount, ranked_account
from backtest_pipeline.pipeline.cross_section.ranked_universe import columns_read
from backtest_pipeline.pipeline.runs.identity import Window
from backtest_pipeline.research.look_ahead.other_futures import other_futures
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.strategies.cross_section.definition import CrossSection

_TIMEFRAME = "1D"
_CUTS = (0.3, 0.6, 0.9)
"""Where the future is replaced, as shares of the history."""


@dataclass(frozen=True)
class RankedCheck:
    """What was found on the daily bars of the sample market.

    Attributes:
        rows: bars that were ranked.
        milliseconds: median time of three computations, features not included.
        rebalances: number of them by what came of them.
        figures: information coefficients and what goes with them; NaN where undefined.
        probes: futures that were replaced without a change before.
    """

    rows: int
    milliseconds: float
    rebalances: Mapping[str, int]
    figures: Mapping[str, float]
    probes: int


def check_cross_section(rule: CrossSection) -> RankedCheck:
    """Try a cross-section on the daily bars of the sample market.

    Raises:
        InvalidInput, UnknownColumn: where it cannot be computed there, with the reason.
        LooksAhead: where scores or weights depend on later bars of any asset.
    """
    columns_read(rule)
    market = SampleMarket()
    read = market.read(market.symbols()).panels[_TIMEFRAME]
    bars = Panel(read.timeframe, read.assets, read.offsets, read.ts, {n: read[n] for n in OHLCV})
    panel = build_features(bars)
    found, taken = _computed(rule, panel), []
    for _ in range(3):
        began = time.perf_counter()
        _computed(rule, panel)
        taken.append(1000 * (time.perf_counter() - began))
    return RankedCheck(
        rows=len(panel),
        milliseconds=median(taken),
        rebalances=found.book.targets.counts(),
        figures=found.information.figures(),
        probes=_probed(rule, bars, found),
    )


def _computed(rule: CrossSection, panel: Panel) -> RankedAccount:
    return ranked_account(rule, panel, SimulationConfig(), Window(), "sample")


def _probed(rule: CrossSection, bars: Panel, found: RankedAccount) -> int:
    """Replace the future of all assets at once, and compare scores and weights up to there."""
    ts, n_probes, rng = found.book.scores.ts, 0, np.random.default_rng(0)
    for share in _CUTS:
        cut = int(ts[int(share * (len(ts) - 1))])
        for future, changed in other_futures(bars, cut, rng):
            other = _computed(rule, build_features(changed))
            for name, ours, theirs in (
                ("scores", _scores_until(found, cut), _scores_until(other, cut)),
                ("weights", _weights_until(found, cut), _weights_until(other, cut)),
            ):
                if ours != theirs:
                    raise LooksAhead(
                        f"{rule.name}: its {name} up to {np.datetime64(cut, 'us')} UTC change "
                        f"where later bars are {future}; it reads the future"
                    )
            n_probes += 1
    return n_probes


def _scores_until(found: RankedAccount, cut: int) -> dict[tuple[int, str], float]:
    scores = found.book.scores
    at, of = np.nonzero(np.isfinite(scores.score) & (scores.ts <= cut)[:, None])
    keys = zip(scores.ts[at].tolist(), (found.book.assets[i] for i in of.tolist()), strict=True)
    return dict(zip(keys, scores.score[at, of].tolist(), strict=True))


def _weights_until(found: RankedAccount, cut: int) -> dict[tuple[int, str], float]:
    targets, ts = found.book.targets, found.book.scores.ts
    at, of = np.nonzero(targets.weight * (ts[targets.step] <= cut)[:, None])
    stamps = ts[targets.step[at]].tolist()
    keys = zip(stamps, (found.book.assets[i] for i in of.tolist()), strict=True)
    return dict(zip(keys, targets.weight[at, of].tolist(), strict=True))
