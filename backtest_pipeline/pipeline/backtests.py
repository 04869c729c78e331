"""Backtests: from stored signals and prices to published runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from backtest_pipeline.market.errors import PartitionError
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.batches import Batches, Outcome, Status
from backtest_pipeline.pipeline.blocks import rows_of_dataset, stale_partitions
from backtest_pipeline.pipeline.features import load_block
from backtest_pipeline.pipeline.identity import (
    RUN_CODE,
    Asked,
    hash_of,
    simulation_config,
)
from backtest_pipeline.pipeline.inputs import keep_files
from backtest_pipeline.pipeline.ledger import trials_of
from backtest_pipeline.pipeline.publication import Publication, identify_runs, publication_of
from backtest_pipeline.pipeline.signals import (
    SignalBlock,
    place_events,
    signals_code,
    signals_to_compute,
)
from backtest_pipeline.pipeline.significance import families, weigh, with_deflated
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.trials import MOST_CLUSTERED
from backtest_pipeline.simulation.account import engine_identity
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage import copy
from backtest_pipeline.storage.artifacts import ArtifactStore
from backtest_pipeline.storage.datasets import (
    DatasetVersion,
    QualityCount,
    replace_quality,
    write_versions,
)
from backtest_pipeline.storage.dimensions import SignalRow, asset_ids
from backtest_pipeline.storage.environment import environment_hash
from backtest_pipeline.storage.provenance import code_version, combined
from backtest_pipeline.storage.runs import publish_runs, retire_runs
from backtest_pipeline.storage.signals import read_events
from backtest_pipeline.storage.trials import read_families, record_trials

if TYPE_CHECKING:
    from backtest_pipeline.storage.copy import Cursor

FEWEST_BARS = 2  # a signal needs a next bar to fill at
PRICE_COLUMNS = BAR_COLUMNS


@dataclass(frozen=True)
class BacktestBlock:
    """Simulated runs of a block.

    Attributes:
        batch: results of the assets with enough bars, None where no asset has.
        signals: what was traded.
        inputs: versions of the features, by asset, of all assets of the block.
        upstream: versions of the signals, by asset.
        assets: all assets of the block.
        too_short: those with signals and too few bars.
        timeframe: its timeframe.
        started_at: when its simulation began.
    """

    batch: BatchResult | None
    signals: tuple[SignalRow, ...]
    inputs: Mapping[str, DatasetVersion]
    upstream: Mapping[str, DatasetVersion]
    assets: tuple[str, ...]
    too_short: tuple[str, ...]
    timeframe: str
    started_at: datetime


@dataclass(frozen=True)
class StoredSignals:
    """Stored signals of a block, on the bars that they belong to."""

    block: SignalBlock
    upstream: Mapping[str, DatasetVersion]


def stored_signals(workspace: Workspace, partitions: Sequence[Partition]) -> Batches[StoredSignals]:
    """Signals as they are stored, placed on the stored prices.

    Loading raises PartitionError where they are not those of the stored features.
    """
    signals = signals_to_compute(workspace)
    code = signals_code(signals)

    def load(tf: str, assets: Sequence[str]) -> StoredSignals:
        prices = load_block(workspace, "features", tf, assets, PRICE_COLUMNS)
        with workspace.database.begin() as connection:
            ids = asset_ids(connection, list(prices.inputs))
        stored, versions = read_events(workspace.database, timeframe(tf), ids)
        for asset, version in versions.items():
            if not version.is_made_from(prices.inputs[asset].version, code):
                raise PartitionError(
                    asset,
                    tf,
                    "the stored signals were made from other features, parameters or code than "
                    "there are now; refresh signals first",
                )
        events = place_events(prices.panel, signals, stored, ids)
        return StoredSignals(
            SignalBlock(prices.panel, signals, events, prices.inputs),
            versions,
        )

    return Batches(tuple(partitions), load)


def backtests_of(
    signals: Batches[StoredSignals], config: SimulationConfig
) -> Batches[BacktestBlock]:
    """These signals, traded on each asset that has enough bars."""

    def compute(stored: StoredSignals) -> BacktestBlock:
        started_at = datetime.now(UTC)
        block = stored.block
        enough = [
            asset
            for asset, n in zip(block.panel.assets, block.panel.lengths, strict=True)
            if n >= FEWEST_BARS and asset in stored.upstream
        ]
        batch = None
        if enough and block.signals:
            keep = np.isin(
                block.panel.segment_of_row, [block.panel.assets.index(a) for a in enough]
            )
            batch = simulate_batch(block.panel.select(enough), block.events[:, keep], config)
        return BacktestBlock(
            batch=batch,
            signals=block.signals,
            inputs=block.inputs,
            upstream=stored.upstream,
            assets=block.panel.assets,
            too_short=tuple(a for a in stored.upstream if a not in enough),
            timeframe=block.panel.timeframe.name,
            started_at=started_at,
        )

    return signals.map(compute)


class BacktestsStage:
    """Publishes runs: one transaction for all rows of the block, its files before the rows."""

    name = "backtests"

    def __init__(self, workspace: Workspace, config: SimulationConfig) -> None:
        self._workspace = workspace
        self._config = config
        self._code = hash_of(
            [
                code_version(*RUN_CODE, "pipeline"),
                engine_identity(),
                environment_hash(),
                simulation_config(config),
            ]
        )

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        return stale_partitions(self._workspace, self.name, "signals", self._code, partitions)

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        return rows_of_dataset(self._workspace, "features", partitions)

    def store(self, block: BacktestBlock, *, rebuild: bool) -> Iterable[Outcome]:
        database = self._workspace.database
        assets = [asset for asset in block.assets if asset in block.upstream]
        with database.begin() as connection:
            ids = asset_ids(connection, assets)
        published = None
        if block.batch is not None:
            published = prepare_publication(block.batch, block, ids, Asked(self._config), "refresh")
        traded = () if block.batch is None else block.batch.panel.assets
        versions = {
            Partition(asset, block.timeframe): DatasetVersion(
                version=combined(upstream.version, self._code),
                input_version=upstream.version,
                code_version=self._code,
                generation=combined(upstream.version, self._code),
                n_rows=len(block.signals) if asset in traded else 0,
                first_ts=upstream.first_ts,
                last_ts=upstream.last_ts,
                uris=(published.uri,) if published and asset in traded else (),
            )
            for asset, upstream in block.upstream.items()
        }
        too_short = [
            QualityCount(Partition(asset, block.timeframe), "too_few_bars", 1)
            for asset in block.too_short
        ]
        with database.arrow() as connection, connection.cursor() as cursor:
            copy.lock_cells(cursor, self.name, block.timeframe, list(ids.values()))
            if published is not None:
                publish(self._workspace.artifacts, cursor, published)
            retire_runs(cursor, block.timeframe, [ids[asset] for asset in block.too_short])
            write_versions(cursor, self.name, ids, versions, made_from="signals")
            replace_quality(cursor, self.name, ids, list(versions), too_short)
        return [
            self._outcome(Partition(asset, block.timeframe), asset in traded, block)
            for asset in block.assets
        ]

    def _outcome(self, partition: Partition, traded: bool, block: BacktestBlock) -> Outcome:
        if traded:
            return Outcome(partition, Status.STORED, len(block.signals))
        if partition.asset not in block.upstream:
            detail = "no signals are stored; refresh signals first"
        elif partition.asset in block.too_short:
            detail = f"fewer than {FEWEST_BARS} complete {partition.timeframe} bars"
        else:
            detail = "no signal is active; see dim_signals.is_active"
        return Outcome(partition, Status.EMPTY, detail=detail)


def prepare_publication(
    batch: BatchResult,
    block: BacktestBlock,
    ids: Mapping[str, int],
    asked: Asked,
    source: str,
    compared: Mapping[str, DatasetVersion] | None = None,
    uri: str | None = None,
) -> Publication:
    """Rows to publish, and the files that they point to (in `uri`, if given).

    `source` is who tries, as in `trials.source`; `compared` are the datasets that the benchmark
    was made from.
    """
    identities = identify_runs(
        block.signals, batch.panel.assets, block.timeframe, block.inputs, asked, compared or {}
    )
    trials = trials_of(
        batch,
        [signal.params for signal in block.signals],
        signal_type=[signal.signal_type for signal in block.signals],
        dataset_versions={a: block.inputs[a].input_version for a in batch.panel.assets},
        asked=asked,
        source=source,
    )
    return publication_of(
        batch, block.signals, identities, ids, asked, block.started_at, trials, uri
    )


def publish(artifacts: ArtifactStore, cursor: Cursor, published: Publication) -> None:
    """Write the files, enter the runs in the ledger, put them in their place, and weigh them."""
    (tf,) = published.runs["tf"].unique().to_pylist()
    symbols = published.runs["symbol"].unique().to_pylist()
    copy.lock_cells(cursor, "backtests", tf, published.runs["id"].unique().to_pylist())
    keep_files(artifacts, published)
    record_trials(cursor, published.trials)
    trial_ids = published.trials["trial_id"].to_pylist()
    found = families(read_families(cursor, tf, symbols, trial_ids, MOST_CLUSTERED))
    metrics = with_deflated(published.metrics, published.runs, published.trials, found)
    publish_runs(cursor, published.runs, published.trades, metrics, published.blocks)
    weigh(cursor, tf, symbols, found, published.runs["run_id"].to_pylist())
