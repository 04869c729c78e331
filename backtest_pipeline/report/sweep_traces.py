"""The traces of a sweep's figure: a heat map and its best cell, and the curves of a parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtest_pipeline.report.number_formats import number_format, shown
from backtest_pipeline.research.robustness.neighbourhood import best_first

BLUE, GREY, ORANGE = "#1f6feb", "#6e7781", "#fb8500"
_HOVERED = ("sharpe", "total_return", "max_drawdown", "trade_count")
_LABELLED_COLUMNS, _LABELLED_ROWS = 15, 22  # cells that are large enough for their number
_GAPS = 40  # more rows or columns would be all gaps


@dataclass(frozen=True)
class Trace:
    """One trace of a Plotly figure.

    Attributes:
        kind: Plotly's type.
        fixed: what stays whatever the metric is.
        by_metric: what changes with it, the same attributes for each.
        cell: row and column of its subplot, from 1.
    """

    kind: str
    fixed: Mapping[str, Any]
    by_metric: Mapping[str, Mapping[str, Any]]
    cell: tuple[int, int]


def at_values(table: pd.DataFrame, fixed: Mapping[str, Any]) -> pd.DataFrame:
    """The combinations whose parameters have these values."""
    keep = np.ones(len(table), bool)
    for name, value in fixed.items():
        keep &= table.index.get_level_values(name).to_numpy() == value
    return table.loc[keep]


def heat_traces(
    part: pd.DataFrame, metrics: Sequence[str], swept: Sequence[str], *, visible: bool
) -> list[Trace]:
    """A heat map of the first two swept parameters, and a mark on the best of its cells.

    Args:
        part: combinations that differ in those two alone.
        metrics: columns of the table that can be shown.
        swept: the parameters.
        visible: whether it is shown first.
    """
    x_name, y_name = swept[:2]
    x = part.index.get_level_values(x_name).to_numpy()
    y = part.index.get_level_values(y_name).to_numpy()
    xs, column = np.unique(x, return_inverse=True)
    ys, row = np.unique(y, return_inverse=True)
    x_labels, y_labels = [f"{value:g}" for value in xs], [f"{value:g}" for value in ys]

    def spread(values: Sequence[Any]) -> list[list[Any]]:
        cells: list[list[Any]] = [[None] * len(xs) for _ in ys]
        for i, j, value in zip(row, column, values, strict=True):
            cells[i][j] = value
        return cells

    facts = [
        "<br>".join(
            f"{name} {shown(name, value)}" for name, value in zip(_HOVERED, values, strict=True)
        )
        for values in part[list(_HOVERED)].to_numpy()
    ]
    cells, markers = {}, {}
    for metric in metrics:
        form = number_format(metric)
        labelled = len(xs) <= _LABELLED_COLUMNS and len(ys) <= _LABELLED_ROWS
        cells[metric] = {
            "x": x_labels,
            "y": y_labels,
            "z": spread(plain(pd.Series(part[metric]))),
            "texttemplate": f"%{{z:{form}}}" if labelled else "",
            "hovertemplate": f"<b>{x_name} %{{x}}, {y_name} %{{y}}</b><br>{metric} %{{z:{form}}}"
            "<br><br>%{customdata}<extra></extra>",
        }
        ranked = best_first(pd.Series(part[metric]))[:1]
        markers[metric] = {
            "x": [f"{x[i]:g}" for i in ranked],
            "y": [f"{y[i]:g}" for i in ranked],
        }
    heat = {
        "coloraxis": "coloraxis",
        "customdata": spread(facts),
        "hoverongaps": False,
        "xgap": 2 if len(xs) <= _GAPS else 0,
        "ygap": 2 if len(ys) <= _GAPS else 0,
        "textfont": {"size": 11},
        "visible": visible,
    }
    marker = {
        "mode": "markers",
        "marker": {
            "symbol": "square-open",
            "size": max(10, min(38, 380 // len(ys))),  # inside of its cell
            "color": ORANGE,
            "line": {"width": 3.5},
        },
        "hoverinfo": "skip",
        "name": "best cell shown",
        "showlegend": False,
        "visible": visible,
    }
    return [
        Trace("heatmap", heat, cells, (1, 1)),
        Trace("scatter", marker, markers, (1, 1)),
    ]


def curve_traces(
    table: pd.DataFrame,
    metrics: Sequence[str],
    name: str,
    best: Mapping[str, Any],
    cell: tuple[int, int],
) -> list[Trace]:
    """The best combination with one parameter varied, over the results of all combinations.

    Args:
        table: one row per combination.
        metrics: columns of the table that can be shown.
        name: the parameter.
        best: all parameters of the best combination.
        cell: row and column of the subplot; the first column brings the legend.
    """
    through = at_values(table, {n: best[n] for n in table.index.names if n != name})
    at_best = at_values(through, {name: best[name]})
    curve = {
        "mode": "lines+markers",
        "line": {"color": BLUE, "width": 2.2},
        "marker": {"size": 6},
        "name": "other parameters at the best",
    }
    square = {
        "mode": "markers",
        "marker": {
            "symbol": "square-open",
            "size": 15,
            "color": ORANGE,
            "line": {"width": 2.5},
        },
        "name": "best combination",
        "hoverinfo": "skip",
    }
    drawn = [(curve, through), (square, at_best)]
    if len(through) < len(table):
        drawn = [*_spread(table, metrics, name), *drawn]
    legend = {"showlegend": cell[1] == 1}
    return [
        Trace(
            "scatter",
            {**legend, "legendgroup": fixed.get("name"), **fixed},
            _line(source, metrics, name),
            cell,
        )
        for fixed, source in drawn
    ]


def _spread(
    table: pd.DataFrame, metrics: Sequence[str], name: str
) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The band and the median of all combinations with each value of a parameter."""
    grouped = table.groupby(level=name)[list(metrics)]
    low, middle, high = (pd.DataFrame(grouped.quantile(q)) for q in (0.1, 0.5, 0.9))
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    shade = {**edge, "fill": "tonexty", "fillcolor": "rgba(110,119,129,0.16)"}
    dotted = {"mode": "lines", "line": {"color": GREY, "width": 1.6, "dash": "dot"}}
    return [
        ({**edge, "showlegend": False}, low),
        ({**shade, "name": "10th to 90th percentile of all"}, high),
        ({**dotted, "name": "median of all"}, middle),
    ]


def _line(source: pd.DataFrame, metrics: Sequence[str], name: str) -> dict[str, dict[str, Any]]:
    return {
        metric: {
            "x": source.index.get_level_values(name).to_list(),
            "y": plain(pd.Series(source[metric])),
            "hovertemplate": f"{name} %{{x}}: %{{y:{number_format(metric)}}}",
        }
        for metric in metrics
    }


def plain(values: pd.Series) -> list[float | None]:
    """Numbers for Plotly's JSON, None where undefined."""
    return [None if np.isnan(value) else rounded(value) for value in values.to_numpy(np.float64)]


def rounded(value: float) -> float:
    """Five digits: more than a picture shows, and half of the page's size."""
    return float(f"{value:.5g}")
