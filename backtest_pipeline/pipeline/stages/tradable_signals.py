"""Stored conditions on the bars that they belong to, as they are simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import PartitionError, StrategyRefused
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.columns.column_sets import columns_read
from backtest_pipeline.pipeline.presets import presets_to_compute
from backtest_pipeline.pipeline.runs.daily_bars import DailyBars
from backtest_pipeline.pipeline.runs.identity import (
    config_of,
)
from backtest_pipeline.pipeline.stage import Batches
from backtest_pipeline.pipeline.stages.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.stages.columns.stored_columns import with_own_columns
from backtest_pipeline.pipeline.stages.conditions import SignalBatch, stored_conditions
from backtest_pipeline.pipeline.stages.features import (
    SNAPSHOT_COLUMNS,
    load_batch,
    load_daily,
)
from backtest_pipeline.pipeline.stages.signals import signals_code
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.columns import columns_read as columns_of_rules
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.rules import RulesOfRuns
from backtest_pipeline.simulation.strategy_conditions import Failures
from backtest_pipeline.storage.tables.datasets import (
    DatasetVersion,
    read_versions,
)
from backtest_pipeline.storage.tables.signals import failed_presets

FEWEST_BARS = 2  # a signal needs a next bar to fill at


@dataclass(frozen=True)
class StoredSignals:
    """Stored conditions of a batch, on the bars that they belong to.

    Attributes:
        stored: the conditions.
        upstream: their versions, by asset.
        daily: the daily bars that mark runs on them.
    """

    stored: SignalBatch
    upstream: Mapping[str, DatasetVersion]
    daily: DailyBars

    @property
    def tradable(self) -> tuple[str, ...]:
        """The assets that have signals, and bars enough to trade them."""
        panel = self.stored.panel
        return tuple(
            asset
            for asset, n in zip(panel.assets, panel.lengths.tolist(), strict=True)
            if n >= FEWEST_BARS and asset in self.upstream
        )

    def traded(
        self, signals: Sequence[int], assets: Sequence[str], config: SimulationConfig
    ) -> BatchResult:
        """Some of the signals, by position, simulated on some of the assets."""
        panel = self.stored.panel
        keep = np.isin(panel.segment_of_row, [panel.assets.index(asset) for asset in assets])
        events = np.ascontiguousarray(self.stored.conditions[list(signals)][:, keep])
        rules = [config_of(self.stored.signals[s], config).rules for s in signals]
        own = self.stored.own.on(panel.select(assets), columns_of_rules(rules))
        of_runs = RulesOfRuns.by_run(rules, len(assets))
        return simulate_batch(own, events, config, rules=of_runs, marks=self.daily.marks(own))


def stored_signals(workspace: Workspace, partitions: Sequence[Partition]) -> Batches[StoredSignals]:
    """Conditions as they are stored, on the stored prices, with what their stops and sizings read.

    Loading raises PartitionError where they are not those of the stored features.
    """
    signals = presets_to_compute(workspace)
    code, names = signals_code(signals), columns_read(signals)
    rules = [config_of(signal, SimulationConfig()).rules for signal in signals]
    read = set(columns_of_rules(rules)) & set(SNAPSHOT_COLUMNS)
    columns = (*BAR_COLUMNS, *sorted(read - set(BAR_COLUMNS)))

    def load(tf: str, assets: Sequence[str]) -> StoredSignals:
        prices = with_own_columns(
            workspace, load_batch(workspace, "features", tf, assets, columns), names
        )
        with workspace.database.begin() as connection:
            partitions = [Partition(a, tf) for a in assets]
            versions = read_versions(connection, "signals", partitions)
            failed = failed_presets(connection, partitions)
        upstream = {partition.asset: version for partition, version in versions.items()}
        # Before their files are read: those of other presets lack columns of today's.
        for asset, version in upstream.items():
            features = prices.inputs.get(asset)
            if features is None or not version.is_made_from(
                features.version, prices.own.code_of(code, asset)
            ):
                raise PartitionError(
                    asset,
                    tf,
                    "the stored signals were made from other features, parameters or code than "
                    "there are now; refresh signals first",
                )
        conditions = stored_conditions(workspace, prices.panel, upstream, signals)
        position = {signal.signal_id: s for s, signal in enumerate(signals)}
        failures: Failures = {}
        for one in failed:
            if one.signal_id in position:
                own = failures.setdefault(one.partition.asset, {})
                own[position[one.signal_id]] = StrategyRefused(one.reason)
        batch = SignalBatch(prices.panel, signals, conditions, prices.inputs, failures, prices.own)
        return StoredSignals(batch, upstream, load_daily(workspace, prices.panel))

    return Batches(tuple(partitions), load)
