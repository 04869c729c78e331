"""Disk space used by the store, measured periodically by the process that serves metrics."""

from __future__ import annotations

from collections import Counter
from threading import Event

from backtest_pipeline.pipeline.monitoring.counters import MEASUREMENTS, OTHER, STORAGE, key_of
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.run_tables.retention import KINDS
from backtest_pipeline.storage.tables.counts import claim, database_bytes, set_values

EVERY_S = 300.0
"""Seconds between measurements; listing a bucket with millions of artifacts takes minutes."""


def measure_storage(
    workspace: Workspace, every_s: float = EVERY_S, given_up: Event | None = None
) -> bool:
    """Record the bytes of the database and of each artifact folder, if a measurement is due.

    Args:
        workspace: the open store.
        every_s: seconds between two measurements, across all processes.
        given_up: when set, stops the measurement at the next artifact.

    Returns:
        Whether this process recorded a measurement; only one process does per `every_s`.

    Raises:
        StoreError, ArtifactError: where the database or the artifacts cannot be read.
    """
    database = workspace.database
    with database.begin() as connection:
        if not claim(connection, key_of(MEASUREMENTS), every_s):
            return False
    bytes_by_kind: Counter[str] = Counter(dict.fromkeys((*KINDS, OTHER), 0))
    for stored in workspace.artifacts.stored():
        if given_up is not None and given_up.is_set():
            return False
        folder = stored.uri.partition("/")[0]
        bytes_by_kind[folder if folder in KINDS else OTHER] += stored.bytes
    with database.begin() as connection:
        bytes_by_kind["database"] = database_bytes(connection)
        values = {key_of(STORAGE, {"kind": kind}): float(n) for kind, n in bytes_by_kind.items()}
        set_values(connection, values)
    return True
