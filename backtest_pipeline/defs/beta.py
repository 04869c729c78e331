"""Dagster warns of what is in beta; it is used knowingly here, as its versions are pinned."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg


def ignore_beta_warnings() -> None:
    """Ignore them from now on: for a process that is Dagster's own."""
    for category in (dg.BetaWarning, dg.PreviewWarning):
        warnings.simplefilter("ignore", category)


@contextmanager
def beta_used_knowingly() -> Iterator[None]:
    """Ignore them in the block, and leave the filters of the program around us as they were."""
    with warnings.catch_warnings():
        ignore_beta_warnings()
        yield
