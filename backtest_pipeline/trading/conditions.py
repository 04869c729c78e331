"""What a strategy wants at each bar's close."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
