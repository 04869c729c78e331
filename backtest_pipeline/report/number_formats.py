"""How metrics are written on pages and in sentences."""

from __future__ import annotations

import math

from backtest_pipeline.simulation.metrics.metrics import METRICS

_UNITS = {metric.name: metric.unit for metric in METRICS}


def number_format(metric: str) -> str:
    """How a metric is written, as a format of Python and of d3 alike."""
    if _UNITS[metric].startswith("fraction"):
        return ".1%"
    return ",.0f" if _UNITS[metric] in ("trades", "days", "quote currency") else ".2f"


def shown(metric: str, value: float | None) -> str:
    """A metric's value as text; a dash where it is undefined."""
    return "-" if value is None or math.isnan(value) else format(value, number_format(metric))
