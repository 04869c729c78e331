"""The tables `look_ahead_probes` and `strategy_probes`: results of look-ahead tests.

The first has them by version of all code, the second by version of a strategy and parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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


def read_verdicts(
    connection: Connection, code_versions: Sequence[str], params_hashes: Sequence[str]
) -> dict[tuple[str, str], str | None]:
    """Leaks by code version and hash of the parameters, None where nothing looked ahead.

    Verdicts on other parameters than these are returned only where they are leaks.
    """
    rows = connection.execute(
        text("""
            SELECT code_version, params_hash, leak FROM strategy_probes
            WHERE code_version = ANY(:codes) AND (leak IS NOT NULL OR params_hash = ANY(:hashes))
        """),
        {"codes": list(code_versions), "hashes": list(params_hashes)},
    )
    return {(code, params_hash): leak for code, params_hash, leak in rows}


def record_verdicts(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store verdicts; a leak stays one, whatever another probe of the same code finds.

    Args:
        connection: its transaction makes the rows appear.
        rows: columns of `strategy_probes` but `probed_at`; `params` as a mapping.
    """
    connection.execute(
        text("""
            INSERT INTO strategy_probes (code_version, params_hash, strategy, params, leak)
            VALUES (:code_version, :params_hash, :strategy, CAST(:params AS jsonb), :leak)
            ON CONFLICT (code_version, params_hash)
            DO UPDATE SET leak = excluded.leak, probed_at = now() WHERE strategy_probes.leak IS NULL
        """),
        [{**row, "params": json.dumps(row["params"], allow_nan=False)} for row in rows],
    )
