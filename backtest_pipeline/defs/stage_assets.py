"""Assets per asset and timeframe whose output a stage stores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from backtest_pipeline.defs.partitions import by_asset_and_timeframe
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.runs.summary import Summary
from backtest_pipeline.pipeline.stage import Batches, Stage
from backtest_pipeline.pipeline.workspace import Workspace

OWNERS = ["team:quant-research"]
Loader = Callable[[Workspace, Sequence[Partition]], Batches[Any]]
LOADERS: dict[str, Loader] = {}
"""How what an asset stored is loaded for those that take it as an input, by the asset's name."""


class Refresh(dg.Config):
    """How to refresh."""

    full_rebuild: bool = False
    """Compute every partition, also those whose inputs and code have not changed."""


@dataclass(frozen=True)
class StageRun:
    """An asset's output: what to compute, the stage that stores it, and what it amounts to."""

    batches: Batches[Any]
    stage: Stage[Any]
    summary: Callable[[Workspace, Sequence[Partition]], Summary]
    rebuild: bool = False


def stage_asset(
    *, load: Loader | None = None, **specific: Any
) -> Callable[[Callable[..., StageRun]], dg.AssetsDefinition]:
    """An asset per asset and timeframe whose output a stage stores; one run for any range.

    Args:
        load: what it stored, for the assets that take it as an input.
        specific: what else `dagster.asset` takes.
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
