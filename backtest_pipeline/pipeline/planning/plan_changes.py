"""What a plan changed against another one of its book."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backtest_pipeline.storage.plan_tables.plan_history import LoggedPlan

_PASSING = ("plan_id", "generated_at", "effective_ts", "valid_until", "triggers")


@dataclass(frozen=True)
class PlanChanges:
    """The differences between two plans of a book.

    Attributes:
        before, after: their sequences.
        effective_ts: when each took effect, ISO 8601.
        replan_reasons: why the later one was made.
        fields: `(before, after)` of each field and limit that differs, None for the default.
        added, removed: triggers that only the later one has, and only the earlier one.
        kept: number of triggers that both have.
    """

    before: int
    after: int
    effective_ts: tuple[str, str]
    replan_reasons: tuple[str, ...]
    fields: Mapping[str, tuple[Any, Any]]
    added: Sequence[Mapping[str, Any]]
    removed: Sequence[Mapping[str, Any]]
    kept: int


def plan_changes(before: LoggedPlan, after: LoggedPlan) -> PlanChanges:
    """The differences between two plans; triggers are told apart by their ids."""
    old, new = _fields(before.plan), _fields(after.plan)
    had, has = _triggers(before.plan), _triggers(after.plan)
    return PlanChanges(
        before=before.sequence,
        after=after.sequence,
        effective_ts=(before.effective_ts.isoformat(), after.effective_ts.isoformat()),
        replan_reasons=after.replan_reasons,
        fields={
            name: (old.get(name), new.get(name))
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        },
        added=[trigger for trigger_id, trigger in has.items() if trigger_id not in had],
        removed=[trigger for trigger_id, trigger in had.items() if trigger_id not in has],
        kept=len(had.keys() & has.keys()),
    )


def _fields(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a plan but its triggers and times; its limits as `limits.name`."""
    limits = {f"limits.{name}": value for name, value in plan.get("limits", {}).items()}
    own = {n: v for n, v in plan.items() if n not in (*_PASSING, "limits")}
    return {**own, **limits}


def _triggers(plan: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {trigger["id"]: trigger for trigger in plan.get("triggers", [])}
