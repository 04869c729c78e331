"""Case `dagster_refresh`: the universe through Dagster, one range run on a Postgres instance."""

from __future__ import annotations

import time

from backtest_pipeline.launch import refresh
from bench.bars import daily_bars, write_bars
from bench.clock import Clock, Seconds
from bench.harness import Report, Table
from bench.store import fresh_store
from bench.universe import TIMEFRAMES


def run(*, quick: bool) -> Report:
    """Measure it, after a small run that imports and compiles everything."""
    if not quick:
        _rows(quick=True)
    rows = _rows(quick=quick)
    columns = ["refresh", "wall s", "CPU s", "of it server", "stages, wall s", "Dagster's own s"]
    return Report(
        "Through Dagster",
        f"The same universe at {', '.join(TIMEFRAMES)} by the job `refresh` in one range run "
        "(with checks and summaries), then the portfolios by the job `rollup`; event log and "
        "run storage in the same Postgres. Stages is the time in which stages compute and store.",
        [Table("One range run", columns, rows)],
    )


def _rows(*, quick: bool) -> list[list[str | float | int]]:
    bars, _ = daily_bars(quick=quick)
    with fresh_store() as settings:
        path = settings.home / "bars.parquet"
        clock = Clock(settings.home)
        rows: list[list[str | float | int]] = []
        for kind in ("full rebuild", "one day appended"):
            write_bars(bars, path, days_left_out=int(kind == "full rebuild"))
            spans = StageSpans()

            def heard(stage: str, done: int, total: int, spans: StageSpans = spans) -> None:
                spans.heard(stage)  # Dagster copies resources, but not functions

            begin = clock.now()
            result = refresh(
                bars=str(path),
                assets=None,
                timeframes=TIMEFRAMES,
                full_rebuild=False,
                progress=heard,
            )
            taken: Seconds = clock.now() - begin
            assert not result.failures, result.failures[0]
            own = taken.wall - spans.total
            rows.append([kind, taken.wall, taken.cpu, taken.server, spans.total, own])
        return rows


class StageSpans:
    """Duration of each stage, from its first progress report to its last."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[float, float]] = {}

    def heard(self, stage: str) -> None:
        now = time.perf_counter()
        self._spans[stage] = (self._spans.get(stage, (now, now))[0], now)

    @property
    def total(self) -> float:
        return sum(end - begin for begin, end in self._spans.values())
