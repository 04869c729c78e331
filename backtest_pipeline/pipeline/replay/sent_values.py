"""How a replay's worker writes curves and numbers into its response."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from backtest_pipeline.simulation.marks import Marks


def sent_curve(marks: Marks, values: np.ndarray, series: bool) -> dict[str, Any]:
    """A curve as its hash, and its points where `series` is set."""
    curve: dict[str, Any] = {"sha256": curve_hash(values)}
    if series:
        curve |= {
            "ts": marks.ts.tolist(),
            "values": [json_number(value) for value in values.tolist()],
        }
    return curve


def curve_hash(values: np.ndarray) -> str:
    """The sha256 of a curve's values as little-endian float64."""
    return hashlib.sha256(np.ascontiguousarray(values, "<f8").data).hexdigest()


def json_number(value: Any) -> Any:
    """A value for JSON, with NaN as None."""
    return None if isinstance(value, float) and math.isnan(value) else value
