"""Equity curves of some assets."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

NAN = np.nan


def days(*texts: str) -> np.ndarray:
    return np.array(texts, "M8[us]").astype(np.int64)


@st.composite
def markets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Equity curves with listings, deaths and total losses, over some months of days."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_assets, n_times = draw(st.integers(1, 6)), draw(st.integers(2, 150))
    ts = days("2023-11-20")[0] + np.arange(n_times) * 86_400_000_000
    curves = np.exp(np.cumsum(rng.normal(0, 0.05, (n_assets, n_times)), axis=1))
    for i in range(n_assets):
        if draw(st.booleans()):
            curves[i, : draw(st.integers(0, n_times - 1))] = NAN
        if draw(st.booleans()):
            curves[i, draw(st.integers(1, n_times)) :] = NAN
        if draw(st.booleans()):
            curves[i, draw(st.integers(1, n_times)) :] *= 0
        hole = draw(st.integers(0, n_times))
        curves[i, hole : hole + draw(st.integers(0, 12))] = NAN
    curves[0] = np.exp(np.cumsum(rng.normal(0, 0.05, n_times)))
    return curves, ts
