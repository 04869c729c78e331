"""A run in a few lines of HTML, as a notebook shows it: the tiles and a small chart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest_pipeline.market.panel import utc_index
from backtest_pipeline.report.rendering import render
from backtest_pipeline.report.run_report.contents import ReportedRun
from backtest_pipeline.report.run_report.run_document import report_tiles
from backtest_pipeline.report.run_report.table_markup import markup
from backtest_pipeline.report.run_report.verdict import figures_of, verdict_of
from backtest_pipeline.report.svg import Line, sparkline


def run_snippet(run: ReportedRun) -> str:
    """The tiles of a run's report, its verdict, and its equity beside the benchmark."""
    return render(
        "run_snippet.html.j2",
        run=run,
        verdict=verdict_of(figures_of(run)),
        tiles=list(report_tiles(run)),
        chart=markup(_small_chart(run)),
    )


def _small_chart(run: ReportedRun) -> str:
    series = run.series
    if series is None or len(series.ts) < 2:
        return ""
    index = utc_index(series.ts)
    curves = [series.benchmark, series.equity] if series.has_benchmark else [series.equity]
    return sparkline([Line("", pd.Series(np.asarray(curve), index)) for curve in curves])
