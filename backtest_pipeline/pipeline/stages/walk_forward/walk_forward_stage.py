"""Walk-forward: from stored features to published out-of-sample runs, with every fold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import NamedTuple
from uuid import UUID

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.columns.column_sets import columns_read
from backtest_pipeline.pipeline.presets import presets_to_compute
from backtest_pipeline.pipeline.runs.daily_bars import DailyBars
from backtest_pipeline.pipeline.runs.identity import (
    RunTerms,
    hash_of,
    simulation_config,
    without_defaults,
)
from backtest_pipeline.pipeline.runs.publish import (
    TABLES_OF_RUNS,
    RunIdentity,
    identify_runs,
)
from backtest_pipeline.pipeline.stage import Batches, Outcome, Remade, Status, stored
from backtest_pipeline.pipeline.stages.columns.stored_columns import (
    codes_with_columns,
    with_own_columns,
)
from backtest_pipeline.pipeline.stages.features import (
    codes_with_daily,
    load_daily,
    stored_features,
)
from backtest_pipeline.pipeline.stages.kept_runs import (
    Missing,
    directories,
    kept_runs,
    missing_runs,
)
from backtest_pipeline.pipeline.stages.panels import PanelBatch, rows_of_dataset, stale_partitions
from backtest_pipeline.pipeline.stages.walk_forward.failing_strategies import computed_apart
from backtest_pipeline.pipeline.stages.walk_forward.folds import (
    WalkForwardPlan,
)
from backtest_pipeline.pipeline.stages.walk_forward.walk_forward_batch import (
    WalkForwardBatch,
    publish_walk_forward,
    strategy_searches,
    walk_forward_batch,
)
from backtest_pipeline.pipeline.versions import WALK_FORWARDS_CODE, run_code
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.schedule import Task, tasks_of
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.engines import of_the_account
from backtest_pipeline.simulation.strategy_conditions import Failures
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.provenance import combined
from backtest_pipeline.storage.run_tables.runs import (
    require_current,
    retire_failed,
    retire_others,
    retire_runs,
)
from backtest_pipeline.storage.run_tables.walk_forward import (
    judged_by,
)
from backtest_pipeline.storage.tables.datasets import (
    DatasetVersion,
    QualityCount,
    read_versions,
    replace_quality,
    write_versions,
)
from backtest_pipeline.storage.tables.dimensions import asset_ids

TOO_FEW_BARS, NO_FOLD, NO_SIGNAL = "too_few_bars", "no_fold", "no_active_signal"
STARVED = "starved_window"


class _LaidOut(NamedTuple):
    """The folds of an asset and how many windows make none, or why it has no folds."""

    reason: str = ""
    detail: str = ""
    tasks: Sequence[Task] = ()
    left_out: int = 0


class WalkForwardStage:
    """Publishes the out-of-sample runs of all registered strategies that are not stored yet.

    A strategy that fails on an asset is missing there alone, and every refresh tries it again.
    """

    name = "walk_forward"
    tables = (*TABLES_OF_RUNS, "walk_forward_runs", "walk_forward_folds", "dataset_versions")

    def __init__(
        self, workspace: Workspace, config: SimulationConfig, plan: WalkForwardPlan
    ) -> None:
        self._workspace = workspace
        self._config = config
        self._terms = RunTerms(of_the_account(config))
        self._plan = plan
        self._searches = strategy_searches(presets_to_compute(workspace))
        self.signals = tuple(searched.signal for searched in self._searches)
        self._columns = columns_read(self.signals)
        self._code = hash_of(
            [
                WALK_FORWARDS_CODE,
                without_defaults(simulation_config(config)),
                [
                    [asdict(searched.signal), run_code(searched.signal.strategy)]
                    for searched in self._searches
                ],
                plan.as_json(),
                plan.threshold,
            ]
        )

    @property
    def remade(self) -> Remade:
        return partial(walk_forward_again, self._config, self._plan)

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        daily = codes_with_daily(self._workspace, self._code, partitions)
        codes = codes_with_columns(self._workspace, daily, partitions, self._columns)
        return stale_partitions(self._workspace, self.name, "features", codes, partitions)

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        return rows_of_dataset(self._workspace, "features", partitions)

    def store(self, batch: PanelBatch, *, rebuild: bool) -> Iterable[Outcome]:
        """Folds as they are done, then one transaction for the runs of the batch."""
        batch = with_own_columns(self._workspace, batch, self._columns)
        panel, tf = batch.panel, batch.panel.timeframe.name
        tasks: list[Task] = []
        left_out: dict[str, int] = {}
        outcomes: dict[str, Outcome] = {}
        counts: list[QualityCount] = []
        for asset in panel.assets:
            partition = Partition(asset, tf)
            found = self._laid_out(batch, asset)
            tasks += found.tasks
            left_out[asset] = found.left_out
            without = Status.EMPTY if asset in batch.inputs else Status.NO_INPUT
            outcomes[asset] = (
                Outcome(partition, without, detail=found.detail)
                if found.detail
                else stored(partition, len(self._searches), {})
            )
            if found.reason:
                counts.append(QualityCount(partition, found.reason, 1))
            if found.left_out:
                counts.append(QualityCount(partition, STARVED, found.left_out))
        assets = list(dict.fromkeys(task.asset for task in tasks))
        daily = load_daily(self._workspace, panel)
        wanted = identify_runs(
            self.signals,
            assets,
            tf,
            batch.inputs,
            replace(self._terms, walk_forward=self._plan.as_json()),
            daily,
            batch.own,
            {},
        )
        kept = {} if rebuild else self._kept(wanted)

        def compute(missing: Missing) -> WalkForwardBatch:
            return walk_forward_batch(
                self._workspace,
                batch,
                [task for task in tasks if task.asset in missing.assets],
                [self._searches[w] for w in missing.signals],
                self._plan,
                self._terms,
                left_out=left_out,
                rebuild=rebuild,
            )

        walk_forwards, failures = computed_apart(missing_runs(wanted, assets, kept), compute)
        for asset, own in failures.items():
            partition = Partition(asset, tf)
            named = {self._searches[w].signal.name: str(error) for w, error in own.items()}
            outcomes[asset] = stored(partition, len(self._searches) - len(own), named, "strategy")
        new = {run: one.publication.uri for one in walk_forwards for run in one.publication.run_ids}
        uris = directories(wanted, assets, {**kept, **new})
        self._publish(batch, daily, walk_forwards, uris, [*kept, *new], counts, failures)
        return list(outcomes.values())

    def _kept(self, wanted: Sequence[RunIdentity]) -> dict[UUID, str]:
        """Those of the runs that are stored; the threshold judges them and is no part of them."""
        stored = kept_runs(self._workspace, wanted)
        with self._workspace.database.begin() as connection:
            judged = judged_by(connection, list(stored), self._plan.threshold)
        return {run_id: uri for run_id, uri in stored.items() if run_id in judged}

    def _laid_out(self, batch: PanelBatch, asset: str) -> _LaidOut:
        if asset not in batch.inputs:
            return _LaidOut("", "no features are stored; refresh cmc_features first")
        if not self._searches:
            return _LaidOut(NO_SIGNAL, "no signal is active; see dim_signals.is_active")
        rows = batch.panel.rows_of(asset)
        if rows.stop - rows.start < 2:
            return _LaidOut(TOO_FEW_BARS, "fewer than 2 complete bars")
        try:
            tasks, left_out = tasks_of(batch.panel, asset, self._plan.schedule)
        except InvalidInput as error:
            return _LaidOut(NO_FOLD, str(error))
        return _LaidOut(tasks=tasks, left_out=len(left_out))

    def _publish(
        self,
        batch: PanelBatch,
        daily: DailyBars,
        walk_forwards: Sequence[WalkForwardBatch],
        uris: Mapping[str, tuple[str, ...]],
        run_ids: Sequence[UUID],
        counts: Sequence[QualityCount],
        failures: Failures,
    ) -> None:
        tf = batch.panel.timeframe.name
        with self._workspace.database.begin() as connection:
            ids = asset_ids(connection, list(batch.inputs))
            before = read_versions(connection, self.name, [Partition(a, tf) for a in failures])
        versions = {
            Partition(asset, tf): self._version(
                batch, daily, asset, uris.get(asset), failures.get(asset, {})
            )
            for asset in batch.inputs
        }
        short = [asset for asset in batch.inputs if asset not in uris]
        of_refresh = sorted({uri for own in uris.values() for uri in own})
        with self._workspace.database.writing() as connection, connection.cursor() as cursor:
            copy.lock_cells(cursor, "backtests", tf, list(ids.values()))
            for one in walk_forwards:
                publish_walk_forward(self._workspace.artifacts, cursor, one)
            retire_runs(cursor, tf, [ids[asset] for asset in short], split="walk_forward")
            retire_others(cursor, tf, list(ids.values()), of_refresh, list(map(str, run_ids)))
            retire_failed(
                cursor,
                tf,
                [(self.signals[w].signal_id, ids[a]) for a, own in failures.items() for w in own],
                sorted({uri for version in before.values() for uri in version.uris}),
            )
            require_current(cursor, list(map(str, run_ids)))
            write_versions(cursor, self.name, ids, versions, made_from="features")
            replace_quality(cursor, self.name, ids, list(versions), counts)

    def _version(
        self,
        batch: PanelBatch,
        daily: DailyBars,
        asset: str,
        uris: tuple[str, ...] | None,
        failed: Mapping[int, Exception],
    ) -> DatasetVersion:
        features, names = batch.inputs[asset], [self._searches[w].signal.name for w in failed]
        made_by = combined(features.version, batch.own.code_of(self._code, asset), *names)
        version = daily.version_of(made_by, asset)
        code = batch.own.code_of(daily.code_of(self._code, asset), asset)
        return DatasetVersion(
            version=version,
            input_version=features.version,
            # Other than today's code where a strategy failed, so that it is tried again.
            code_version=combined(code, *names) if names else code,
            generation=version,
            n_rows=len(self._searches) - len(failed) if uris is not None else 0,
            first_ts=features.first_ts,
            last_ts=features.last_ts,
            uris=uris or (),
        )


def walk_forward_again(
    config: SimulationConfig,
    plan: WalkForwardPlan,
    workspace: Workspace,
    partitions: Sequence[Partition],
    _rebuild: bool,
) -> tuple[Batches[PanelBatch], WalkForwardStage]:
    """The stage and its batches, made in any process."""
    return stored_features(workspace, partitions), WalkForwardStage(workspace, config, plan)
