"""Case `dagster_log`: rows and bytes that refreshes of a universe leave in Dagster's tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import dagster as dg
from sqlalchemy import text

from backtest_pipeline.defs import stored_events
from backtest_pipeline.defs.automation.selections import STAGES, begin_step, run_over
from backtest_pipeline.defs.event_log.reported_partitions import ReportedPartitions
from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.defs.io_managers import StageIOManager
from backtest_pipeline.defs.partitions import by_asset_and_timeframe, register_partitions
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.settings import Settings
from bench.clock import Clock
from bench.harness import Report, Table
from bench.store import fresh_store

TIMEFRAMES = ("1D", "2D", "3D", "4D", "5D", "1W", "2W", "1M", "1M_CAL", "1Y_CAL")
CLOSED = ("1D", "2D")
STAGE_NAMES = ("bars", "features", "signals", "backtests")
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_SIZE = """
    SELECT (SELECT count(*) FROM dagster.event_logs)
         + (SELECT count(*) FROM dagster.asset_event_tags),
           pg_total_relation_size('dagster.event_logs')
         + pg_total_relation_size('dagster.asset_event_tags')"""
_BATCH = 200


class Size(NamedTuple):
    """Of Dagster's tables of events, with their indexes."""

    rows: int
    bytes: int


def run(*, quick: bool) -> Report:
    """Measure it at 2,000 assets and ten timeframes, of which two close on the day."""
    n_assets = 20 if quick else 2_000
    with fresh_store() as settings:
        rows, other = _measured(settings, n_assets)
    columns = [
        *(
            "refresh",
            "partitions reported",
            "rows",
            "MB with indexes",
            "bytes a partition reported",
        ),
        *("wall s", "CPU s"),
    ]
    return Report(
        "Dagster's log",
        f"{n_assets:,} assets at {len(TIMEFRAMES)} timeframes in {len(STAGE_NAMES)} stages that "
        "compute nothing, and report as the stages of the chain do. Of a day's new bars, "
        f"{' and '.join(CLOSED)} close: all their stages change, and of the other timeframes the "
        "backtests, which are marked at the daily bars. Bytes include the indexes.",
        [Table("Events of a refresh", columns, rows), Table("Elsewhere", ["what", "bytes"], other)],
    )


def _measured(settings: Settings, n_assets: int) -> tuple[list[list[Any]], list[list[Any]]]:
    symbols = [f"A{number:04}USDT" for number in range(n_assets)]
    with (
        closing(open_database(settings)) as database,
        open_instance(settings, database) as instance,
    ):
        register_partitions(instance, symbols, TIMEFRAMES)
        everything = [Partition(symbol, tf) for symbol in symbols for tf in TIMEFRAMES]
        days: dict[str, tuple[int, Sequence[Partition]]] = {
            "full": (0, everything),
            "nothing new": (0, everything),
            "a day's new bars": (1, everything),
            "a day's new bars, of every second asset": (
                2,
                [p for p in everything if int(p.asset[1:5]) % 2],
            ),
        }
        rows = [
            _refreshed(settings, database, instance, kind, day, partitions)
            for kind, (day, partitions) in days.items()
        ]
        other = _elsewhere(database, instance, everything)
    return rows, other


def _refreshed(
    settings: Settings,
    database: Database,
    instance: dg.DagsterInstance,
    kind: str,
    day: int,
    partitions: Sequence[Partition],
) -> list[Any]:
    clock = Clock(settings.home)
    before, earlier, begin = _size(database), _n_reported(database), clock.now()
    over = run_over(instance, partitions)
    job = _chain(day).resolve_job_def("chain")
    result = job.execute_in_process({**_QUIET, **over.config}, instance=instance, tags=over.tags)
    assert result.success
    taken, size, n = clock.now() - begin, _size(database), _n_reported(database) - earlier
    rows, n_bytes = size.rows - before.rows, size.bytes - before.bytes
    return [kind, n, rows, n_bytes / 1e6, n_bytes / n if n else 0.0, taken.wall, taken.cpu]


def _elsewhere(
    database: Database, instance: dg.DagsterInstance, everything: Sequence[Partition]
) -> list[list[Any]]:
    """What else has the partitions in it: the runs, and what Dagster caches of an asset."""
    scattered = run_over(instance, [p for n, p in enumerate(everything) if n % 3])
    with database.begin() as connection:
        cached = "SELECT max(length(cached_status_data)) FROM dagster.asset_keys"
        for name in STAGE_NAMES:
            instance.get_status_by_partition(
                dg.AssetKey(name), [str(everything[0])], by_asset_and_timeframe
            )
        status = connection.scalar(text(cached))
    return [
        [
            "run config of a run over two thirds of the partitions",
            len(json.dumps(scattered.config)),
        ],
        ["cached status of an asset", status],
    ]


def _size(database: Database) -> Size:
    with database.begin() as connection:
        row = connection.execute(text(_SIZE)).one()
    return Size(row[0], row[1])


def _n_reported(database: Database) -> int:
    query = """
        SELECT count(*) FROM dagster.event_logs
        WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND partition IS NOT NULL"""
    with database.begin() as connection:
        return connection.scalar(text(query)) or 0


def _chain(day: int) -> dg.Definitions:
    assets = [
        _stage(name, before, day)
        for name, before in zip(STAGE_NAMES, (None, *STAGE_NAMES), strict=False)
    ]
    return dg.Definitions(
        assets,
        jobs=[dg.define_asset_job("chain", executor_def=dg.in_process_executor)],
        resources={STAGES: StageIOManager.configure_at_launch(store=WorkspaceResource())},
    )


def _stage(name: str, before: str | None, day: int) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        deps=[before] if before else [],
        partitions_def=by_asset_and_timeframe,
        backfill_policy=dg.BackfillPolicy.single_run(),
        code_version="engine 2, features 2, metrics 2, signals 2, strategies 0123456789abcdef",
        io_manager_key=STAGES,
    )
    def stage(context: dg.AssetExecutionContext) -> None:
        keys = begin_step(context)
        step = context.get_step_execution_context()
        tags = stored_events.provenance(context.instance, stored_events.lineage_of(step))
        known = ReportedPartitions(
            context.instance, context.asset_key, step.dagster_run, tags, keys
        )
        for batch in _batches(keys):
            rows = [
                stored_events.StoredRows(key, _version(key, name, day), 2_000, _figures(name))
                for key in batch
            ]
            same = set(known.same({str(row.partition): row.version for row in rows}))
            events = [
                stored_events.materialization(context.asset_key, row, tags)
                for row in rows
                if row.partition not in same
            ]
            stored_events.report(step, events)
            known.take_from_plan(sorted(same))

    return stage


def _version(key: str, name: str, day: int) -> str:
    changes = name == "backtests" or key.rpartition("|")[2] in CLOSED
    return f"{day if changes else 0:032x}"


def _figures(name: str) -> Mapping[str, Any]:
    figures: dict[str, Any] = {"bars": "2019-06-01 23:59 to 2025-05-01 23:59 UTC"}
    if name == "backtests":
        figures |= {"best_sharpe": 0.8123, "trades": 210, "best_run": "ema_crossover_12_26"}
    return figures


def _batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(keys), _BATCH):
        yield keys[first : first + _BATCH]
