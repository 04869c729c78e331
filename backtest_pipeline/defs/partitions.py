"""Dagster partitions by asset and timeframe, and how their keys become `Partition` objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import dagster as dg

from backtest_pipeline.market.partitions import Partition, usable_symbols
from backtest_pipeline.storage.settings import load_settings

# Only `delete_partitions` and `follow_timeframes` remove any: the page of automation conditions,
# which no asset here has, breaks where a partition with runs disappears (dagster#33910).
assets_partitions = dg.DynamicPartitionsDefinition(name="asset")
timeframes_partitions = dg.DynamicPartitionsDefinition(name="timeframe")
by_asset_and_timeframe = dg.MultiPartitionsDefinition(
    {"asset": assets_partitions, "timeframe": timeframes_partitions}
)

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def require_sound_run(context: dg.AssetExecutionContext) -> None:
    """Cancel a run that names a range of several partitions and a single one besides.

    Backfills of several partitions that are launched from a job's page carry both; Dagster then
    computes the first one only and reports all of them as done (dagster#28861). A run of one
    partition from there names it twice, which is sound.

    Raises:
        DagsterExecutionInterruptedError: which ends the run as cancelled. If it failed, Dagster
            would mark partitions as failed that the run never touched.
    """
    tags = context.run.tags
    ranged = RANGE_START in tags and tags[RANGE_START] != tags.get(RANGE_END)
    single = [t for t in tags if t.startswith("dagster/partition") and t != "dagster/partition_set"]
    if ranged and single:
        message = (
            f"this run names the partitions {tags[RANGE_START]} to {tags.get(RANGE_END)} and a "
            "single one besides, so Dagster would compute one and report all of them as done "
            "(dagster#28861); nothing was computed: launch several partitions from the asset's "
            "page, not from the job's"
        )
        context.instance.report_run_canceling(context.run, message=message)
        raise dg.DagsterExecutionInterruptedError(message)


def partitions_of(keys: Iterable[str]) -> list[Partition]:
    """Dagster's partition keys as `Partition` objects."""
    return [Partition.parse(str(key)) for key in keys]


def register_partitions(
    instance: dg.DagsterInstance, symbols: Iterable[str], timeframes: Sequence[str] | None = None
) -> list[str]:
    """Add a partition for each usable symbol and timeframe that has none yet.

    Args:
        instance: the instance.
        symbols: the symbols.
        timeframes: names; those of BACKTEST_TIMEFRAMES where None.

    Returns:
        The symbols added.
    """
    _add(instance, "timeframe", load_settings().timeframes if timeframes is None else timeframes)
    return _add(instance, "asset", usable_symbols(symbols)[0])


def follow_timeframes(
    instance: dg.DagsterInstance, names: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Make these the partitions by timeframe; returns those that were added and deleted."""
    gone = [name for name in instance.get_dynamic_partitions("timeframe") if name not in names]
    for name in gone:
        instance.delete_dynamic_partition("timeframe", name)
    return _add(instance, "timeframe", names), gone


def _add(instance: dg.DagsterInstance, dimension: str, keys: Sequence[str]) -> list[str]:
    known = set(instance.get_dynamic_partitions(dimension))
    new = [key for key in keys if key not in known]
    if new:
        instance.add_dynamic_partitions(dimension, new)
    return new


def delete_partitions(instance: dg.DagsterInstance, symbols: Iterable[str]) -> list[str]:
    """Delete the partitions of these symbols; returns those that there were."""
    named = set(symbols)
    gone = [symbol for symbol in instance.get_dynamic_partitions("asset") if symbol in named]
    for symbol in gone:
        instance.delete_dynamic_partition("asset", symbol)
    return gone


def timeframe_ranges(
    instance: dg.DagsterInstance, timeframes: Iterable[str]
) -> list[dict[str, str]]:
    """Tags of the fewest runs that cover exactly these timeframes, of assets by timeframe."""
    names = instance.get_dynamic_partitions("timeframe")
    return [
        {RANGE_START: names[first], RANGE_END: names[last]}
        for first, last in _spans(map(names.index, timeframes))
    ]


def _spans(positions: Iterable[int]) -> list[tuple[int, int]]:
    """Consecutive positions grouped as (first, last) pairs."""
    spans: list[tuple[int, int]] = []
    for position in sorted(set(positions)):
        if spans and spans[-1][1] == position - 1:
            spans[-1] = (spans[-1][0], position)
        else:
            spans.append((position, position))
    return spans
