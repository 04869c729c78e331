"""The table `engine_checks`: which runs vectorbt has followed, and whether it agreed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from backtest_pipeline.storage.run_tables.runs import with_provenance

_RUNS = """
    FROM visible_runs r JOIN backtest_metrics m USING (run_id)
    LEFT JOIN engine_checks c ON (c.run_id, c.fingerprint) = (r.run_id, r.result_fingerprint)
    WHERE r.is_current AND r.status = 'completed' AND r.split IN ('full', 'walk_forward')
"""
_BY_NAME = 20


@dataclass(frozen=True)
class EngineCheck:
    """What vectorbt came to of one run; the fields are columns of `engine_checks`."""

    run_id: UUID
    fingerprint: str
    verdict: str
    reason: str | None
    difference: float | None


@dataclass(frozen=True)
class EngineAgreement:
    """How far the current runs are checked.

    Attributes:
        runs: number of current runs, those of plan books apart.
        agrees, differs, not_followed: number of runs with this verdict; the rest waits.
        worst: the largest relative difference; None before the first check.
        disagreeing: `signal on asset|timeframe` of the runs that differ, at most twenty.
    """

    runs: int = 0
    agrees: int = 0
    differs: int = 0
    not_followed: int = 0
    worst: float | None = None
    disagreeing: tuple[str, ...] = ()

    @property
    def followed(self) -> float:
        """The share of current runs that vectorbt has followed, a fraction; 0 without runs."""
        return (self.agrees + self.differs) / self.runs if self.runs else 0.0


def runs_to_check(connection: Connection) -> list[dict[str, Any]]:
    """Current runs, those of plan books apart, whose result is not known to agree.

    Those are new ones, and those that differed when they were checked; in a stable order.

    Columns: run_id, name, config, results, total_return and result_fingerprint.

    Raises:
        ProvenanceMissing: for a run without recorded inputs.
    """
    query = f"""
        SELECT r.run_id, r.signal_name || ' on ' || r.symbol || '|' || r.tf AS name, r.config,
               r.results, r.snapshot_id, r.dataset_version_ids, r.result_fingerprint,
               m.total_return
        {_RUNS} AND coalesce(c.verdict, 'differs') = 'differs'
        ORDER BY r.tf, r.signal_name, r.symbol, r.run_id
    """
    return with_provenance(connection.execute(text(query)).mappings())


def record_checks(
    connection: Connection, checks: Sequence[EngineCheck], engine_version: str
) -> set[UUID]:
    """Remember checks, and return of which runs; one that is gone in the meantime is left out."""
    recorded = connection.execute(
        text("""
            INSERT INTO engine_checks
                (run_id, fingerprint, verdict, reason, difference, engine_version)
            SELECT r.run_id, n.fingerprint, n.verdict, n.reason, n.difference, :engine_version
            FROM unnest(CAST(:run_ids AS uuid[]), CAST(:fingerprints AS text[]),
                        CAST(:verdicts AS text[]), CAST(:reasons AS text[]),
                        CAST(:differences AS float8[]))
                AS n (run_id, fingerprint, verdict, reason, difference)
            JOIN backtest_runs r USING (run_id) ORDER BY r.run_id FOR KEY SHARE OF r
            ON CONFLICT (run_id) DO UPDATE SET fingerprint = excluded.fingerprint,
                verdict = excluded.verdict, reason = excluded.reason,
                difference = excluded.difference, engine_version = excluded.engine_version,
                checked_at = now()
            RETURNING run_id
        """),
        {
            "run_ids": [check.run_id for check in checks],
            "fingerprints": [check.fingerprint for check in checks],
            "verdicts": [check.verdict for check in checks],
            "reasons": [check.reason for check in checks],
            "differences": [check.difference for check in checks],
            "engine_version": engine_version,
        },
    )
    return set(recorded.scalars())


def engine_agreement(connection: Connection) -> EngineAgreement:
    """How far the current runs are checked, and what differs."""
    query = f"""
        SELECT count(*) AS runs, count(*) FILTER (WHERE c.verdict = 'agrees') AS agrees,
               count(*) FILTER (WHERE c.verdict = 'differs') AS differs,
               count(*) FILTER (WHERE c.verdict = 'not_followed') AS not_followed,
               max(c.difference) AS worst,
               (array_agg(r.signal_name || ' on ' || r.symbol || '|' || r.tf
                          ORDER BY c.difference DESC, r.run_id)
                    FILTER (WHERE c.verdict = 'differs'))[1:{_BY_NAME}] AS names
        {_RUNS}
    """
    row = connection.execute(text(query)).one()
    return EngineAgreement(
        row.runs, row.agrees, row.differs, row.not_followed, row.worst, tuple(row.names or ())
    )
