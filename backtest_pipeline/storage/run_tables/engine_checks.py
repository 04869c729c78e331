"""The table `engine_checks`: which runs vectorbt has followed, and whether it agreed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from backtest_pipeline.simulation.vectorbt_engine.library import VECTORBT_VERSION
from backtest_pipeline.storage.run_tables.runs import with_provenance

_RUNS = """
    FROM visible_runs r JOIN backtest_metrics m USING (run_id)
    LEFT JOIN engine_checks c ON (c.run_id, c.fingerprint, c.engine_version)
        = (r.run_id, r.result_fingerprint, :engine_version)
    WHERE r.is_current AND r.status = 'completed' AND r.split IN ('full', 'walk_forward')
"""
_VERSION = {"engine_version": VECTORBT_VERSION}
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
    """How far the current runs are checked by the vectorbt of this version.

    Attributes:
        runs: number of current runs, those of plan books apart.
        agrees, differs: number of runs with this verdict.
        not_followed: number of runs that assume what vectorbt does not know, by the reason, most
            frequent first.
        worst: the largest relative difference; None before the first check.
        disagreeing: `signal on asset|timeframe` of the runs that differ, at most twenty.
    """

    runs: int = 0
    agrees: int = 0
    differs: int = 0
    not_followed: Mapping[str, int] = field(default_factory=dict)
    worst: float | None = None
    disagreeing: tuple[str, ...] = ()

    @property
    def followed(self) -> float:
        """The share of current runs that vectorbt has followed, a fraction; 0 without runs."""
        return (self.agrees + self.differs) / self.runs if self.runs else 0.0

    @property
    def waiting(self) -> int:
        """Number of current runs that vectorbt has not looked at."""
        return self.runs - self.agrees - self.differs - sum(self.not_followed.values())

    @property
    def told(self) -> str:
        """All of it in one sentence.

        Examples:
            >>> EngineAgreement(9, agrees=4, not_followed={"funding": 3}, worst=1e-15).told
            'vectorbt has followed 4 of 9 current runs: 0 differ, the largest relative difference \
is 1e-15; 3 are not followed (3 funding); 2 wait for job second_opinion'
        """
        checked, skipped = self.agrees + self.differs, sum(self.not_followed.values())
        worst = (
            "" if self.worst is None else f", the largest relative difference is {self.worst:.2g}"
        )
        why = ", ".join(f"{n:,} {reason}" for reason, n in self.not_followed.items())
        return (
            f"vectorbt has followed {checked:,} of {self.runs:,} current runs: "
            f"{self.differs:,} differ{worst}; {skipped:,} are not followed"
            f"{f' ({why})' if why else ''}; {self.waiting:,} wait for job second_opinion"
        )


def runs_to_check(
    connection: Connection, among: Sequence[UUID] | None = None
) -> list[dict[str, Any]]:
    """Current runs, those of plan books apart, whose result is not known to agree.

    Those are new ones, those that another version of vectorbt was asked about, and those that
    differed when they were checked; in a stable order. Only `among` these, where given.

    Columns: run_id, name, config, results, total_return and result_fingerprint.

    Raises:
        ProvenanceMissing: for a run without recorded inputs.
    """
    query = f"""
        SELECT r.run_id, r.signal_name || ' on ' || r.symbol || '|' || r.tf AS name, r.config,
               r.results, r.snapshot_id, r.dataset_version_ids, r.result_fingerprint,
               m.total_return
        {_RUNS} AND coalesce(c.verdict, 'differs') = 'differs'
        AND (CAST(:among AS uuid[]) IS NULL OR r.run_id = ANY(CAST(:among AS uuid[])))
        ORDER BY r.tf, r.signal_name, r.symbol, r.run_id
    """
    bound = {**_VERSION, "among": None if among is None else list(among)}
    return with_provenance(connection.execute(text(query), bound).mappings())


def record_checks(connection: Connection, checks: Sequence[EngineCheck]) -> set[UUID]:
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
            **_VERSION,
        },
    )
    return set(recorded.scalars())


def engine_agreement(connection: Connection) -> EngineAgreement:
    """How far the current runs are checked, and what differs."""
    query = f"""
        SELECT c.verdict, c.reason, count(*) AS runs, max(c.difference) AS worst,
               (array_agg(r.signal_name || ' on ' || r.symbol || '|' || r.tf
                          ORDER BY c.difference DESC, r.run_id))[1:{_BY_NAME}] AS names
        {_RUNS} GROUP BY c.verdict, c.reason ORDER BY count(*) DESC, c.reason
    """
    rows = connection.execute(text(query), _VERSION).all()
    followed = {row.verdict: row for row in rows if row.verdict in ("agrees", "differs")}
    differing = followed.get("differs")
    return EngineAgreement(
        runs=sum(row.runs for row in rows),
        agrees=followed["agrees"].runs if "agrees" in followed else 0,
        differs=differing.runs if differing else 0,
        not_followed={row.reason: row.runs for row in rows if row.verdict == "not_followed"},
        worst=max((row.worst for row in followed.values()), default=None),
        disagreeing=tuple(differing.names) if differing else (),
    )
