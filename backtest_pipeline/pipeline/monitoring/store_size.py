"""How much room the store takes, measured now and then by whoever serves the metrics."""

from __future__ import annotations

from collections import Counter
from threading import Event

from backtest_pipeline.pipeline.monitoring.counters import MEASUREMENTS, OTHER, STORAGE, key_of
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.run_tables.retention import KINDS
from backtest_pipeline.storage.tables.counts import claim, database_bytes, set_values

EVERY_S = 300.0
"""Artifacts are listed one by one: minutes, where there are millions in a bucket."""


def measure_storage(
    workspace: Workspace, every_s: float = EVERY_S, given_up: Event | None = None
) -> bool:
    """Write down the bytes of the database and of each folder of artifacts, if it is time.

    Args:
        workspace: the open store.
        every_s: seconds between two measurements, whichever process makes them.
        given_up: ends the measurement at the next artifact when it is set.

    Returns:
        Whether they were written down: of all processes one measures, and none for `every_s`
        afterwards.

    Raises:
        StoreError, ArtifactError: where the database or the artifacts cannot be read.
    """
    database = workspace.database
    with database.begin() as connection:
        if not claim(connection, key_of(MEASUREMENTS), every_s):
            return False
    found: Counter[str] = Counter(dict.fromkeys((*KINDS, OTHER), 0))
    for stored in workspace.artifacts.stored():
        if given_up is not None and given_up.is_set():
            return False
        folder = stored.uri.partition("/")[0]
        found[folder if folder in KINDS else OTHER] += stored.bytes
    with database.begin() as connection:
        found["database"] = database_bytes(connection)
        values = {key_of(STORAGE, {"kind": kind}): float(n) for kind, n in found.items()}
        set_values(connection, values)
    return True
