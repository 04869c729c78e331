"""Sides of the market."""

from __future__ import annotations

from enum import StrEnum

from backtest_pipeline.market.errors import UnknownName


class Direction(StrEnum):
    """Sides that a run, a plan or a trigger may trade."""

    LONG = "long"
    SHORT = "short"
    BOTH = "both"

    @staticmethod
    def of(name: str) -> Direction:
        """The direction with this name; raises UnknownName if there is none."""
        if name not in list(Direction):
            raise UnknownName("direction", name, list(Direction))
        return Direction(name)
