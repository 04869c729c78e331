"""Sweeps as an interactive Plotly figure: a heat map, and a curve for each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest_pipeline.report.number_formats import number_format
from backtest_pipeline.report.sweep_traces import (
    GREY,
    Trace,
    at_values,
    curve_traces,
    heat_traces,
    rounded,
)
from backtest_pipeline.research.robustness.neighbourhood import LOWER_IS_BETTER, Neighbourhood

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_INK, _GRID = "#1f2328", "#eaeef2"
_HEAT_HEIGHT, _CURVE_HEIGHT = 520, 340


def sweep_figure(
    table: pd.DataFrame, metric: str, swept: Sequence[str], surroundings: Neighbourhood
) -> Figure:
    """A heat map of the first two swept parameters, and a curve of each.

    A menu changes the metric, a slider the third parameter; further ones stay at the best
    combination's values.

    Args:
        table: one row per combination, indexed by the parameters, one column per metric.
        metric: shown first; also names the best combination, through which the curves go.
        swept: parameters with more than one value, at least one.
        surroundings: says which combination is the best.
    """
    from plotly.subplots import make_subplots

    best = dict(zip(table.index.names, table.index[surroundings.best], strict=True))
    metrics = [str(name) for name in table.columns if np.isfinite(table[name].to_numpy()).any()]
    slices = _slices(table, swept, best) if len(swept) > 1 else {}
    heat = [
        trace
        for label, part in slices.items()
        for trace in heat_traces(part, metrics, swept, visible=label == _label(best, swept))
    ]
    curves_row = 2 if slices else 1
    curves = [
        trace
        for column, name in enumerate(swept, start=1)
        for trace in curve_traces(table, metrics, name, best, (curves_row, column))
    ]
    figure = make_subplots(
        rows=curves_row,
        cols=len(swept),
        specs=[
            *([[{"colspan": len(swept)}, *[None] * (len(swept) - 1)]] if slices else []),
            [{} for _ in swept],
        ],
        row_heights=[_HEAT_HEIGHT, _CURVE_HEIGHT] if slices else None,
        vertical_spacing=0.1,
        horizontal_spacing=0.05,
    )
    traces = [*heat, *curves]
    for trace in traces:
        figure.add_trace(
            {"type": trace.kind, **trace.fixed, **trace.by_metric[metric]},
            row=trace.cell[0],
            col=trace.cell[1],
        )
    _lay_out(figure, table, metrics, metric, swept, traces, list(slices))
    if len(slices) > 1:
        _add_slider(figure, swept[2], slices, _label(best, swept))
    return figure


def _label(best: Mapping[str, Any], swept: Sequence[str]) -> str:
    return f"{best[swept[2]]:g}" if len(swept) > 2 else ""


def _slices(
    table: pd.DataFrame, swept: Sequence[str], best: Mapping[str, Any]
) -> dict[str, pd.DataFrame]:
    """The combinations of the first two parameters, by the value of the third."""
    part = at_values(table, {name: best[name] for name in swept[3:]})
    if len(swept) == 2:
        return {"": part}
    third = part.index.get_level_values(swept[2])
    return {f"{value:g}": part.loc[third == value] for value in sorted(set(third))}


def _lay_out(
    figure: Figure,
    table: pd.DataFrame,
    metrics: Sequence[str],
    metric: str,
    swept: Sequence[str],
    traces: Sequence[Trace],
    slices: Sequence[str],
) -> None:
    first_curve = 2 if slices else 1
    curve_axes = [
        f"yaxis{n if n > 1 else ''}" for n in range(first_curve, first_curve + len(swept))
    ]
    heat_share = 120 + (_HEAT_HEIGHT if slices else 0) + (60 if len(slices) > 1 else 0)
    figure.update_layout(
        template="plotly_white",
        font={
            "family": "system-ui, -apple-system, Segoe UI, sans-serif",
            "color": _INK,
            "size": 13,
        },
        height=heat_share + _CURVE_HEIGHT,
        margin={"l": 70, "r": 20, "t": 60, "b": 70},
        legend={
            "orientation": "h",
            "yanchor": "top",
            "y": -0.08 if slices else -0.2,
            "x": 0,
            "xanchor": "left",
        },
        hoverlabel={"bgcolor": "white", "font": {"color": _INK}, "align": "left"},
        plot_bgcolor="white",
    )
    figure.update_xaxes(gridcolor=_GRID, zerolinecolor=_GRID, title_standoff=8)
    figure.update_yaxes(gridcolor=_GRID, zerolinecolor=GREY, title_standoff=8)
    for i, (name, axis) in enumerate(zip(swept, curve_axes, strict=True), start=1):
        figure.update_xaxes(title_text=name, row=first_curve, col=i)
        if i > 1:  # one scale, so that the parameter that matters most is the one that moves most
            figure.update_layout(
                {axis: {"matches": curve_axes[0].replace("axis", ""), "showticklabels": False}}
            )
    if slices:
        for update, name in ((figure.update_xaxes, swept[0]), (figure.update_yaxes, swept[1])):
            levels = np.unique(table.index.get_level_values(name))
            update(
                type="category",
                categoryorder="array",
                categoryarray=[f"{value:g}" for value in levels],
                title_text=name,
                showgrid=False,
                row=1,
                col=1,
            )
        bar = {"thickness": 14, "outlinewidth": 0, "len": 0.5, "y": 1, "yanchor": "top"}
        figure.update_layout(coloraxis={"colorbar": bar})
    looks = {name: _look(pd.Series(table[name]), curve_axes, heat=bool(slices)) for name in metrics}
    figure.update_layout(_nested(looks[metric]))
    figure.update_layout(
        updatemenus=[
            {
                "buttons": [
                    {
                        "label": name,
                        "method": "update",
                        "args": [_changes(traces, name), looks[name], list(range(len(traces)))],
                    }
                    for name in metrics
                ],
                "active": metrics.index(metric),
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "bgcolor": "white",
                "bordercolor": "#d0d7de",
                "font": {"size": 11},  # so that the list is no longer than the figure
                "pad": {"b": 4},
            }
        ]
    )


def _changes(traces: Sequence[Trace], metric: str) -> dict[str, list[Any]]:
    """For each attribute that changes with the metric, one value per trace."""
    attributes = dict.fromkeys(name for trace in traces for name in trace.by_metric[metric])
    return {name: [trace.by_metric[metric].get(name) for trace in traces] for name in attributes}


def _look(values: pd.Series, curve_axes: Sequence[str], *, heat: bool) -> dict[str, Any]:
    """Axes and colours of a metric: blue is better, and white is zero where it lies between."""
    form = number_format(str(values.name))
    look: dict[str, Any] = {f"{axis}.tickformat": form for axis in curve_axes}
    look[f"{curve_axes[0]}.title.text"] = values.name
    if not heat:
        return look
    from plotly.colors import get_colorscale

    # One wild combination would turn all the others into one colour.
    low, high = np.nanquantile(values.to_numpy(np.float64), [0.02, 0.98])
    crosses_zero = low < 0 < high
    if crosses_zero:
        high = max(-low, high)
        low = -high
    if low == high:
        low, high = low - 1, high + 1
    name = "RdBu" if crosses_zero else "Blues"
    scale = get_colorscale(f"{name}_r" if values.name in LOWER_IS_BETTER else name)
    return look | {
        "coloraxis.cmin": rounded(low),
        "coloraxis.cmax": rounded(high),
        "coloraxis.colorscale": scale,
        "coloraxis.colorbar.title.text": values.name,
        "coloraxis.colorbar.tickformat": form,
    }


def _nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace(".", "_"): value for name, value in dotted.items()}


def _add_slider(figure: Figure, name: str, slices: Mapping[str, Any], chosen: str) -> None:
    """One step per slice; each slice is a heat map and its marker."""
    steps = [
        {
            "label": label,
            "method": "restyle",
            "args": [{"visible": [label == shown for shown in slices for _ in range(2)]},
                     list(range(2 * len(slices)))],
        }
        for label in slices
    ]  # fmt: skip
    figure.update_layout(
        sliders=[
            {
                "steps": steps,
                "active": list(slices).index(chosen),
                "currentvalue": {"prefix": f"{name} ", "font": {"size": 14}},
                "x": 0.33,
                "len": 0.6,
                "y": 1.0,
                "yanchor": "bottom",
                "pad": {"b": 6},
            }
        ]
    )
