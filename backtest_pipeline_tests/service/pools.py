"""A pool that computes nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Waiting:
    """A pool of two workers with three requests."""

    size: int = 2
    busy: int = 2
    waiting: int = 1
