"""Runs over any set of partitions: the smallest range around them, and the selection within it.

Dagster cuts a backfill of a set with holes into as many runs as it has contiguous pieces: of every
second of 2,000 assets, one for each. Here one run has the range around the whole set, and its run
config names the partitions. Dagster is kept from planning the range; the first step plans what is
selected, so that exactly this is shown as in progress, materialized or failed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import dagster as dg

from backtest_pipeline.defs import stored_events
from backtest_pipeline.defs.partitions import RANGE_END, RANGE_START, require_sound_run
from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.stages.external.external_changes import by_timeframes

STAGES = "stages"
"""The resource whose config has the selection: the IO manager of all stage assets."""


class SelectedPart(dg.Config):
    """Assets, each at all of the timeframes."""

    assets: list[str]
    timeframes: list[str]


class RunOver(NamedTuple):
    """Tags and run config of a run over a set of partitions."""

    tags: dict[str, str]
    config: dict[str, Any]


def run_over(instance: dg.DagsterInstance, partitions: Sequence[Partition]) -> RunOver:
    """One run over exactly these partitions, at least one, whatever lies between them.

    Raises:
        UnknownName: for an asset or timeframe that Dagster has no partition of.
    """
    axes = {
        "asset": {partition.asset for partition in partitions},
        "timeframe": {partition.timeframe for partition in partitions},
    }
    spans = {name: _span(instance, name, wanted) for name, wanted in axes.items()}
    tags = {
        RANGE_START: "|".join(span[0] for span in spans.values()),
        RANGE_END: "|".join(span[-1] for span in spans.values()),
    }
    if len(set(partitions)) == len(spans["asset"]) * len(spans["timeframe"]):
        return RunOver(tags, {})
    parts = [
        {"assets": assets, "timeframes": timeframes}
        for assets, timeframes in by_timeframes(sorted(set(partitions)))
    ]
    return RunOver(
        {**tags, stored_events.DEFERRED: "true"},
        {"resources": {STAGES: {"config": {"parts": parts}}}},
    )


def _span(instance: dg.DagsterInstance, dimension: str, wanted: set[str]) -> Sequence[str]:
    """The keys of a dimension from the first to the last that is wanted, in Dagster's order."""
    known = instance.get_dynamic_partitions(dimension)
    for name in sorted(wanted.difference(known)):
        raise UnknownName(dimension, name, known)
    positions = [position for position, key in enumerate(known) if key in wanted]
    return known[positions[0] : positions[-1] + 1]


def begin_step(context: dg.AssetExecutionContext) -> list[str]:
    """The keys that a step computes: those of the run's range that are selected.

    Raises:
        DagsterExecutionInterruptedError: which ends a run as cancelled whose tags contradict each
            other; see `require_sound_run`.
    """
    require_sound_run(context)
    keys = selected_keys(context.run, context.partition_keys)
    step = context.get_step_execution_context()
    if _parts_of(context.run) and stored_events.is_first(step):
        if not stored_events.is_deferred(context.run):
            message = (
                "this run has a selection, but Dagster has planned its whole range; nothing was "
                f"computed: add the tag {stored_events.DEFERRED}=true, or leave the selection out"
            )
            context.instance.report_run_canceling(context.run, message=message)
            raise dg.DagsterExecutionInterruptedError(message)
        stored_events.plan(step, keys)
    return keys


def selected_keys(run: dg.DagsterRun, keys: Iterable[str]) -> list[str]:
    """Those of the keys that the run's selection names; all of them where it has none."""
    parts = _parts_of(run)
    if not parts:
        return [str(key) for key in keys]
    wanted = {f"{a}|{tf}" for part in parts for a in part["assets"] for tf in part["timeframes"]}
    return [str(key) for key in keys if str(key) in wanted]


def _parts_of(run: dg.DagsterRun) -> Sequence[Mapping[str, Any]]:
    """The parts of a run's selection, as the IO manager of its stages declares them."""
    resources = cast("Mapping[str, Any]", run.run_config.get("resources", {}))
    return resources.get(STAGES, {}).get("config", {}).get("parts", ())
