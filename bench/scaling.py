"""Case `scaling`: the universe refreshed by threads, by processes and by workers of a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.stage import StageReport
from backtest_pipeline.pipeline.use_cases.refresh import refresh_backtests, refresh_signals
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline.storage.settings import load_settings
from bench.bars import daily_bars, write_bars
from bench.harness import Report, Table
from bench.store import fresh_store

TIMEFRAMES = ("1D", "2D", "3D", "1W", "2W", "1M")
_STAGES = ("features", "signals", "backtests")
_PORT = 8797
_WARMING = 5  # a fifth of the symbols is more than what a run does alone
_POOLS = (
    ("inline", 1),
    ("inline", 2),
    ("processes", 1),
    ("processes", 2),
    ("dask", 1),
    ("dask", 2),
)


def run(*, quick: bool) -> Report:
    """Measure it."""
    bars, origin = daily_bars(quick=quick)
    rows: list[list[str | float | int]] = []
    for pool, workers in _POOLS[3:4] if quick else _POOLS:
        with fresh_store() as settings:
            path = settings.home / "bars.parquet"
            write_bars(bars, path)
            rows.append([f"{pool} {workers}", *_measured(path, pool, workers)])
    return Report(
        "Scaling",
        f"{len(bars['symbol'].unique())} symbols ({origin}, {len(bars):,} daily bars) at "
        f"{', '.join(TIMEFRAMES)}, from a file of bars to committed runs, everything computed and "
        f"written. Every {_WARMING}th symbol is refreshed first, which starts and warms the "
        "workers of a pool; the refresh of all others is measured. CPU is user and system time, "
        "of this process with its workers, and of the server. A cluster's workers have started "
        "before.",
        [
            Table(
                "From bars to committed runs",
                [
                    "pool",
                    "wall s",
                    "own CPU s",
                    "server CPU s",
                    "warming, wall s",
                    "a worker, MB",
                ],
                rows,
            )
        ],
    )


def _measured(path: Path, pool: str, workers: int) -> list[float]:
    os.environ |= {"BACKTEST_POOL": pool, "BACKTEST_POOL_WORKERS": str(workers)}
    with _cluster(pool), open_workspace(load_settings()) as workspace:
        source = FileBars(path)
        symbols = list(source.symbols())
        of_warming = symbols[::_WARMING]
        begun = time.perf_counter()
        _refreshed(workspace, source, of_warming)
        warming = time.perf_counter() - begun
        before, begun = _processor_times(workspace), time.perf_counter()
        _refreshed(workspace, source, [one for one in symbols if one not in of_warming])
        wall = time.perf_counter() - begun
        own, server = (
            after - then for after, then in zip(_processor_times(workspace), before, strict=True)
        )
        return [wall, own, server, warming, _largest_worker()]


def _refreshed(workspace: Workspace, source: FileBars, symbols: Sequence[str]) -> None:
    partitions = [Partition(asset, tf) for asset in symbols for tf in TIMEFRAMES]
    reports: list[StageReport] = list(refresh_signals(workspace, source, partitions))
    reports.append(refresh_backtests(workspace, partitions, SimulationConfig()))
    for report in reports:
        assert not report.failed, report.failed[0]


@contextmanager
def _cluster(pool: str) -> Iterator[None]:
    """Scheduler and workers, where the pool is a cluster."""
    if pool != "dask":
        yield
        return
    os.environ["BACKTEST_POOL_ADDRESS"] = f"tcp://127.0.0.1:{_PORT}"
    command = [sys.executable, "-m", "backtest_pipeline", "pool"]
    programs = [
        subprocess.Popen([*command, *which], stderr=subprocess.DEVNULL)
        for which in (["scheduler", "--port", str(_PORT)], ["worker"])
    ]
    try:
        while subprocess.run([*command, "status"], capture_output=True, check=False).returncode:
            time.sleep(1)
        yield
    finally:
        for program in reversed(programs):
            program.terminate()
            program.wait()


def _processor_times(workspace: Workspace) -> tuple[float, float]:
    """Processor seconds of this process with all that it started, and of the server."""
    with workspace.database.begin() as connection:
        number = (
            connection.exec_driver_sql("SELECT pg_read_file('postmaster.pid')")
            .scalar_one()
            .split("\n", 1)[0]
        )
    server = {int(number)} | {p.pid for p in psutil.Process(int(number)).children(recursive=True)}
    own = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return (
        sum(_seconds(process.pid) for process in own if process.pid not in server),
        sum(map(_seconds, server)),
    )


def _seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def _largest_worker() -> float:
    """Memory of the largest process at work, in MB."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    workers = [p for p in processes[1:] if "postgres" not in p.name()] or processes
    return max(p.memory_info().rss for p in workers) / 1e6
