"""Case `provenance`: the cost of reproducibility in a full rebuild, and the time of a replay."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import pyarrow as pa

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_sample
from backtest_pipeline.pipeline.runs.identity import fingerprints
from backtest_pipeline.pipeline.stages.tradable_signals import stored_signals
from backtest_pipeline.pipeline.use_cases.refresh import refresh_backtests, refresh_signals
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import code_on_disk
from bench.bars import daily_bars, write_bars
from bench.clock import Clock, Seconds
from bench.harness import Report, Table
from bench.store import fresh_store

_TIMEFRAMES = ("1D", "2D", "3D", "1W", "2W", "1M")
_SAMPLE = 20


@dataclass(frozen=True)
class TimedStore(ArtifactStore):
    """An artifact store that measures the CPU time of writing snapshots, sources and runs."""

    @cached_property
    def spent(self) -> dict[str, list[float]]:
        """Seconds of each call, by what was written."""
        return defaultdict(list)

    @cached_property
    def _counting(self) -> Lock:
        return Lock()

    def put_snapshot(self, folder: str, table: pa.Table) -> str:
        with self._timing(f"snapshots of {folder.split('/')[0]}"):
            return super().put_snapshot(folder, table)

    def put_file(self, uri: str, data: bytes) -> None:
        with self._timing("sources"):
            super().put_file(uri, data)

    def put_directory(
        self, uri: str, tables: Mapping[str, pa.Table], about: Mapping[str, Any]
    ) -> None:
        with self._timing("series of the runs"):
            super().put_directory(uri, tables, about)

    @contextmanager
    def _timing(self, what: str) -> Iterator[None]:
        begin = time.thread_time()
        yield
        with self._counting:
            self.spent[what].append(time.thread_time() - begin)


def run(*, quick: bool) -> Report:
    """Measure it."""
    bars, origin = daily_bars(quick=quick)
    n_symbols = len(bars["symbol"].unique())
    taken: dict[str, Seconds] = {}
    with fresh_store() as settings:
        path = settings.home / "bars.parquet"
        write_bars(bars, path)
        clock = Clock(settings.home)
        with open_workspace() as opened:
            store = TimedStore(opened.artifacts.root)
            workspace = Workspace(opened.database, store)
            source = FileBars(path)
            partitions = [Partition(a, tf) for a in source.symbols() for tf in _TIMEFRAMES]
            with clock.timing(taken, "refresh"):
                for report in refresh_signals(workspace, source, partitions):
                    assert not report.failed
                assert not refresh_backtests(workspace, partitions, SimulationConfig()).failed
            spent = {what: (len(each), sum(each)) for what, each in sorted(store.spent.items())}
            spent["fingerprints"] = _fingerprints(workspace, partitions)
            spent["archive of the sources"] = (1, _thread_time(code_on_disk))
            with clock.timing(taken, "replay"):
                replays = replay_sample(workspace, _SAMPLE, 0)
    assert all(one.verdict is ReplayVerdict.SAME for one in replays), replays
    whole = taken["refresh"].cpu
    rows = [[what, n, cpu, f"{cpu / whole:.1%}"] for what, (n, cpu) in spent.items()]
    added = sum(cpu for what, (_, cpu) in spent.items() if what != "series of the runs")
    return Report(
        "Provenance",
        f"{n_symbols} symbols ({origin}) at {', '.join(_TIMEFRAMES)}: one full rebuild "
        "of a fresh store, and in it the processor time of what makes runs repeatable. The series "
        "of the runs are results and stand here to compare.",
        [
            Table(
                "What a rebuild spends on it",
                ["what", "times", "CPU s", "share of the rebuild's CPU"],
                [*rows, ["**all but the series**", "", added, f"{added / whole:.1%}"]],
            ),
            Table(
                "A sample of stored runs, replayed in a fresh process",
                ["runs", "wall s", "CPU s"],
                [[len(replays), taken["replay"].wall, taken["replay"].own]],
            ),
        ],
    )


def _fingerprints(workspace: Workspace, partitions: list[Partition]) -> tuple[int, float]:
    """Number of batches, and CPU seconds of the fingerprints of all their runs."""
    batches = stored_signals(workspace, partitions)
    seconds = []
    for tf in _TIMEFRAMES:
        loaded = batches.load(tf, [p.asset for p in partitions if p.timeframe == tf])
        signals = range(len(loaded.stored.signals))
        batch = loaded.traded(signals, loaded.tradable, SimulationConfig())
        seconds.append(_thread_time(lambda batch=batch: fingerprints(batch)))
    return len(seconds), sum(seconds)


def _thread_time(work: Callable[[], object]) -> float:
    begin = time.thread_time()
    work()
    return time.thread_time() - begin
