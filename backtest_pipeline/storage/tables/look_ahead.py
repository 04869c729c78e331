"""The table `look_ahead_probes`: results of look-ahead tests by version of the code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text


def record_probe(connection: Connection, row: Mapping[str, Any]) -> None:
    """Store a test result, replacing an earlier one of the same code, source and seed.

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
    """The newest test result of this code on bars of this source; None without any."""
    rows = connection.execute(
        text("""
            SELECT * FROM look_ahead_probes WHERE code_version = :code AND source = :source
            ORDER BY probed_at DESC, seed LIMIT 1
        """),
        {"code": code_version, "source": source},
    )
    row = rows.mappings().one_or_none()
    return dict(row) if row else None
