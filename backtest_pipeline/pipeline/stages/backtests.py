"""Backtests: from stored conditions and prices to published runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.columns.column_sets import columns_read
from backtest_pipeline.pipeline.ranking.deflation import (
    deflate_current_runs,
    families_on,
    with_deflated,
)
from backtest_pipeline.pipeline.ranking.ledger import trials_of
from backtest_pipeline.pipeline.runs.identity import (
    RunTerms,
    hash_of,
    simulation_config,
    without_defaults,
)
from backtest_pipeline.pipeline.runs.own_columns import OwnColumns
from backtest_pipeline.pipeline.runs.publish import (
    TABLES_OF_RUNS,
    Publication,
    RunIdentity,
    identify_runs,
    publication_of,
)
from backtest_pipeline.pipeline.runs.run_files import keep_files
from backtest_pipeline.pipeline.stage import Batches, Outcome, Remade, Status, stored
from backtest_pipeline.pipeline.stages.features import (
    codes_with_daily,
)
from backtest_pipeline.pipeline.stages.kept_runs import (
    Missing,
    directories,
    kept_runs,
    missing_runs,
)
from backtest_pipeline.pipeline.stages.panels import (
    rows_of_dataset,
    stale_partitions,
)
from backtest_pipeline.pipeline.stages.tradable_signals import (
    FEWEST_BARS,
    StoredSignals,
    stored_signals,
)
from backtest_pipeline.pipeline.versions import RUNS_CODE
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.engines import of_the_account
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.provenance import combined
from backtest_pipeline.storage.run_tables.runs import (
    publish_runs,
    require_current,
    retire_failed,
    retire_others,
    retire_runs,
)
from backtest_pipeline.storage.run_tables.trials import record_trials
from backtest_pipeline.storage.tables.datasets import (
    DatasetVersion,
    QualityCount,
    read_versions,
    replace_quality,
    write_versions,
)
from backtest_pipeline.storage.tables.dimensions import SignalRow, asset_ids

if TYPE_CHECKING:
    from backtest_pipeline.storage.postgres.copy import Cursor


class BacktestsStage:
    """Publishes the runs that are not stored yet, one transaction for all rows of a batch.

    Runs follow from signal, asset, data, code and assumptions: where one strategy was edited, or a
    signal registered, the runs of the others stay as they are.
    """

    name = "backtests"
    tables = (*TABLES_OF_RUNS, "dataset_versions")

    def __init__(self, workspace: Workspace, config: SimulationConfig) -> None:
        self._workspace = workspace
        self._config = config
        self._terms = RunTerms(of_the_account(config))
        self._code = hash_of([RUNS_CODE, without_defaults(simulation_config(config))])

    @property
    def remade(self) -> Remade:
        return partial(backtests_again, self._config)

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        codes = codes_with_daily(self._workspace, self._code, partitions)
        return stale_partitions(self._workspace, self.name, "signals", codes, partitions)

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        return rows_of_dataset(self._workspace, "features", partitions)

    def store(self, batch: StoredSignals, *, rebuild: bool) -> Iterable[Outcome]:
        """Files first, then one transaction; with `rebuild` also runs that are stored already."""
        signals, panel = batch.stored.signals, batch.stored.panel
        tf = panel.timeframe.name
        tradable = batch.tradable
        wanted = identify_runs(
            signals,
            tradable,
            tf,
            batch.stored.inputs,
            self._terms,
            batch.daily,
            batch.stored.own,
            {},
        )
        failures = batch.stored.failures
        failed = {
            wanted[s * len(tradable) + a].run_id
            for a, asset in enumerate(tradable)
            for s in failures.get(asset, {})
        }
        kept = {} if rebuild else kept_runs(self._workspace, wanted, failed)
        with self._workspace.database.begin() as connection:
            ids = asset_ids(connection, list(batch.upstream))
            before = read_versions(connection, self.name, [Partition(a, tf) for a in failures])
        published = [
            self._published(batch, missing, wanted, ids)
            for missing in missing_runs(wanted, tradable, {*kept, *failed})
        ]
        places = {**kept, **{run: one.uri for one in published for run in one.run_ids}}
        uris = directories(wanted, tradable, places)
        versions = {
            Partition(asset, tf): self._version(
                batch, asset, len(signals) - len(batch.stored.failed_on(asset)), uris.get(asset)
            )
            for asset in batch.upstream
        }
        too_short = [asset for asset in batch.upstream if asset not in tradable]
        counts = [QualityCount(Partition(asset, tf), "too_few_bars", 1) for asset in too_short]
        with self._workspace.database.writing() as connection, connection.cursor() as cursor:
            copy.lock_cells(cursor, self.name, tf, list(ids.values()))
            for one in published:
                publish(self._workspace.artifacts, cursor, one)
            retire_runs(cursor, tf, [ids[asset] for asset in too_short])
            of_refresh = sorted({uri for own in uris.values() for uri in own})
            retire_others(cursor, tf, list(ids.values()), of_refresh, list(map(str, places)))
            retire_failed(
                cursor,
                tf,
                [(signals[s].signal_id, ids[asset]) for asset in failures for s in failures[asset]],
                sorted({uri for version in before.values() for uri in version.uris}),
            )
            require_current(cursor, list(map(str, places)))
            write_versions(cursor, self.name, ids, versions, made_from="signals")
            replace_quality(cursor, self.name, ids, list(versions), counts)
        return [self._outcome(Partition(asset, tf), batch) for asset in panel.assets]

    def _published(
        self,
        batch: StoredSignals,
        missing: Missing,
        wanted: Sequence[RunIdentity],
        ids: Mapping[str, int],
    ) -> Publication:
        started_at = datetime.now(UTC)
        return prepare_publication(
            batch.traded(missing.signals, missing.assets, self._terms.config),
            [batch.stored.signals[s] for s in missing.signals],
            missing.of(wanted, batch.tradable),
            ids,
            self._terms,
            started_at,
            batch.stored.inputs,
            batch.stored.own,
            "refresh",
        )

    def _version(
        self, batch: StoredSignals, asset: str, n_signals: int, uris: tuple[str, ...] | None
    ) -> DatasetVersion:
        upstream, daily = batch.upstream[asset], batch.daily
        version = daily.version_of(combined(upstream.version, self._code), asset)
        return DatasetVersion(
            version=version,
            input_version=upstream.version,
            code_version=daily.code_of(self._code, asset),
            generation=version,
            n_rows=n_signals if uris is not None else 0,
            first_ts=upstream.first_ts,
            last_ts=upstream.last_ts,
            uris=uris or (),
        )

    def _outcome(self, partition: Partition, batch: StoredSignals) -> Outcome:
        if partition.asset not in batch.upstream:
            detail = "no signals are stored; refresh signals first"
            return Outcome(partition, Status.NO_INPUT, detail=detail)
        if partition.asset not in batch.tradable:
            detail = f"fewer than {FEWEST_BARS} complete {partition.timeframe} bars"
        elif not batch.stored.signals:
            detail = "no signal is active; see dim_signals.is_active"
        else:
            failed = batch.stored.failed_on(partition.asset)
            return stored(partition, len(batch.stored.signals) - len(failed), failed)
        return Outcome(partition, Status.EMPTY, detail=detail)


def backtests_again(
    config: SimulationConfig, workspace: Workspace, partitions: Sequence[Partition], _rebuild: bool
) -> tuple[Batches[StoredSignals], BacktestsStage]:
    """The stage and its batches, made in any process."""
    return stored_signals(workspace, partitions), BacktestsStage(workspace, config)


def prepare_publication(
    simulated: BatchResult,
    signals: Sequence[SignalRow],
    identities: Sequence[RunIdentity],
    ids: Mapping[str, int],
    terms: RunTerms,
    started_at: datetime,
    inputs: Mapping[str, DatasetVersion],
    own: OwnColumns,
    source: str,
    uri: str | None = None,
) -> Publication:
    """Rows to publish, and the files that they point to (in `uri`, if given).

    Args:
        simulated: of these signals, each on the assets of its panel.
        signals, identities, ids, terms, started_at: as `publication_of` takes them.
        inputs, own: versions of the features, by asset, and the columns of the user's own.
        source: who tries, as in `trials.source`.
        uri: directory that holds them already.
    """
    bars = {a: inputs[a].input_version for a in simulated.panel.assets}
    read = [columns_read([signal], terms.config) for signal in signals]
    trials = trials_of(
        simulated,
        [signal.params for signal in signals],
        strategy=[signal.strategy for signal in signals],
        dataset_versions=[own.versions_with(bars, names) for names in read],
        terms=terms,
        source=source,
    )
    return publication_of(simulated, signals, identities, ids, terms, started_at, trials, uri)


def publish(artifacts: ArtifactStore, cursor: Cursor, published: Publication) -> None:
    """Write the files, enter the runs in the ledger, publish them, and deflate current runs."""
    (tf,) = published.runs["tf"].unique().to_pylist()
    symbols = published.runs["symbol"].unique().to_pylist()
    copy.lock_cells(cursor, "backtests", tf, published.runs["id"].unique().to_pylist())
    keep_files(artifacts, published)
    record_trials(cursor, published.trials)
    found = families_on(cursor, tf, symbols, published.trials["trial_id"].to_pylist())
    metrics = with_deflated(published.metrics, published.runs, published.trials, found)
    publish_runs(cursor, published.runs, published.trades, metrics, published.blocks)
    deflate_current_runs(cursor, tf, symbols, found, published.runs["run_id"].to_pylist())
