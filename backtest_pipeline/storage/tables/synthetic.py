"""Synthetic assets: which there are, and which stay out of what is made of real ones."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

_SYNTHETIC = "SELECT symbol FROM dim_assets WHERE is_synthetic AND symbol = ANY(:symbols)"
REAL_RUNS = """EXISTS (
    SELECT FROM dataset_versions v JOIN dim_assets real USING (id)
    WHERE v.dataset = 'backtests' AND NOT real.is_synthetic)"""
"""Whether the store has runs of an asset that is not synthetic."""
LEFT_OUT = f"SELECT symbol FROM dim_assets WHERE is_synthetic AND {REAL_RUNS}"  # noqa: S608 - our own
"""The symbols that stay out of what is made of many assets: the synthetic ones beside real runs."""


def synthetic_among(connection: Connection, symbols: Sequence[str]) -> list[str]:
    """The symbols with synthetic bars."""
    rows = connection.execute(
        text(_SYNTHETIC),
        {"symbols": list(symbols)},
    )
    return list(rows.scalars())


def synthetic_beside_real(connection: Connection, symbols: Sequence[str]) -> set[str]:
    """The symbols with synthetic bars, if the store has runs of real assets; else none."""
    rows = connection.execute(
        text(f"{LEFT_OUT} AND symbol = ANY(:symbols)"),
        {"symbols": list(symbols)},
    )
    return set(rows.scalars())
