"""Signals: from stored features to the events of all registered strategies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.batches import Batches, Outcome, Status
from backtest_pipeline.pipeline.blocks import PanelBlock, rows_of_dataset, stale_partitions
from backtest_pipeline.pipeline.features import SNAPSHOT_COLUMNS, load_block
from backtest_pipeline.pipeline.identity import hash_of
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.storage.assets import SignalRow, active_signals
from backtest_pipeline.storage.datasets import DatasetVersion, read_versions
from backtest_pipeline.storage.provenance import code_version, combined
from backtest_pipeline.storage.signals import write_signals
from backtest_pipeline.strategies.base import signal_events
from backtest_pipeline.strategies.registry import strategy_of


@dataclass(frozen=True)
class SignalBlock:
    """Signal events of many strategies on a block.

    Attributes:
        panel: the features that the events were computed from.
        signals: the strategies with their parameters.
        events: uint8 `(n_signals, n_rows)`, bits as in `simulation.orders`.
        inputs: versions of the features, by asset.
    """

    panel: Panel
    signals: tuple[SignalRow, ...]
    events: np.ndarray
    inputs: Mapping[str, DatasetVersion]


def stored_features(workspace: Workspace, partitions: Sequence[Partition]) -> Batches[PanelBlock]:
    """Features as they are stored, as far as computations read them."""
    return Batches(
        tuple(partitions),
        lambda tf, assets: load_block(workspace, "features", tf, assets, SNAPSHOT_COLUMNS),
    )


def signals_of(features: Batches[PanelBlock], signals: Sequence[SignalRow]) -> Batches[SignalBlock]:
    """Events of these signals."""
    chosen = tuple(signals)

    def compute(block: PanelBlock) -> SignalBlock:
        return SignalBlock(block.panel, chosen, signal_matrix(block.panel, chosen), block.inputs)

    return features.map(compute)


def signal_matrix(panel: Panel, signals: Sequence[SignalRow]) -> np.ndarray:
    """Events of each signal at each row, uint8 `(n_signals, n_rows)`.

    Indicators that are not stored (other periods than the registered ones) are computed from
    the panel's own bars.
    """
    events = np.zeros((len(signals), len(panel)), np.uint8)
    for row, signal in zip(events, signals, strict=True):
        strategy = strategy_of(signal.signal_type)
        params = strategy.parse(signal.params)
        found = signal_events(strategy, with_indicators(panel, strategy.columns(params)), params)
        row |= found.long_entry * np.uint8(LONG_ENTRY)
        row |= found.long_exit * np.uint8(LONG_EXIT)
        row |= found.short_entry * np.uint8(SHORT_ENTRY)
        row |= found.short_exit * np.uint8(SHORT_EXIT)
    return events


class SignalsStage:
    """Stores signal events, each with the full feature row of its bar."""

    name = "signals"

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        with workspace.database.begin() as connection:
            self.signals = active_signals(connection)
        specs = [asdict(signal) for signal in self.signals]
        self.code = hash_of([code_version("market", "strategies"), specs])

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        return stale_partitions(self._workspace, self.name, "features", self.code, partitions)

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        return rows_of_dataset(self._workspace, "features", partitions)

    def store(self, block: SignalBlock) -> Iterable[Outcome]:
        """Only events of new bars are written where the features only grew."""
        panel, tf = block.panel, block.panel.timeframe.name
        partitions = [Partition(asset, tf) for asset in panel.assets]
        with self._workspace.database.begin() as connection:
            stored = read_versions(connection, self.name, partitions)
        in_events = np.bincount(
            panel.segment_of_row,
            weights=np.count_nonzero(block.events, axis=0),
            minlength=len(panel.assets),
        )
        versions: dict[Partition, DatasetVersion] = {}
        written_until = np.full(len(panel.assets), np.iinfo(np.int64).min)
        for i, partition in enumerate(partitions):
            features = block.inputs.get(partition.asset)
            if features is None:
                continue
            generation = combined(features.generation, self.code)
            before = stored.get(partition)
            if before is not None and before.generation == generation and before.last_ts:
                written_until[i] = before.last_ts
            versions[partition] = DatasetVersion(
                version=combined(features.version, self.code),
                input_version=features.version,
                code_version=self.code,
                generation=generation,
                n_rows=int(in_events[i]),
                first_ts=features.first_ts,
                last_ts=features.last_ts,
            )
        write_signals(
            self._workspace.database, panel, block.signals, block.events, written_until, versions
        )
        return [_outcome(p, versions.get(p)) for p in partitions]


def _outcome(partition: Partition, version: DatasetVersion | None) -> Outcome:
    if version is None:
        return Outcome(
            partition, Status.EMPTY, detail="no features are stored; refresh cmc_features first"
        )
    if version.last_ts is None:
        return Outcome(partition, Status.EMPTY, detail=f"no complete {partition.timeframe} bar")
    return Outcome(partition, Status.STORED, version.n_rows)
