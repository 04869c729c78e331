"""The table `strategy_probes`: look-ahead verdicts by version of a strategy and parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text


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
