"""Silences Dagster's beta warnings: its version is pinned, so beta features are used knowingly."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg


def ignore_beta_warnings() -> None:
    """Ignore beta and preview warnings from now on, in a process of Dagster's own."""
    for category in (dg.BetaWarning, dg.PreviewWarning):
        warnings.simplefilter("ignore", category)


@contextmanager
def beta_used_knowingly() -> Iterator[None]:
    """Ignore beta and preview warnings in this block; the caller's warning filters are restored."""
    with warnings.catch_warnings():
        ignore_beta_warnings()
        yield
