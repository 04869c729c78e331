"""When a new plan is due, and whether a proposal begins one or changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.vocabulary import ReplanReason
from backtest_pipeline.strategist.judge import JudgeSettings
from backtest_pipeline.strategist.known import microseconds_of
from backtest_pipeline.strategist.proposal import Proposal, changes_nothing


class ReplanSettings(BaseModel):
    """When plans are made anew.

    Examples:
        >>> ReplanSettings(valid_days=3.0).valid_for(["1H", "1D"])
        datetime.timedelta(days=3)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    new_day: bool = Field(
        default=True, description="whether the first bar of each UTC day asks for a plan"
    )
    valid_days: float = Field(
        default=7.0,
        ge=1,
        le=3650,
        description="days that a plan is valid, at least two bars of the shortest timeframe",
    )
    judge: JudgeSettings | None = Field(
        default=JudgeSettings(), description="when the judge asks for a plan; null for never"
    )

    def valid_for(self, timeframes: Sequence[str]) -> timedelta:
        """How long the plans of a book of these timeframes are valid."""
        longest_bar = min(timeframe(name).days_range[1] for name in timeframes)
        return timedelta(days=max(self.valid_days, 2 * longest_bar))


DEFAULT_REPLANS = ReplanSettings()
# As `due` gives them.
_IN_ORDER = (
    ReplanReason.INITIAL_PLAN,
    ReplanReason.NEW_DAY,
    ReplanReason.JUDGE_TRIGGERED,
    ReplanReason.PLAN_EXPIRED,
)


@dataclass(frozen=True)
class PlanRecord:
    """A plan of a book's history.

    Attributes:
        plan: the plan; it is valid for longer with each suppressed replan.
        reasons: why it was made.
        proposal: how it was proposed.
        suppressed: replans since then that changed nothing.
        suppressed_reasons: how many of those had which reason.
        asked_us: the last instant at which a plan was asked for, microseconds since 1970 UTC.
        judged_us: the last such instant at which the judge asked; None if it has not.
    """

    plan: Plan
    reasons: tuple[ReplanReason, ...]
    proposal: Proposal
    asked_us: int
    suppressed: int = 0
    suppressed_reasons: Mapping[ReplanReason, int] = field(default_factory=dict)
    judged_us: int | None = None


def due(
    record: PlanRecord | None,
    instant_us: int,
    settings: ReplanSettings,
    complaints: Sequence[str] = (),
) -> tuple[ReplanReason, ...]:
    """Why a new plan is due at an instant; nothing where none is.

    The judge is heard once a UTC day: what it complains of is the day's result, which another plan
    does not undo.

    Args:
        record: the plan in force with its history; None if there is none yet.
        instant_us: stamp of the last known bar, microseconds since 1970 UTC.
        settings: when plans are made anew.
        complaints: of the judge, as `judge.complaints` gives them.
    """
    if record is None:
        return (ReplanReason.INITIAL_PLAN,)
    today = instant_us // DAY_US
    reasons = []
    if settings.new_day and today > record.asked_us // DAY_US:
        reasons.append(ReplanReason.NEW_DAY)
    if complaints and (record.judged_us is None or today > record.judged_us // DAY_US):
        reasons.append(ReplanReason.JUDGE_TRIGGERED)
    if instant_us >= microseconds_of(record.plan.valid_until):
        reasons.append(ReplanReason.PLAN_EXPIRED)
    return tuple(reasons)


def settled(
    record: PlanRecord | None,
    proposal: Proposal,
    reasons: tuple[ReplanReason, ...],
    instant_us: int,
) -> tuple[PlanRecord, bool]:
    """What becomes of a proposal, and whether it was suppressed.

    A proposal that changes nothing, while the plan in force is still valid, is counted and extends
    that plan's validity; any other begins a new plan. After the plan has expired, the same terms
    are a new plan too: between the two, nothing could be entered.

    Args:
        record: the plan in force with its history; None if there is none yet.
        proposal: of the strategist.
        reasons: why it was asked for.
        instant_us: stamp of the last bar that was known, microseconds since 1970 UTC.
    """
    judged = instant_us if ReplanReason.JUDGE_TRIGGERED in reasons else None
    if record is not None:
        judged = judged or record.judged_us
        in_force = instant_us < microseconds_of(record.plan.valid_until)
        if in_force and changes_nothing(proposal.plan, record.plan):
            return suppressed(record, reasons, instant_us, proposal.plan.valid_until), True
    return PlanRecord(proposal.plan, reasons, proposal, instant_us, judged_us=judged), False


def suppressed(
    record: PlanRecord,
    reasons: tuple[ReplanReason, ...],
    instant_us: int,
    valid_until: datetime,
    times: int = 1,
) -> PlanRecord:
    """The record after replans that changed nothing.

    Args:
        record: the plan in force with its history.
        reasons: of each of them.
        instant_us: of the last of them, microseconds since 1970 UTC.
        valid_until: until when the plan is valid now.
        times: how many there were.
    """
    counts = Counter(record.suppressed_reasons)
    counts.update(dict.fromkeys(reasons, times))
    return replace(
        record,
        plan=record.plan.until(valid_until),
        asked_us=instant_us,
        suppressed=record.suppressed + times,
        suppressed_reasons=dict(counts),
        judged_us=instant_us if ReplanReason.JUDGE_TRIGGERED in reasons else record.judged_us,
    )


def with_complaints(
    record: PlanRecord, began_us: int, instants: Sequence[int], judged_us: int | None
) -> PlanRecord:
    """The record where the judge complained too, at instants at which a plan was asked for anyway.

    Args:
        record: a plan with its history.
        began_us: when it took effect, microseconds since 1970 UTC.
        instants: when the judge complained, in order: where it began, or of suppressed replans.
        judged_us: when it complained last under the plans before; None if it did not.
    """
    reasons, counts = record.reasons, Counter(record.suppressed_reasons)
    if began_us in instants:
        found = {*reasons, ReplanReason.JUDGE_TRIGGERED}
        reasons = tuple(reason for reason in _IN_ORDER if reason in found)
    counts[ReplanReason.JUDGE_TRIGGERED] += sum(instant != began_us for instant in instants)
    last = [at for at in (judged_us, record.judged_us, *instants) if at is not None]
    return replace(
        record,
        reasons=reasons,
        suppressed_reasons={reason: n for reason, n in counts.items() if n},
        judged_us=max(last, default=None),
    )
