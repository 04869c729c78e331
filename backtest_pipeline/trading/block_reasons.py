"""Why an entry or an exit was not made: the reasons of `block_events`, and their classes."""

from __future__ import annotations

from enum import StrEnum


class BlockClass(StrEnum):
    """What kind of thing blocked it."""

    RISK_VALID = "risk_valid"
    """A limit did what it is for."""
    QUALITY_GATE = "quality_gate"
    """The signal itself could not be used."""
    INFRA = "infra"
    """The surroundings: data or machines that failed."""
    UNKNOWN = "unknown"
    """Not told by the reason."""


class BlockReason(StrEnum):
    """Why it was blocked; docs/plans.md says when each occurs."""

    DAILY_CAP = "daily_cap"
    SYMBOL_VETO = "symbol_veto"
    RISK = "risk"
    RISK_BUDGET = "risk_budget"
    DIRECTION = "direction"
    CATEGORY = "category"
    PLAN_LIMIT = "plan_limit"
    EXPRESSION_ERROR = "expression_error"
    MISSING_INDICATOR = "missing_indicator"
    TIMEFRAME_CAP = "timeframe_cap"
    SESSION_CAP = "session_cap"
    TRIGGER_LOAD = "trigger_load"
    MIN_HOLD = "min_hold"
    MIN_FLAT = "min_flat"
    INSUFFICIENT_CASH = "insufficient_cash"
    EMERGENCY_EXIT_VETO = "emergency_exit_veto"
    PENDING_ENTRY_CONFLICT = "pending_entry_conflict"
    PRIORITY_SKIP = "priority_skip"
    OTHER = "other"  # allowed in the table, written by nothing

    @property
    def block_class(self) -> BlockClass:
        """The class that goes with the reason.

        Examples:
            >>> BlockReason.DAILY_CAP.block_class.value
            'risk_valid'
        """
        if self is BlockReason.OTHER:
            return BlockClass.UNKNOWN
        return BlockClass.QUALITY_GATE if self in _QUALITY else BlockClass.RISK_VALID


_QUALITY = (
    BlockReason.EXPRESSION_ERROR,
    BlockReason.MISSING_INDICATOR,
    BlockReason.PENDING_ENTRY_CONFLICT,
    BlockReason.PRIORITY_SKIP,
    BlockReason.EMERGENCY_EXIT_VETO,
)
