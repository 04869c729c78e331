"""Case `universe`: every symbol, six timeframes, six signals, from bars to committed runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.stage import StageReport
from backtest_pipeline.pipeline.use_cases.refresh import refresh_backtests, refresh_signals
from backtest_pipeline.pipeline.workspace import open_workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.sources.files import FileBars
from bench.bars import daily_bars, write_bars
from bench.clock import Clock, Seconds
from bench.harness import Report, Table, median
from bench.sampling import sampled
from bench.store import fresh_store

TIMEFRAMES = ("1D", "2D", "3D", "1W", "2W", "1M")
STAGES = ("bars", "features", "signals", "backtests")
FROM_FEATURES = "features to last commit"
_KINDS = ("full rebuild", "nothing changed", "one day appended")
_MOST_SHOWN = 10
_ROUNDS = 2
_DAYS = 6  # after so many days as many bars of 2D and 3D have ended as they do on average


@dataclass
class Refresh:
    """Time and rows of one refresh by stage; samples only if it was profiled."""

    seconds: dict[str, Seconds] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    samples: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def total(self) -> Seconds:
        return sum(self.seconds.values(), Seconds())

    @property
    def from_features(self) -> Seconds:
        return self.seconds["signals"] + self.seconds["backtests"]


def run(*, quick: bool) -> Report:
    """Measure it."""
    bars, origin = daily_bars(quick=quick)
    if not quick:
        _round(daily_bars(quick=True)[0], profiled=False)  # imports and compiles
    profile = _round(bars, profiled=True)
    measured = [profile] if quick else [_round(bars, profiled=False) for _ in range(_ROUNDS)]
    return Report(
        "Universe",
        f"{len(bars['symbol'].unique())} symbols ({origin}, {len(bars):,} daily bars) at "
        f"{', '.join(TIMEFRAMES)}, six signals, a fresh embedded store. Median of {len(measured)} "
        "rounds of full rebuild, refresh with nothing changed, and refresh with one day appended "
        f"to all symbols (the mean over {_DAYS} days, one after the other). Rows of a refreshed "
        "partition count whole. CPU is user and system time of this process and the server.",
        [
            *(stages_table(kind, [m[kind] for m in measured]) for kind in _KINDS),
            _ratios_table(measured),
            _snapshots_table(profile),
            *(profile_table(kind, profile[kind]) for kind in (_KINDS[0], _KINDS[2])),
        ],
    )


def _round(bars: object, *, profiled: bool) -> dict[str, Refresh]:
    """The three kinds of refresh on one fresh store."""
    with fresh_store() as settings:
        path = settings.home / "bars.parquet"
        clock = Clock(settings.home)
        write_bars(bars, path, days_left_out=_DAYS)
        first = refreshed(path, clock, profiled=profiled)
        again = refreshed(path, clock, profiled=profiled)
        appended = []
        for left_out in reversed(range(_DAYS)):
            write_bars(bars, path, days_left_out=left_out)
            appended.append(refreshed(path, clock, profiled=profiled))
        return dict(zip(_KINDS, (first, again, _mean(appended)), strict=True))


def _mean(refreshes: list[Refresh]) -> Refresh:
    """One refresh as they were on average; the samples of all."""
    n = len(refreshes)
    result = Refresh()
    for stage in STAGES:
        total = sum((r.seconds[stage] for r in refreshes), Seconds())
        result.seconds[stage] = Seconds(total.wall / n, total.own / n, total.server / n)
        result.rows[stage] = sum(r.rows[stage] for r in refreshes) // n
        samples = sum((r.samples.get(stage, Counter()) for r in refreshes), Counter())
        if samples:
            result.samples[stage] = samples
    return result


def refreshed(path: Path, clock: Clock, *, profiled: bool) -> Refresh:
    result = Refresh()
    with open_workspace() as workspace:
        source = FileBars(path)
        partitions = [Partition(asset, tf) for asset in source.symbols() for tf in TIMEFRAMES]
        reports = refresh_signals(workspace, source, partitions)

        def backtests() -> StageReport:
            return refresh_backtests(workspace, partitions, SimulationConfig())

        for stage in STAGES:
            work: Callable[[], StageReport] = (
                backtests if stage == "backtests" else lambda: next(reports)
            )
            with clock.timing(result.seconds, stage), _profiling(result, stage, profiled):
                report = work()
            assert not report.failed, report.failed[0]
            result.rows[stage] = report.rows
    return result


@contextmanager
def _profiling(result: Refresh, stage: str, profiled: bool) -> Iterator[None]:
    if not profiled:
        yield
        return
    with sampled(result.samples.setdefault(stage, Counter())):
        yield


def stages_table(kind: str, measured: list[Refresh]) -> Table:
    def row(name: str, seconds: list[Seconds], rows: int) -> list[str | float | int]:
        taken = median(seconds)
        return [name, rows, taken.wall, taken.cpu, taken.own, taken.server]

    rows = [
        row(stage, [m.seconds[stage] for m in measured], measured[0].rows[stage])
        for stage in STAGES
    ]
    written = measured[0].rows
    last = written["signals"] + written["backtests"]
    rows.append(row(f"**{FROM_FEATURES}**", [m.from_features for m in measured], last))
    rows.append(row("all", [m.total for m in measured], sum(written.values())))
    columns = ["stage", "rows or runs", "wall s", "CPU s", "of it own", "of it server"]
    return Table(kind.capitalize(), columns, rows)


def _ratios_table(measured: list[dict[str, Refresh]]) -> Table:
    full = median([m[_KINDS[0]].total for m in measured])
    rows: list[list[str | float | int]] = []
    for kind in _KINDS:
        taken = median([m[kind].total for m in measured])
        shares = [f"{taken.wall / full.wall:.1%}", f"{taken.cpu / full.cpu:.1%}"]
        rows.append([kind, taken.wall, full.wall / taken.wall, full.cpu / taken.cpu, *shares])
    columns = ["refresh", "wall s", "times as fast as full, wall", "times as fast, CPU"]
    return Table("Refresh by what has changed", [*columns, "of full, wall", "of full, CPU"], rows)


def _snapshots_table(profile: dict[str, Refresh]) -> Table:
    """How much of a refresh goes into writing and reading snapshots of bars and features."""
    rows: list[list[str | float | int]] = []
    for kind in (_KINDS[0], _KINDS[2]):
        samples = profile[kind].samples
        kept = sum(
            count
            for stage in ("bars", "features")
            for name, count in samples.get(stage, Counter()).items()
            if name.startswith("storage.artifacts.artifacts")
        )
        total = sum(of_stage.total() for of_stage in samples.values())
        rows.append([kind, f"{kept / max(total, 1):.1%}"])
    return Table("Snapshots", ["refresh", "share of its thread time"], rows)


def profile_table(kind: str, refresh: Refresh) -> Table:
    """Shares of the samples of each stage; two threads at work give two samples at a time."""
    rows: list[list[str | float | int]] = []
    for stage, samples in refresh.samples.items():
        total = max(samples.total(), 1)
        for name, count in samples.most_common(_MOST_SHOWN):
            if count >= 0.02 * total:
                rows.append([stage, f"`{name}`", f"{count / total:.0%}"])
    columns = ["stage", "function (waits included)", "share of its thread time"]
    return Table(f"Where the time goes: {kind}", columns, rows)
