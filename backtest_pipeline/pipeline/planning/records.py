"""Plans of a history as rows of the table `plans`, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.plans.plan import plan_from
from backtest_pipeline.plans.vocabulary import ReplanReason
from backtest_pipeline.storage.plan_tables.plan_history import LoggedPlan
from backtest_pipeline.strategist.known import microseconds_of, stamp_of
from backtest_pipeline.strategist.proposal import Origin, Proposal
from backtest_pipeline.strategist.replans import PlanRecord


def logged(
    record: PlanRecord,
    sequence: int,
    *,
    data: Mapping[str, str],
    made_at: datetime,
) -> LoggedPlan:
    """A record of a history as a row.

    Args:
        record: the plan, and how it came about.
        sequence: its number in the book.
        data: generation of each dataset that was known, by partition.
        made_at: when it was produced, wall clock.
    """
    plan, proposal = record.plan, record.proposal
    return LoggedPlan(
        sequence=sequence,
        plan_id=plan.plan_id,
        plan=plan.document(),
        generated_at=plan.generated_at,
        generated_at_actual=made_at,
        effective_ts=plan.effective_ts,
        valid_until=plan.valid_until,
        replan_reasons=tuple(reason.value for reason in record.reasons),
        asked_at=stamp_of(record.asked_us),
        origin=proposal.origin.value,
        origin_detail=proposal.reason,
        prompt_hash=proposal.prompt_hash,
        response_hash=proposal.response_hash,
        transcript=proposal.transcript_hash,
        model=proposal.model,
        judged_at=None if record.judged_us is None else stamp_of(record.judged_us),
        suppressed=record.suppressed,
        suppressed_reasons={r.value: n for r, n in record.suppressed_reasons.items()},
        data=data,
    )


def record_of(row: LoggedPlan) -> PlanRecord:
    """A row as a record of a history; the text of its transcript stays among the artifacts."""
    return PlanRecord(
        plan=plan_from(row.plan),
        reasons=tuple(map(ReplanReason, row.replan_reasons)),
        proposal=Proposal(
            plan_from(row.plan),
            Origin(row.origin),
            row.origin_detail,
            model=row.model,
            prompt_hash=row.prompt_hash,
            response_hash=row.response_hash,
        ),
        asked_us=microseconds_of(row.asked_at),
        suppressed=row.suppressed,
        suppressed_reasons={ReplanReason(r): n for r, n in row.suppressed_reasons.items()},
        judged_us=None if row.judged_at is None else microseconds_of(row.judged_at),
    )


def keep_transcript(workspace: Workspace, transcript: str) -> str:
    """Store a conversation with a model among the artifacts; returns its sha256."""
    sha256 = hashlib.sha256(transcript.encode()).hexdigest()
    workspace.artifacts.put_file(transcript_uri(sha256), transcript.encode())
    return sha256


def transcript_uri(sha256: str) -> str:
    """The artifact of a transcript."""
    return f"transcripts/{sha256}.json"
