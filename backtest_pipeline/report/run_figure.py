"""Runs and walk-forwards as Plotly figures, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest_pipeline.report.run_report.contents import Fan, ReportedRun, RunSeries
from backtest_pipeline.report.thinning import thinned_rows

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_RUN, _BENCHMARK, _LOSS = "#0067a8", "#757d87", "#b84a00"
_BAND = "rgba(0, 103, 168, 0.12)"
_MOST_POINTS = 5000
_HEIGHT = 260


def run_figure(run: ReportedRun) -> Figure:
    """Equity beside its benchmark and bands, drawdown and exposure, on one axis of time.

    Curves have at most some 5,000 points each, which keep their extremes.
    """
    return _curves(run, [])


def walk_forward_figure(run: ReportedRun, folds: Sequence[Mapping[str, Any]]) -> Figure:
    """The stitched curve of a walk-forward, its folds, and the parameters chosen for each.

    Args:
        run: the stitched out-of-sample run.
        folds: rows of `walk_forward_folds`, in order.
    """
    names = sorted({name for fold in folds for name in fold["params"] or {}})
    figure = _curves(run, names)
    stamps = [fold["test_start"] for fold in folds]
    for row, name in enumerate(names, start=4):
        chosen = [(fold["params"] or {}).get(name) for fold in folds]
        figure.add_scatter(
            x=[*stamps, folds[-1]["test_end"]],
            y=[*chosen, chosen[-1]],
            line={"color": _RUN, "shape": "hv"},
            name=name,
            showlegend=False,
            row=row,
            col=1,
        )
    for stamp in stamps:
        figure.add_vline(x=stamp, line={"color": _BENCHMARK, "width": 0.5, "dash": "dot"})
    return figure


def _curves(run: ReportedRun, parameters: Sequence[str]) -> Figure:
    from plotly.subplots import make_subplots

    titles = ["equity", "drawdown", "exposure", *parameters]
    figure = make_subplots(
        rows=len(titles),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.05,
        subplot_titles=titles,
        row_heights=[3, 1.3, 0.8, *[0.8] * len(parameters)],
    )
    figure.update_layout(
        title=f"{run.name} on {run.symbol} {run.timeframe}",
        height=2 * _HEIGHT + 110 * len(titles),
        template="plotly_white",
        hovermode="x unified",
    )
    if run.series is not None:
        _draw(figure, run, run.series)
    return figure


def _draw(figure: Figure, run: ReportedRun, series: RunSeries) -> None:
    curves = [series.equity, series.drawdown, series.exposure]
    if series.has_benchmark:
        curves.append(series.benchmark)
    rows = thinned_rows(curves, _MOST_POINTS)
    x = _stamps(series.ts[rows])
    if run.fan is not None:
        _shade(figure, run.fan)
    if series.has_benchmark:
        line = {"color": _BENCHMARK, "width": 1.2}
        figure.add_scatter(
            x=x, y=series.benchmark[rows], line=line, name=run.benchmark_name, row=1, col=1
        )
    line = {"color": _RUN, "width": 1.6}
    figure.add_scatter(x=x, y=series.equity[rows], line=line, name="run", row=1, col=1)
    for row, values, colour in ((2, series.drawdown, _LOSS), (3, series.exposure, _BENCHMARK)):
        figure.add_scatter(
            x=x,
            y=values[rows],
            line={"color": colour, "width": 1},
            fill="tozeroy",
            showlegend=False,
            name="drawdown" if row == 2 else "exposure",
            row=row,
            col=1,
        )
        figure.update_yaxes(tickformat=".0%", row=row, col=1)
    if (series.equity > 0).all():
        figure.update_yaxes(type="log", row=1, col=1)


def _shade(figure: Figure, fan: Fan) -> None:
    x = _stamps(fan.ts)
    for low, high, name in ((fan.p05, fan.p95, "5 to 95 %"), (fan.p25, fan.p75, "25 to 75 %")):
        edge = {"x": x, "line": {"width": 0}, "hoverinfo": "skip"}
        figure.add_scatter(**edge, y=high, showlegend=False, row=1, col=1)
        figure.add_scatter(**edge, y=low, fill="tonexty", fillcolor=_BAND, name=name, row=1, col=1)


def _stamps(ts: np.ndarray) -> list[datetime]:
    return ts.astype("M8[us]").tolist()
