"""The table `run_bands`: one row for each run whose 90 % band was computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

COLUMNS = (
    *("bands_version", "draws", "seed", "total_return_low", "total_return_high", "sharpe_low"),
    *("sharpe_high", "max_drawdown_low", "max_drawdown_high", "days", "p05", "p25", "p75", "p95"),
)


def store_bands(connection: Connection, run_id: UUID, bands: Mapping[str, Any]) -> None:
    """Store the band of a run, COLUMNS by name, in place of an older one.

    A run that was deleted meanwhile has none.
    """
    names = ", ".join(COLUMNS)
    given = ", ".join(f":{name}" for name in COLUMNS)
    changes = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS)
    connection.execute(
        text(f"""
            WITH run AS (SELECT run_id FROM backtest_runs WHERE run_id = :run_id FOR KEY SHARE)
            INSERT INTO run_bands (run_id, {names}) SELECT run_id, {given} FROM run
            ON CONFLICT (run_id) DO UPDATE SET {changes}
        """),  # noqa: S608 - our own literals
        {"run_id": run_id, **{name: bands[name] for name in COLUMNS}},
    )


def stored_bands(connection: Connection, run_id: UUID) -> dict[str, Any] | None:
    """The band of a run, COLUMNS by name; None where it was not computed."""
    rows = connection.execute(
        text("SELECT * FROM run_bands WHERE run_id = :run_id"), {"run_id": run_id}
    )
    row = rows.mappings().one_or_none()
    return dict(row) if row else None
