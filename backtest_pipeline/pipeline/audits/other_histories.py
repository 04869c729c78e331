"""Root bars with other futures, through what the stages compute of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.stages.bars import SourceReader
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS
from backtest_pipeline.pipeline.stages.signals import signal_matrix
from backtest_pipeline.research.look_ahead.look_ahead import (
    Chain,
    Leak,
    changed_signals,
    draw_cuts,
    leaks,
)
from backtest_pipeline.research.look_ahead.other_futures import FUTURES
from backtest_pipeline.sources.base import AssetInfo, SourceBars
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.strategies.registry import strategy_of

CUTS = 6
"""Cuts of each timeframe: two early, two anywhere, two at signals."""
ROOT_ROWS = 50_000
"""Root bars of an asset at the most, its first ones: 5.7 years of hours, a month of minutes."""

Features = Callable[[Panel], Panel]
Signals = Callable[[Panel], np.ndarray]
_TAKEN_AWAY = "signal's own"


@dataclass(frozen=True)
class _GivenBars:
    """A source over bars that are at hand, so that they take the way of all bars."""

    bars: SourceBars
    name: str = "probe"
    synthetic: bool = True

    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted({a for panel in self.bars.panels.values() for a in panel.assets}))

    def read(self, assets: Sequence[str] | None = None) -> SourceBars:
        return self.bars


def chain_of(target: str, features: Features, signals: Signals, names: Sequence[str]) -> Chain:
    """Root bars to the bars of a timeframe, all features and all signals, as the stages do it.

    Args:
        target: the timeframe that root bars are resampled to.
        features: bars to features.
        signals: features to events, uint8 `(len(names), n_rows)`.
        names: of the signals' columns.
    """

    def compute(root: Panel) -> Panel:
        infos = tuple(AssetInfo(a, a, "crypto", None, synthetic=True) for a in root.assets)
        source = _GivenBars(SourceBars({root.timeframe.name: root}, infos, ()))
        bars = SourceReader(source, root.assets).resampled(target, root.assets)
        computed = features(bars)
        events = dict(zip(names, signals(computed), strict=True))
        return computed.with_columns(events)

    return compute


def probe_root(
    reader: SourceReader,
    partitions: Sequence[Partition],
    signals: Sequence[SignalRow],
    *,
    seed: int = 0,
    cuts: int = CUTS,
    features: Features = build_features,
) -> Iterator[tuple[Panel, list[Leak], int]]:
    """Probe partitions from the bars of their source, timeframe by timeframe.

    Args:
        reader: of the source.
        partitions: what to probe.
        signals: the strategies with their parameters.
        seed: what is drawn follows from it.
        cuts: cuts of each timeframe.
        features: bars to features, where others than those of the project are to be probed.

    Yields:
        Features and events as they are, the leaks, and how many other futures were computed.
    """
    names = [f"signal {signal.name}" for signal in signals]
    groups: dict[tuple[str, str], list[str]] = {}
    for p in sorted(partitions):
        base = reader.base_of(p.asset, timeframe(p.timeframe))
        if base is not None:
            groups.setdefault((p.timeframe, base), []).append(p.asset)
    for (tf, base), assets in groups.items():
        rng = np.random.default_rng([seed, timeframe(tf).sort_order])
        root = _beginning(reader.bars.panels[base].select(assets))
        compute = chain_of(tf, features, lambda panel: signal_matrix(panel, signals), names)
        whole = compute(root)
        drawn = draw_cuts(root, whole, names, cuts, rng)
        found = leaks(compute, root, whole, drawn, rng)
        yield whole, found, len(drawn) * len(FUTURES)


def _beginning(root: Panel) -> Panel:
    place = np.arange(len(root)) - root.offsets[root.segment_of_row]
    return root.take(place < ROOT_ROWS)


def probe_strategies(
    panel: Panel, signals: Sequence[SignalRow]
) -> Iterator[tuple[list[Leak], int]]:
    """For each signal and asset: what changes when the bars after a signal are taken away.

    Args:
        panel: features, as far as strategies read them.
        signals: the strategies with their parameters.

    Yields:
        The leaks, and how many signals were probed.
    """
    for signal in signals:
        strategy = strategy_of(signal.strategy)
        read = strategy.columns(strategy.parse(signal.params))
        needed = [n for n in {*SNAPSHOT_COLUMNS, *read} if n in panel.columns]
        inputs = Panel(
            panel.timeframe,
            panel.assets,
            panel.offsets,
            panel.ts,
            {name: panel[name] for name in needed},
        )
        for asset in panel.assets:
            changed, probed = changed_signals(inputs, strategy, signal.params, asset)
            rows = panel.rows_of(asset)
            leak = Leak(
                asset,
                panel.timeframe.name,
                f"signal {signal.name}",
                _TAKEN_AWAY,
                int(panel.ts[rows.stop - 1]) if probed else 0,
                changed,
                int(panel.ts[rows.start]) if probed else 0,
            )
            yield [leak] * (changed > 0), probed
