"""Which code was probed for look-ahead, and what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text


def record_probe(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store a probe in the place of an earlier one of the same code, source and seed.

    Args:
        connection: its transaction makes the row appear.
        row: columns of `look_ahead_probes` but `probed_at`; `leaks` as a list of objects.
    """
    names = list(row)
    values = ", ".join(f"CAST(:{n} AS jsonb)" if n == "leaks" else f":{n}" for n in names)
    updates = ", ".join(f"{name} = excluded.{name}" for name in names)
    connection.execute(
        text(
            f"INSERT INTO look_ahead_probes ({', '.join(names)}) VALUES ({values})"  # noqa: S608
            f" ON CONFLICT (code_version, source, seed) DO UPDATE SET {updates}, probed_at = now()"
        ),
        {**row, "leaks": json.dumps(row["leaks"], allow_nan=False)},
    )


def last_probe(connection: Connection, code_version: str, source: str) -> dict[str, Any] | None:
    """The newest probe of this code on bars of this source; None where there is none."""
    row = connection.execute(
        text("""
            SELECT * FROM look_ahead_probes WHERE code_version = :code AND source = :source
            ORDER BY probed_at DESC, seed LIMIT 1
        """),
        {"code": code_version, "source": source},
    )
    found = row.mappings().one_or_none()
    return dict(found) if found else None
