"""Selects and deletes the rows that retention removes.

Every function must run in a transaction that holds the removal lock, see
`storage.postgres.removals`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, text

# The top-level artifact folders that only this package writes.
KINDS = (
    *("bars", "code", "columns", "features", "funding", "portfolios", "robustness", "runs"),
    "signals",
    "transcripts",
)
_FAR_AHEAD = datetime(9999, 1, 1, tzinfo=UTC)

# Runs and portfolios to keep, each with the reason; members of kept portfolios are kept.
_HELD = """
    held AS MATERIALIZED (
        SELECT run_id, 'is pinned' AS why FROM run_pins
        UNION ALL
        SELECT r.run_id, 'is of the last refresh of ' || r.symbol || '|' || r.tf
        FROM dataset_versions v JOIN backtest_runs r
            ON r.artifact_uri = ANY (v.uris) AND r.id = v.id AND r.tf = v.tf
        WHERE v.dataset IN ('backtests', 'walk_forward')
        UNION ALL
        SELECT r.run_id, 'is the current run of plan book ' || r.book
        FROM backtest_runs r JOIN plan_books b ON b.name = r.book WHERE r.is_current
        UNION ALL
        SELECT unnest(member_run_ids), 'is a member of portfolio ' || run_id FROM portfolio_runs
        WHERE is_current OR completed_at >= :cutoff OR run_id IN (SELECT run_id FROM run_pins)
        UNION ALL
        SELECT unnest(result_run_ids), 'is a result of job ' || job_id FROM backtest_jobs
        WHERE status IN ('pending', 'running') OR completed_at >= :cutoff
        UNION ALL
        SELECT unnest(u.run_ids), 'is a result of job ' || job_id
        FROM backtest_job_units u JOIN backtest_jobs j USING (job_id)
        WHERE j.status IN ('pending', 'running') OR j.completed_at >= :cutoff
    )"""
_ENDED = "status IN ('completed', 'failed', 'cancelled') AND completed_at IS NOT NULL"


def capture_aged(connection: Connection, cutoff: datetime) -> int:
    """Mark runs that ended before the cutoff and need not be kept, which hides them from readers.

    Returns:
        The number of runs marked.
    """
    captured = connection.execute(
        text(f"""
            WITH {_HELD}
            UPDATE backtest_runs r SET deleting_since = now()
            WHERE r.deleting_since IS NULL AND {_ENDED} AND r.completed_at < :cutoff
                AND NOT EXISTS (SELECT FROM held h WHERE h.run_id = r.run_id)
        """),  # noqa: S608 - our own literals
        {"cutoff": cutoff},
    )
    return captured.rowcount


def reasons_to_keep(connection: Connection, run_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The reason why each run must be kept, by id; runs that may be deleted are left out.

    Portfolios that are neither current nor pinned are not a reason, whatever their age.
    """
    rows = connection.execute(
        text(f"""
            WITH {_HELD}
            SELECT run_id, max(why) AS why FROM held WHERE run_id = ANY(:run_ids) GROUP BY run_id
            UNION ALL
            SELECT run_id, 'is ' || status FROM visible_runs
            WHERE run_id = ANY(:run_ids) AND NOT ({_ENDED})
        """),  # noqa: S608 - our own literals
        {"run_ids": list(run_ids), "cutoff": _FAR_AHEAD},
    )
    return {row.run_id: row.why for row in rows}


def capture(connection: Connection, run_ids: Sequence[UUID]) -> None:
    """Mark these runs for deletion, which hides them from readers."""
    connection.execute(
        text("""
            UPDATE backtest_runs SET deleting_since = now()
            WHERE run_id = ANY(:run_ids) AND deleting_since IS NULL
        """),
        {"run_ids": list(run_ids)},
    )


@dataclass(frozen=True)
class CapturedFolder:
    """An artifact directory of marked runs; `shared` if runs that stay use it too."""

    uri: str
    shared: bool


def captured_folders(
    connection: Connection, after: str = "", most: int | None = None
) -> list[CapturedFolder]:
    """Artifact directories of marked runs in order of uri, after the given uri."""
    rows = connection.execute(
        text("""
            SELECT c.artifact_uri AS uri,
                   EXISTS (SELECT FROM visible_runs v WHERE v.artifact_uri = c.artifact_uri)
                       AS shared
            FROM (SELECT DISTINCT artifact_uri FROM backtest_runs
                  WHERE deleting_since IS NOT NULL AND artifact_uri > :after
                  ORDER BY artifact_uri LIMIT :most) c
            ORDER BY uri
        """),
        {"after": after, "most": most},
    )
    return [CapturedFolder(row.uri, row.shared) for row in rows]


def delete_captured(connection: Connection, uris: Sequence[str]) -> int:
    """Delete the marked runs whose artifacts were in these directories; returns how many.

    Deletes their trades, metrics, robustness, folds, restatement effects and requests too. Pins and
    quarantines by id are kept, and so is the trial ledger.
    """
    n = connection.scalar(
        text("""
            WITH gone AS (
                DELETE FROM backtest_runs
                WHERE deleting_since IS NOT NULL AND artifact_uri = ANY(:uris) RETURNING run_id
            ), requests AS (
                DELETE FROM run_requests WHERE run_id IN (SELECT run_id FROM gone)
            ), folds AS (
                DELETE FROM walk_forward_folds WHERE run_id IN (SELECT run_id FROM gone)
            )
            SELECT count(*) FROM gone
        """),
        {"uris": list(uris)},
    )
    return int(n or 0)


_AGED = {
    "portfolios": """
        DELETE FROM portfolio_runs p WHERE NOT is_current AND completed_at < :cutoff
            AND NOT EXISTS (SELECT FROM held h WHERE h.run_id = p.run_id)""",
    # Folds of abandoned walk-forwards: folds are stored before their run is.
    "folds": """
        DELETE FROM walk_forward_folds f WHERE computed_at < :cutoff
            AND NOT EXISTS (SELECT FROM backtest_runs r WHERE r.run_id = f.run_id)""",
    "jobs": """
        DELETE FROM backtest_jobs j WHERE completed_at < :cutoff
            AND NOT EXISTS (SELECT FROM run_pins p WHERE p.run_id = ANY (j.result_run_ids))
            AND NOT EXISTS (SELECT FROM backtest_job_units u JOIN run_pins p
                            ON p.run_id = ANY (u.run_ids) WHERE u.job_id = j.job_id)""",
    # Columns of a user's own, and ranks, that no stored result reads any more: a set for each
    # expression that was ever ranked would stay. Who asks again computes it again.
    "column_sets": """
        DELETE FROM dataset_versions v USING dim_assets a
        WHERE a.id = v.id AND v.dataset LIKE 'columns:%' AND v.updated_at < :cutoff
            AND NOT EXISTS (SELECT FROM used u WHERE u.key = input_key(a.symbol, v.tf, v.dataset))
        """,
    # Versions that were replaced before the cutoff and that no stored result was made from.
    "snapshots": """
        DELETE FROM dataset_snapshots s
        USING dim_assets a
        WHERE a.id = s.id
            AND NOT EXISTS (SELECT FROM dataset_versions v WHERE (v.dataset, v.id, v.tf, v.version)
                                                             = (s.dataset, s.id, s.tf, s.version))
            AND (EXISTS (SELECT FROM dataset_snapshots n
                         WHERE (n.dataset, n.id, n.tf) = (s.dataset, s.id, s.tf)
                             AND n.current_since > s.current_since
                             AND n.current_since < least(:cutoff, now() - interval '1 day'))
                OR s.dataset LIKE 'columns:%'
                    AND s.current_since < least(:cutoff, now() - interval '1 day')
                    AND NOT EXISTS (SELECT FROM dataset_versions v
                                    WHERE (v.dataset, v.id, v.tf) = (s.dataset, s.id, s.tf)))
            AND NOT EXISTS (SELECT FROM used u
                            WHERE u.version = s.version
                                AND u.key = input_key(a.symbol, s.tf, s.dataset))""",
    # Of histories that nobody can compare any more: with its snapshot one would be found again.
    "restatements": """
        DELETE FROM restatements r WHERE found_at < :cutoff
            AND NOT EXISTS (SELECT FROM restatement_effects e
                            WHERE e.restatement_id = r.restatement_id)
            AND NOT EXISTS (SELECT FROM dataset_snapshots s
                            WHERE s.dataset = 'features'
                                AND (s.id, s.tf, s.version) = (r.id, r.tf, r.version_before))""",
    "environments": """
        DELETE FROM environments e WHERE recorded_at < :cutoff
            AND NOT EXISTS (SELECT FROM backtest_runs r
                            WHERE r.environment_hash = e.environment_hash)
            AND NOT EXISTS (SELECT FROM portfolio_runs p
                            WHERE p.environment_hash = e.environment_hash)""",
}
_AGED |= {
    # A trigger that was answered does not come again: its key is of a time that has passed.
    "replan_requests": """
        DELETE FROM replan_requests WHERE status <> 'waiting' AND completed_at < :cutoff""",
    "model_usage": """
        DELETE FROM model_usage WHERE day < least(:cutoff, now() - interval '2 days')::date""",
}
_USED = """
    used AS MATERIALIZED (
        SELECT u.key, u.value AS version
        FROM (SELECT dataset_version_ids AS ids FROM backtest_runs
              UNION ALL SELECT dataset_version_ids FROM portfolio_runs
              WHERE dataset_version_ids IS NOT NULL) r
        CROSS JOIN LATERAL jsonb_each_text(r.ids) u
        GROUP BY 1, 2
    )"""


def delete_aged(connection: Connection, cutoff: datetime) -> dict[str, int]:
    """Delete rows that are no longer needed after runs were deleted; returns counts by kind.

    Portfolios that are not current, folds of abandoned walk-forwards and ended jobs are deleted if
    older than the cutoff; column sets, snapshots and environments if no stored result was made from
    them; restatements if the history before them is gone.
    """
    return {
        kind: connection.execute(
            text(f"WITH {_HELD}, {_USED} {statement}"),
            {"cutoff": cutoff},
        ).rowcount
        for kind, statement in _AGED.items()
    }


def referred_to(connection: Connection) -> set[str]:
    """The uris of all artifacts (files and directories) that rows name."""
    rows = connection.execute(
        text("""
            SELECT artifact_uri FROM backtest_runs
            UNION SELECT code_archive FROM backtest_runs
            UNION SELECT regexp_replace(code_archive, '\\.zip$', '') FROM backtest_runs
            UNION SELECT 'funding/' || (config ->> 'funding') FROM backtest_runs
            UNION SELECT 'transcripts/' || transcript || '.json' FROM plans
            UNION SELECT 'transcripts/' || transcript || '.json' FROM plan_log
            UNION SELECT 'transcripts/' || opinion || '.json' FROM plan_log
            UNION SELECT 'transcripts/' || transcript || '.json' FROM replan_requests
            UNION SELECT artifact_uri FROM run_robustness
            UNION SELECT artifact_uri FROM portfolio_runs
            UNION SELECT unnest(uris) FROM dataset_versions
            UNION SELECT unnest(uris) FROM dataset_snapshots
        """)
    )
    return {uri for uri in rows.scalars() if uri is not None}


def stored_by_rows(connection: Connection) -> set[str]:
    """The uris of all artifacts that rows need; extracted archives are made anew when needed."""
    known = referred_to(connection)
    return {uri for uri in known if f"{uri}.zip" not in known}


def unreferred(candidates: Collection[str], known: Collection[str]) -> list[str]:
    """The candidates that are neither in `known` nor inside a directory that is."""

    def is_known(uri: str) -> bool:
        parts = uri.split("/")
        return any("/".join(parts[:n]) in known for n in range(1, len(parts) + 1))

    return [uri for uri in candidates if not is_known(uri)]
