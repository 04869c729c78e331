"""SVG for every width of page, without a script: one drawing, whose text stays readable.

The outer picture has no viewBox: labels and marks stand at percents of its width and keep their
size. Paths lie in an inner picture that is stretched to the width, with strokes that are not.
Nothing has a `style` attribute, which a content security policy would refuse; looks are classes of
`templates/run_report.css`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from backtest_pipeline.report.number_formats import short
from backtest_pipeline.report.run_report.scales import TimeScale, ValueScale
from backtest_pipeline.report.thinning import thinned_rows

_WIDE, _HIGH = 2000, 1000
_MOST_POINTS = 1000  # a screen has about two for each; more would only cost bytes
_BELOW = 22


class LegendKey(NamedTuple):
    """An entry of a chart's legend: a class that has its colour, and its name."""

    css: str
    text: str


def chart(
    body: Iterable[str],
    label: str,
    height: int,
    y: ValueScale,
    x: TimeScale | None = None,
    *,
    percent: bool = False,
    values: bool = True,
    keys: Sequence[LegendKey] = (),
) -> str:
    """A chart with its axes and legend.

    Args:
        body: parts of this module, drawn in order.
        label: the finding in a sentence, for those who cannot see it.
        height: pixels of the drawing without its axis.
        y, x: the scales; without `x` there are no dates below.
        percent: whether values are fractions, shown in percent.
        values: whether the axis of values is drawn.
        keys: the legend; none without.
    """
    whole = height + (_BELOW if x else 4)
    axes = [*(_value_axis(y, percent) if values else ()), *(_time_axis(x, height) if x else ())]
    return (
        '<div class="c">'
        f'<svg role="img" aria-label="{escape(label)}" width="100%" height="{whole}">'
        f"{''.join(axes)}{''.join(body)}</svg></div>{legend(keys)}"
    )


def legend(keys: Sequence[LegendKey]) -> str:
    """A chart's legend as HTML."""
    if not keys:
        return ""
    entries = "".join(f'<span><i class="{key.css}"></i>{escape(key.text)}</span>' for key in keys)
    return f'<p class="key">{entries}</p>'


def _value_axis(y: ValueScale, percent: bool) -> Iterable[str]:
    for tick in y.ticks(max(3, int(y.height // 34))):
        at = float(y.y(tick))
        css = "z" if tick == 0 else "g"
        text = f"{short(round(100 * tick, 9))}%" if percent else short(tick)
        yield (
            f'<line class="{css}" x1="0" x2="100%" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="a" x="-8" y="{at + 4:.1f}" text-anchor="end">{text}</text>'
        )


def _time_axis(x: TimeScale, height: int) -> Iterable[str]:
    ticks = x.ticks()
    for position, (ts, name) in enumerate(ticks):
        at = float(x.x(ts))
        anchor = "start" if at < 3 else "end" if at > 97 else "middle"
        # A phone has room for every second one.
        css = "a m" if position % 2 and len(ticks) > 4 else "a"
        yield (
            f'<line class="g v" x1="{at:.2f}%" x2="{at:.2f}%" y1="0" y2="{height}"/>'
            f'<text class="{css}" x="{at:.2f}%" y="{height + 17}" text-anchor="{anchor}">'
            f"{name}</text>"
        )


def stretched(paths: Iterable[str], height: float) -> str:
    """Paths of `line` and `area` in one picture that is stretched to the width."""
    return (
        f'<svg width="100%" height="{height:g}" viewBox="0 0 {_WIDE} {_HIGH}" '
        f'preserveAspectRatio="none" aria-hidden="true">{"".join(paths)}</svg>'
    )


def line(ts: np.ndarray, values: np.ndarray, x: TimeScale, y: ValueScale, css: str) -> str:
    """A curve over time, thinned so that none of its peaks and valleys is lost."""
    known = np.isfinite(values)
    ts, values = ts[known], values[known]
    if not len(values):
        return ""
    rows = thinned_rows([values], _MOST_POINTS)
    return f'<path class="{css}" d="M{_points(ts[rows], values[rows], x, y)}"/>'


def area(
    ts: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    x: TimeScale,
    y: ValueScale,
    css: str,
    most: int = _MOST_POINTS,
) -> str:
    """What lies between two curves over the same stamps, thinned by both."""
    if not len(ts):
        return ""
    rows = thinned_rows([low, high], most)
    there = _points(ts[rows], high[rows], x, y)
    back = _points(ts[rows][::-1], low[rows][::-1], x, y)
    return f'<path class="{css}" d="M{there}L{back}z"/>'


def _points(ts: np.ndarray, values: np.ndarray, x: TimeScale, y: ValueScale) -> str:
    across = np.round(x.x(ts) * (_WIDE / 100)).astype(int).tolist()
    down = np.round(y.y(values) * (_HIGH / y.height)).astype(int).tolist()
    return " ".join(f"{a} {b}" for a, b in zip(across, down, strict=True))


def mark(shape: str, x_percent: float, y_pixels: float, css: str, title: str = "") -> str:
    """A mark that keeps its shape: `up`, `down`, `exit`, `open`, `dot`, `tick` of the template."""
    about = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<use href="#{shape}" class="{css}" x="{x_percent:.2f}%" y="{y_pixels:.1f}">{about}</use>'
    )


def note(x_percent: float, y_pixels: float, text: str) -> str:
    """A few words at a place of the drawing, on the side of it where there is room."""
    anchor = "start" if x_percent < 70 else "end"
    return (
        f'<text class="t" x="{x_percent:.2f}%" y="{y_pixels:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def hover(left: float, width: float, height: float, title: str) -> str:
    """A stretch of the width that shows its figures under the pointer."""
    return (
        f'<rect class="h" x="{left:.2f}%" width="{width:.2f}%" y="0" height="{height:g}">'
        f"<title>{escape(title)}</title></rect>"
    )


def bar(
    left: float, width: float, value: float, y: ValueScale, css: str, title: str, base: float = 0.0
) -> str:
    """A bar from the base to a value; left and width in percent."""
    top, bottom = sorted((float(y.y(value)), float(y.y(base))))
    return (
        f'<rect class="{css}" x="{left:.2f}%" width="{width:.2f}%" y="{top:.1f}" '
        f'height="{max(bottom - top, 0.6):.1f}"><title>{escape(title)}</title></rect>'
    )


def below_bar(at: float, height: float, text: str, *, hidden_on_phones: bool = False) -> str:
    """A label of the axis below bars."""
    css = "a m" if hidden_on_phones else "a"
    return (
        f'<text class="{css}" x="{at:.2f}%" y="{height + 17:g}" text-anchor="middle">'
        f"{escape(text)}</text>"
    )
