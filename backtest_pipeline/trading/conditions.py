"""What a strategy wants at each bar's close."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from backtest_pipeline.market.errors import StrategyRefused


@dataclass(frozen=True)
class Conditions:
    """When a strategy would enter or leave each side; bool arrays as long as the panel.

    A condition says nothing of what is held: whether an entry is made, or there is anything to
    exit, the account alone decides, which knows its stops and its cash.
    """

    long_entry: np.ndarray
    long_exit: np.ndarray
    short_entry: np.ndarray
    short_exit: np.ndarray

    def require_flags(self, n_rows: int, strategy: str) -> None:
        """Raise StrategyRefused unless each condition is true or false at each of `n_rows` bars.

        Examples:
            >>> flags = np.zeros(3, bool)
            >>> Conditions(flags, flags, flags, flags).require_flags(3, "dip")
        """
        for field in fields(self):
            flags = getattr(self, field.name)
            if not isinstance(flags, np.ndarray):
                raise StrategyRefused(
                    f"{strategy}: {field.name} is a {type(flags).__name__}; it must be a numpy "
                    "array, such as by .to_numpy()"
                )
            if flags.shape != (n_rows,):
                raise StrategyRefused(
                    f"{strategy}: {field.name} has shape {flags.shape}; it must have one value for "
                    f"each of {n_rows:,} bars"
                )
            if flags.dtype != bool:
                raise StrategyRefused(
                    f"{strategy}: {field.name} holds {flags.dtype}, perhaps NaN; make it true or "
                    "false, such as by a comparison"
                )
