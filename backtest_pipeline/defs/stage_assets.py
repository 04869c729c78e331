"""Dagster assets partitioned by asset and timeframe, whose output a stage stores."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from backtest_pipeline.defs.partitions import by_asset_and_timeframe
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.column_sets import columns_read
from backtest_pipeline.pipeline.monitoring.counters import count_stage
from backtest_pipeline.pipeline.runs.summary import Summary
from backtest_pipeline.pipeline.stage import Batches, Stage
from backtest_pipeline.pipeline.stages.columns.columns_stage import refresh_columns
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.tables.dimensions import SignalRow

OWNERS = ["team:quant-research"]
Loader = Callable[[Workspace, Sequence[Partition]], Batches[Any]]
LOADERS: dict[str, Loader] = {}
"""By the name of an asset, the function that loads its stored data as an input of other assets."""


class Refresh(dg.Config):
    """Options of a refresh."""

    full_rebuild: bool = False
    """Recompute every partition, even where neither inputs nor code have changed."""


@dataclass(frozen=True)
class StageRun:
    """An asset's output: what to compute, the stage that stores it, and its summary."""

    batches: Batches[Any]
    stage: Stage[Any]
    summary: Callable[[Workspace, Sequence[Partition]], Summary]
    rebuild: bool = False


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
        load: loads its stored data, for the assets that take it as an input.
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
