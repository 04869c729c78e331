"""Dagster assets partitioned by asset and timeframe, whose output a stage stores."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from backtest_pipeline.defs.metadata import in_order, linked
from backtest_pipeline.defs.partitions import by_asset_and_timeframe
from backtest_pipeline.defs.stored_events import StoredRows
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.columns.column_sets import columns_read
from backtest_pipeline.pipeline.monitoring.counters import count_stage
from backtest_pipeline.pipeline.runs.summary import Summary
from backtest_pipeline.pipeline.stage import Batches, Outcome, Stage, Status
from backtest_pipeline.pipeline.stages.columns.columns_stage import refresh_columns
from backtest_pipeline.pipeline.use_cases.refresh import stored_days
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.tables.datasets import DatasetVersion, read_versions
from backtest_pipeline.storage.tables.dimensions import SignalRow

OWNERS = ["team:quant-research"]
Loader = Callable[[Workspace, Sequence[Partition]], Batches[Any]]
LOADERS: dict[str, Loader] = {}
"""By the name of an asset, the function that loads its stored data as an input of other stages."""
Figures = Callable[[Workspace, Sequence[Partition]], Mapping[Partition, Mapping[str, Any]]]


class Refresh(dg.Config):
    """Options of a refresh."""

    full_rebuild: bool = False
    """Recompute every partition, even where neither inputs nor code have changed."""


@dataclass(frozen=True)
class StageRun:
    """An asset's output: what to compute, the stage that stores it, its summary and figures."""

    batches: Batches[Any]
    stage: Stage[Any]
    summary: Callable[[Workspace, Sequence[Partition]], Summary]
    rebuild: bool = False
    figures: Figures | None = None

    def stored(
        self, workspace: Workspace, outcomes: Sequence[Outcome]
    ) -> tuple[list[StoredRows], dict[Partition, str]]:
        """What the store holds of the partitions that came through, see `stored_rows`."""
        return stored_rows(workspace, self.stage.name, outcomes, self.figures)


def with_days(workspace: Workspace, partitions: Sequence[Partition]) -> list[Partition]:
    """The partitions, and the stored daily bars that mark their runs, which go with them."""
    return [*partitions, *stored_days(workspace.database, partitions)]


def stored_rows(
    workspace: Workspace, dataset: str, outcomes: Sequence[Outcome], figures: Figures | None = None
) -> tuple[list[StoredRows], dict[Partition, str]]:
    """What the store holds of the partitions that came through, and those that it does not hold.

    The version is the one that the store keeps beside the rows: by it, stages decide what is stale.

    Returns:
        The rows of each partition, and why the others have none, by partition.
    """
    through = {outcome.partition: outcome for outcome in outcomes if outcome.is_stored}

    def read() -> dict[Partition, DatasetVersion]:
        with workspace.database.begin() as connection:
            return read_versions(connection, dataset, through)

    versions = workspace.database.retrying(f"versions of {dataset}", read)
    own = figures(workspace, list(versions)) if figures and versions else {}
    found = [
        StoredRows(
            str(partition),
            version.version,
            version.n_rows,
            in_order(
                {**_about(through[partition], version), **linked(own.get(partition, {}))},
            ),
        )
        for partition, version in sorted(versions.items())
    ]
    gone = "its rows were removed while the others were computed; refresh it again"
    return found, {partition: gone for partition in through if partition not in versions}


def _about(outcome: Outcome, version: DatasetVersion) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if outcome.status not in (Status.STORED, Status.UNCHANGED):
        about["status"] = outcome.status.value
    if outcome.detail:
        about["why"] = outcome.detail
    if version.first_ts is not None and version.last_ts is not None:
        about["bars"] = f"{_told(version.first_ts)} to {_told(version.last_ts)} UTC"
    return about


def _told(us: int) -> str:
    return f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M}"


def renew_columns(
    workspace: Workspace,
    partitions: Sequence[Partition],
    signals: Iterable[SignalRow],
    refresh: Refresh,
) -> None:
    """Bring the columns of the user's own that these presets read up to date with the features."""
    names = columns_read(signals)
    for report in refresh_columns(workspace, partitions, names, rebuild=refresh.full_rebuild):
        count_stage(workspace, report)


def stage_asset(
    *, load: Loader | None = None, **specific: Any
) -> Callable[[Callable[..., StageRun]], dg.AssetsDefinition]:
    """A Dagster asset partitioned by asset and timeframe, stored by a stage, one run per range.

    Args:
        load: loads its stored data, for the stages that take it as an input.
        specific: further arguments of `dagster.asset`.
    """

    def declare(compute: Callable[..., StageRun]) -> dg.AssetsDefinition:
        if load is not None:
            LOADERS[compute.__name__] = load
        return dg.asset(
            partitions_def=by_asset_and_timeframe,
            backfill_policy=dg.BackfillPolicy.single_run(),
            io_manager_key="stages",
            owners=OWNERS,
            **specific,
        )(compute)

    return declare
