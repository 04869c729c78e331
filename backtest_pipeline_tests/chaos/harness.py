"""What must be so whatever was killed: each part of the store is the old one or the new one.

Two markets of the same assets and other prices take turns, so that a mix of both would show. A
unit is what one transaction of a stage makes visible of a partition: its rows in all tables that
the stage writes, and the files that they point to.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

from backtest_pipeline.pipeline.audits.stored_tables import CHECKED, check_dataset
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import MANIFEST, ROOT_ID_FILE, ArtifactStore
from backtest_pipeline.storage.postgres.database import connect_database
from backtest_pipeline_tests.pipeline.markets import (
    Contents,
    StaticSource,
    assert_same,
    contents,
    daily_panel,
    refresh,
)
from backtest_pipeline_tests.pipeline.processes import MARKET, PARTITIONS
from backtest_pipeline_tests.sql import distinct

OTHER_MARKET = StaticSource({"1D": daily_panel(dict.fromkeys("ABCDEF", 250), seed=12)})
MARKETS = (MARKET, OTHER_MARKET)

_STAGE_OF = {
    "cmc_features": "features",
    "cmc_ema_multi_tf_u": "features",
    "signals": "signals",
    "signal_state": "signals",
    "backtest_runs": "backtests",
    "backtest_trades": "backtests",
    "backtest_metrics": "backtests",
    "equity.parquet": "backtests",
    "monthly_returns.parquet": "backtests",
    "benchmark.parquet": "backtests",
}
Unit = tuple[str, str, str]
"""Stage, asset, timeframe."""
Units = dict[Unit, str]


def random_of(test: str) -> np.random.Generator:
    """Random numbers: the same in each run of the suite, others in each `make chaos`.

    `BACKTEST_CHAOS_SEED` repeats such a run; the seed is printed.
    """
    seed = int(os.environ.get("BACKTEST_CHAOS_SEED", "1"))
    print(f"{test}: BACKTEST_CHAOS_SEED={seed}")  # noqa: T201  (pytest shows it on failure)
    return np.random.default_rng(seed)


def units_of(found: Contents) -> Units:
    """A hash of each unit's rows."""
    owners = found["backtest_runs"].set_index("run_id")[["symbol", "tf"]]
    owners.index = owners.index.astype(str)
    digests: dict[Unit, hashlib._Hash] = {}
    for table, stage in _STAGE_OF.items():
        rows = found[table]
        if rows.empty:
            continue
        keys = rows if {"symbol", "tf"} <= {*rows} else owners.loc[rows["run_id"].astype(str)]
        hashes = _row_hashes(rows)
        names = (keys["symbol"] + "|" + keys["tf"]).reset_index(drop=True)
        for name, places in names.groupby(names).indices.items():
            asset, tf = str(name).split("|")
            digest = digests.setdefault((stage, asset, tf), hashlib.sha256())
            digest.update(f"{table} {len(places)}".encode() + hashes[places].tobytes())
    versions = found["dataset_versions"]
    hashes = _row_hashes(versions)
    for row, (stage, asset, tf) in enumerate(
        zip(versions["dataset"], versions["symbol"], versions["tf"], strict=True)
    ):
        digest = digests.setdefault((stage, asset, tf), hashlib.sha256())
        digest.update(hashes[row].tobytes())
    return {unit: digest.hexdigest() for unit, digest in digests.items()}


def _row_hashes(rows: pd.DataFrame) -> np.ndarray:
    return hash_pandas_object(rows.astype(str), index=False).to_numpy()  # pyright: ignore[reportCallIssue]


@dataclass
class Judge:
    """Knows what undisturbed refreshes leave, and holds every store against it."""

    expected: tuple[Contents, ...]
    _units: list[Units] = field(init=False)

    def __post_init__(self) -> None:
        self._units = [units_of(found) for found in self.expected]

    def mixed(self, found: Contents) -> list[Unit]:
        """Units that are neither those of one market nor those of another."""
        return [
            unit
            for unit, digest in units_of(found).items()
            if all(known.get(unit) != digest for known in self._units)
        ]

    def require_whole(self, workspace: Workspace) -> None:
        """Each unit is an old or a new one; all files that rows point to are there, intact."""
        assert self.mixed(contents(fresh(workspace))) == []
        assert lost_files(workspace) == []
        for dataset in CHECKED:
            assert not any(check_dataset(workspace, dataset).values()), dataset

    def require_done(self, workspace: Workspace, market: int) -> None:
        """All is as an undisturbed refresh of a market leaves it, and nothing is left to sweep."""
        assert_same(contents(fresh(workspace)), self.expected[market])
        assert lost_files(workspace) == []
        sweep_at_once(workspace.artifacts)
        assert unnamed_files(workspace.artifacts) == []


def undisturbed(workspace: Workspace, source: StaticSource) -> Contents:
    """What one refresh leaves in an empty store."""
    refresh(workspace, source, PARTITIONS)
    return contents(workspace)


def fresh(workspace: Workspace) -> Workspace:
    """The store as a new process sees it, which has verified no file yet."""
    return Workspace(workspace.database, ArtifactStore(workspace.artifacts.root))


def referenced(workspace: Workspace) -> set[str]:
    """Uris of all artifacts that rows point to."""
    query = """
        SELECT artifact_uri FROM backtest_runs
        UNION SELECT artifact_uri FROM portfolio_runs
        UNION SELECT artifact_uri FROM run_robustness
        UNION SELECT code_archive FROM backtest_runs WHERE code_archive IS NOT NULL
        UNION SELECT unnest(uris) FROM dataset_versions
        UNION SELECT unnest(uris) FROM dataset_snapshots"""
    return distinct(workspace, query)


def lost_files(workspace: Workspace) -> list[str]:
    """Artifacts that rows point to and that are gone or damaged."""
    return [uri for uri in referenced(workspace) if not _is_sound(workspace.artifacts, uri)]


def _is_sound(artifacts: ArtifactStore, uri: str) -> bool:
    path = artifacts.root / uri
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    return artifacts.is_intact(uri)


def unnamed_files(artifacts: ArtifactStore) -> list[str]:
    """Files that are neither named by their content nor part of an intact directory.

    What a killed attempt has finished and no row points to is named by its content: the next
    attempt takes it over, or retention removes it.
    """
    found = []
    for path in sorted(artifacts.root.rglob("*")):
        name = path.relative_to(artifacts.root).as_posix()
        folder = next((p for p in path.parents if (p / MANIFEST).is_file()), None)
        if path.is_dir() or name == ROOT_ID_FILE:
            continue
        uri = name if folder is None else folder.relative_to(artifacts.root).as_posix()
        if not _is_sound(artifacts, uri):
            found.append(name)
    return found


def sweep_at_once(artifacts: ArtifactStore) -> None:
    """Sweep as if an hour had passed."""
    for path in artifacts.root.rglob(".unfinished-*"):
        os.utime(path, (0, 0))
    artifacts.sweep()


@dataclass
class Reader:
    """Looks at a store over and over while others write, and notes what it must not see."""

    judge: Judge
    pause_s: float = 0.0
    looks: int = 0
    seen_mixed: list[Unit] = field(default_factory=list)
    error: Exception | None = None

    def watch(self, workspace: Workspace, stop: threading.Event) -> None:
        database = connect_database(workspace.database.conninfo)
        try:
            while not stop.is_set():
                own = Workspace(database, ArtifactStore(workspace.artifacts.root))
                self.seen_mixed += self.judge.mixed(contents(own))
                self.looks += 1
                stop.wait(self.pause_s)
        except Exception as error:  # told by the test's own thread
            self.error = error
        finally:
            database.close()


@contextmanager
def reading(workspace: Workspace, judge: Judge, pause_s: float) -> Iterator[Reader]:
    """A thread that reads while the body goes on; what it must not have seen fails the test."""
    reader, stop = Reader(judge, pause_s), threading.Event()
    thread = threading.Thread(target=reader.watch, args=(workspace, stop))
    thread.start()
    try:
        yield reader
    finally:
        stop.set()
        thread.join()
    assert reader.error is None, reader.error
    assert reader.seen_mixed == []


def instants(rng: np.random.Generator, n: int, lasts: float) -> np.ndarray:
    """Random instants that cover a duration evenly, in random order."""
    return rng.permuted((np.arange(n) + rng.random(n)) / n * lasts)


@dataclass
class Tally:
    """How often what was done, for the report."""

    counts: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def add(self, what: str, n: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + n

    def told(self) -> Mapping[str, float]:
        return {**self.counts, "seconds": round(time.monotonic() - self.began)}
