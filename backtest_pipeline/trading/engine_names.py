"""The engines that can simulate a run."""

from __future__ import annotations

from enum import StrEnum

from backtest_pipeline.market.errors import UnknownName


class EngineName(StrEnum):
    """Who simulates a run: this project's account, or a Portfolio of vectorbt."""

    ACCOUNT = "account"
    VECTORBT = "vectorbt"

    @staticmethod
    def of(name: str) -> EngineName:
        """The engine with this name; raises UnknownName if there is none."""
        if name not in list(EngineName):
            raise UnknownName("engine", name, list(EngineName))
        return EngineName(name)
