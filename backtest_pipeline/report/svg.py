"""Small line charts as SVG text, for Dagster's metadata and for files."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from backtest_pipeline.market.panel import stamps_us

# The first line is the context of the others, so it is the pale one.
_COLOURS = ("#8b949e", "#1f6feb", "#d29922", "#3fb950", "#f85149", "#a371f7")
_SPARK_POINTS, _SPARK_STEP, _SPARK_HEIGHT = 36, 9, 80
_MOST_POINTS = 240  # a chart is about that many pixels wide; more would only cost bytes


@dataclass(frozen=True)
class Line:
    """One line of a chart: a label and values over time (tz-aware index)."""

    label: str
    values: pd.Series


@dataclass(frozen=True)
class Chart:
    """What to draw: the context first, then what it is about."""

    lines: tuple[Line, ...]
    title: str


def line_chart(
    lines: Sequence[Line], title: str, *, width: int = 640, height: int = 260, log: bool = True
) -> str:
    """Lines over a shared time axis as a self-contained SVG.

    Args:
        lines: each with at least one finite value (others are left out); drawn in order, so put
            the context first.
        title: text above the chart.
        width, height: in pixels.
        log: logarithmic values where all are positive.
    """
    series = [_thinned(pd.Series(line.values[np.isfinite(line.values)])) for line in lines]
    stamps = np.concatenate([stamps_us(s.index, title) for s in series])
    values = np.concatenate([s.to_numpy(np.float64) for s in series])
    log = log and bool((values > 0).all())
    scaled = np.log(values) if log else values
    left, right, top, bottom = 58, 34, 30, 40  # half a date fits to the right of the last tick
    x = _scale(stamps.min(), stamps.max(), left, width - right)
    y = _scale(scaled.min(), scaled.max(), height - bottom, top)

    size = f'width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size} ',
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18" font-size="13" fill="#1f2328">{escape(title)}</text>',
    ]
    for tick in np.linspace(scaled.min(), scaled.max(), 4):
        shown = np.exp(tick) if log else tick
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" '
            'stroke="#d0d7de" stroke-width="0.6"/>'
            f'<text x="{left - 5}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#57606a">'
            f"{_short(shown)}</text>"
        )
    for tick in np.linspace(stamps.min(), stamps.max(), 5):
        day = np.int64(tick).astype("M8[us]").astype("M8[D]")
        parts.append(
            f'<text x="{x(tick):.1f}" y="{height - bottom + 15}" text-anchor="middle" '
            f'fill="#57606a">{day}</text>'
        )
    for i, (line, drawn) in enumerate(zip(lines, series, strict=True)):
        colour = _COLOURS[i % len(_COLOURS)]
        heights = np.log(drawn.to_numpy(np.float64)) if log else drawn.to_numpy(np.float64)
        points = " ".join(
            f"{x(t):.1f},{y(v):.1f}"
            for t, v in zip(stamps_us(drawn.index, title), heights, strict=True)
        )
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.4" points="{points}"/>'
            f'<rect x="{left + 150 * i}" y="{height - 16}" width="10" height="3" '
            f'fill="{colour}"/><text x="{left + 150 * i + 14}" y="{height - 11}" '
            f'fill="#1f2328">{escape(line.label)}</text>'
        )
    return "".join([*parts, "</svg>"])


def sparkline(lines: Sequence[Line]) -> str:
    """Lines without axes in an SVG of at most 700 bytes, which Dagster shows in the page itself.

    Args:
        lines: as in `line_chart`; at most two, on a logarithmic scale where all are positive.
    """
    thinned = [
        line.values.iloc[np.linspace(0, len(line.values) - 1, _SPARK_POINTS).astype(int)].to_numpy(
            np.float64
        )
        for line in lines
    ]
    values = np.concatenate(thinned)
    if (values > 0).all():
        thinned, values = [np.log(v) for v in thinned], np.log(values)
    y = _scale(values.min(), values.max(), _SPARK_HEIGHT - 1, 1)
    paths = []
    for colour, heights in zip(("#999", "#16e"), thinned, strict=False):
        points = np.array([round(y(v)) for v in heights])
        steps = "".join(f"l{_SPARK_STEP} {step}" for step in np.diff(points))
        paths.append(f'<path stroke="{colour}" d="M0 {points[0]}{steps}"/>')
    width = _SPARK_STEP * (_SPARK_POINTS - 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_SPARK_HEIGHT}" '
        f'fill="none">{"".join(paths)}</svg>'
    )


def svg_markdown(svg: str, alt: str) -> str:
    """An SVG as a Markdown image that needs no file."""
    alt = alt.translate({ord(bracket): None for bracket in "[]"})
    return f"![{alt}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _thinned(values: pd.Series) -> pd.Series:
    if len(values) <= _MOST_POINTS:
        return values
    rows = np.unique(np.linspace(0, len(values) - 1, _MOST_POINTS).astype(int))
    return values.iloc[rows]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
