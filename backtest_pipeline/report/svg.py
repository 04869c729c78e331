"""Lines without axes as short SVG text, for Dagster's pages and for notebooks."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

_SPARK_POINTS, _SPARK_STEP, _SPARK_HEIGHT = 36, 9, 80
_MOST_ALT = 40


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


def sparkline(lines: Sequence[Line]) -> str:
    """Lines without axes in an SVG of at most 700 bytes, which Dagster shows in the page itself.

    Args:
        lines: the context first, then what it is about; at most two, on a logarithmic scale where
            all are positive.
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
    """An SVG as a Markdown image that needs no file.

    The text for those who cannot see it is cut to what Dagster shows in the page itself, which is
    fewer than 1,000 characters with the picture.
    """
    alt = alt.translate({ord(bracket): None for bracket in "[]"})[:_MOST_ALT]
    return f"![{alt}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)
