"""Runs source bars with replaced futures through the same computations as the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.columns.column_sets import columns_read
from backtest_pipeline.pipeline.stages.conditions import possible_conditions
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
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
from backtest_pipeline.strategies.rules.ranks import with_ranks

CUTS = 6
"""Cut-off dates per timeframe: two early, two anywhere, two at signals."""
ROOT_ROWS = 50_000
"""Maximum root bars per asset, counted from the first: 5.7 years of hours, a month of minutes."""

Features = Callable[[Panel], Panel]
Signals = Callable[[Panel], np.ndarray]
Failing = dict[tuple[str, str], str]
"""Why presets fail on assets, in any of their histories, by asset and name of the preset."""
SIGNAL = "signal "
"""Precedes the name of a preset, as an output."""
TAKEN_AWAY = "signal's own"
"""The future without the bars after a signal; only the inputs of its strategy are cut."""


@dataclass(frozen=True)
class _GivenBars:
    """A source over bars in memory, so that they pass through the same code as all bars."""

    bars: SourceBars
    name: str = "probe"
    synthetic: bool = True

    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted({a for panel in self.bars.panels.values() for a in panel.assets}))

    def states(self, assets: Sequence[str]) -> dict[str, str]:
        return {}

    def read(self, assets: Sequence[str] | None = None) -> SourceBars:
        return self.bars


def chain_of(target: str, features: Features, signals: Signals, names: Sequence[str]) -> Chain:
    """The computation from root bars to resampled bars, features and signals, as in the stages.

    Args:
        target: timeframe that root bars are resampled to.
        features: function from bars to features.
        signals: function from features to events, uint8 `(len(names), n_rows)`.
        names: names of the signals' columns.
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
) -> Iterator[tuple[Panel, list[Leak], int, Failing]]:
    """Test partitions from the bars of their source, timeframe by timeframe.

    Ranks are those among the tested partitions. Where a preset fails, it is not tested.

    Args:
        reader: reader of the source.
        partitions: partitions to test.
        signals: strategies with their parameters.
        seed: seed of the cut-off dates and futures.
        cuts: cut-off dates per timeframe.
        features: function from bars to features, to test others than the project's own.

    Yields:
        The original features and events, the leaks, the number of replaced futures, and what fails.
    """
    names = [f"{SIGNAL}{signal.name}" for signal in signals]
    ranks = columns_read(signals)
    groups: dict[tuple[str, str], list[str]] = {}
    for p in sorted(partitions):
        base = reader.base_of(p.asset, timeframe(p.timeframe))
        if base is not None:
            groups.setdefault((p.timeframe, base), []).append(p.asset)
    for (tf, base), assets in groups.items():
        rng = np.random.default_rng([seed, *tf.encode()])
        root = _beginning(reader.bars.panels[base].select(assets))
        failing: Failing = {}
        compute = chain_of(
            tf,
            lambda bars: with_ranks(features(bars), ranks),
            partial(_conditions, signals, failing),
            names,
        )
        whole = compute(root)
        drawn = draw_cuts(root, whole, names, cuts, rng)
        changed = [
            leak
            for leak in leaks(compute, root, whole, drawn, rng)
            if (leak.asset, leak.output.removeprefix(SIGNAL)) not in failing
        ]
        yield whole, changed, len(drawn) * len(FUTURES), failing


def _conditions(signals: Sequence[SignalRow], failing: Failing, panel: Panel) -> np.ndarray:
    """Conditions where they can be computed; what fails is added to `failing`."""
    conditions, failures = possible_conditions(panel, signals)
    for asset, own in failures.items():
        for s, error in own.items():
            failing.setdefault((asset, signals[s].name), str(error))
    return conditions


def _beginning(root: Panel) -> Panel:
    place = np.arange(len(root)) - root.offsets[root.segment_of_row]
    return root.take(place < ROOT_ROWS)


def probe_strategies(
    panel: Panel, signals: Sequence[SignalRow]
) -> Iterator[tuple[list[Leak], int, Failing]]:
    """Test, for each signal and asset, what changes when the bars after a signal are removed.

    Args:
        panel: features that the strategies read.
        signals: strategies with their parameters.

    Yields:
        The leaks, the number of signals tested, and the preset where it fails on the asset.
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
            try:
                changed, probed = changed_signals(inputs, strategy, signal.params, asset)
            except BacktestError as error:
                yield [], 0, {(asset, signal.name): str(error)}
                continue
            rows = panel.rows_of(asset)
            leak = Leak(
                asset,
                panel.timeframe.name,
                f"{SIGNAL}{signal.name}",
                TAKEN_AWAY,
                int(panel.ts[rows.stop - 1]) if probed else 0,
                changed,
                int(panel.ts[rows.start]) if probed else 0,
            )
            yield [leak] * (changed > 0), probed, {}
