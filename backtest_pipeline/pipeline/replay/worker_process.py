"""Recomputes runs in a fresh interpreter, on the code that made them or on today's code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from threading import Event
from typing import Any

from backtest_pipeline.market.errors import CannotReplay, WorkGivenUp
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.replay.worker import PROTOCOL
from backtest_pipeline.pipeline.runs.run_files import funding_uri
from backtest_pipeline.simulation.marks import DAILY
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import (
    code_on_disk,
    extracted,
    installed_folder,
    read_code,
)
from backtest_pipeline.storage.run_tables.recorded_runs import RecordedRun, Snapshot
from backtest_pipeline.storage.tables.datasets import dataset_of_key
from backtest_pipeline.strategies.cross_section.definition import KIND

_WORKER = "backtest_pipeline.pipeline.replay.worker"
# Old code gets no secrets and no store settings: all its inputs are in the artifact folder.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "NUMBA_CACHE_DIR")
_TIMEOUT_S = 3600
WITH_PARENT = """
import os, runpy, threading, time

def end():
    while os.getppid() == {parent}:
        time.sleep(1)
    os._exit(1)

threading.Thread(target=end, daemon=True).start()
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
"""Runs a module, and ends with the process that started it, of which old code knows nothing."""


@dataclass(frozen=True)
class ReplayRequest:
    """A run to recompute.

    Attributes:
        key: identifies it within the request.
        config: its configuration, as in `backtest_runs.config`.
        asset, timeframe: the partition to trade.
        snapshots: the rows to read, by `input_key`.
        strategy_files: files of its strategy by path, where it is none of this package.
        plans: the plans that it follows, as `plans_of_runs` gives them; none for a strategy.
    """

    key: str
    config: Mapping[str, Any]
    asset: str
    timeframe: str
    snapshots: Mapping[str, Snapshot]
    strategy_files: Mapping[str, bytes] = field(default_factory=dict)
    plans: Sequence[Mapping[str, Any]] = ()

    @staticmethod
    def of(run: RecordedRun) -> ReplayRequest:
        """The request to recompute a recorded run unchanged.

        Raises:
            CannotReplay: where the files with its rows are not known.
        """
        for key, version in run.dataset_versions.items():
            if key not in run.snapshots:
                raise CannotReplay(
                    f"no file is known with the rows of {key} that it read (version "
                    f"{version}): they were stored before versions were recorded, or are missing "
                    "from the table dataset_snapshots; refresh for a run that can be replayed"
                )
        return ReplayRequest(
            str(run.run_id),
            run.config,
            run.asset,
            run.timeframe,
            run.snapshots,
            run.strategy_files,
            run.plans,
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "config": dict(self.config),
            "asset": self.asset,
            "timeframe": self.timeframe,
            "snapshots": {name: vars(snapshot) for name, snapshot in self.snapshots.items()},
            "strategy_files": {name: data.hex() for name, data in self.strategy_files.items()},
            "plans": [dict(plan) for plan in self.plans],
        }

    @property
    def reads(self) -> set[str]:
        """The artifacts that hold its inputs."""
        uris = {uri for snapshot in self.snapshots.values() for uri in snapshot.uris}
        rates = self.config.get("funding")
        return uris | ({funding_uri(rates)} if rates else set())

    @property
    def partition(self) -> Partition:
        return Partition(self.asset, self.timeframe)

    @property
    def own_snapshots(self) -> dict[str, Snapshot]:
        """Those of what is traded: bars, own columns, and daily bars that mark it."""
        if self.plans or self.config.get("kind") == KIND:
            return dict(self.snapshots)
        own = (self.partition, Partition(self.asset, DAILY))
        return {
            key: snapshot
            for key, snapshot in self.snapshots.items()
            if dataset_of_key(key)[0] in own
        }


@dataclass(frozen=True)
class WorkerResponse:
    """The response of a replay worker.

    Attributes:
        environment: as `storage.tables.environment.environment` returns it.
        engine: name and version.
        runs: results by key; see `pipeline.replay.worker`.
    """

    environment: Mapping[str, Any]
    engine: tuple[str, str]
    runs: Mapping[str, Mapping[str, Any]]


def recompute(
    artifacts: ArtifactStore,
    code: str,
    runs: Sequence[ReplayRequest],
    *,
    series: bool = False,
    given_up: Event | None = None,
) -> WorkerResponse:
    """Recompute runs in one fresh process.

    Args:
        artifacts: the artifact store.
        code: uri of the source archive to run; the installed code runs in place.
        runs: the runs to recompute.
        series: whether to return curves, not only their hashes.
        given_up: set when they are not wanted any more; the process is ended then.

    Raises:
        ArtifactCorrupt: where the archive is missing or damaged.
        CannotReplay: where that code cannot recompute them, with the reason.
        WorkGivenUp: where they were not wanted any more.
    """
    if code == code_on_disk().uri:
        folder = installed_folder()
    else:
        if f"{_WORKER.replace('.', '/')}.py" not in read_code(artifacts, code).files():
            raise CannotReplay(
                f"the code that made it ({code}) is too old to be replayed; use --code installed "
                "to see what today's code computes from the same rows"
            )
        folder = extracted(artifacts, code)
    request = {
        "protocol": PROTOCOL,
        "artifacts": str(artifacts.at_hand({u for run in runs for u in run.reads}).resolve()),
        "series": series,
        "runs": [run.as_json() for run in runs],
    }
    known = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    with TemporaryFile("w+") as told:
        # Not through a pipe: what it has not read when a wait for it ends would never be sent.
        json.dump(request, told, allow_nan=False)
        told.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", WITH_PARENT.format(parent=os.getpid(), module=_WORKER)],
            stdin=told,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**known, "PYTHONPATH": str(folder)},
            text=True,
        )
    with process:
        try:
            stdout, stderr = _answered(process, given_up)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        (*_, why) = stderr.strip().splitlines() or ["it wrote no error message"]
        raise CannotReplay(f"the code {code} fails here: {why}")
    response = json.loads(stdout)
    if (response["protocol"], response["code"]) != (PROTOCOL, code):
        raise CannotReplay(
            f"the worker ran code {response['code']}, not {code} as requested: do not change the "
            "package during a replay; try again"
        )
    runs_by_key = {run["key"]: run for run in response["runs"]}
    return WorkerResponse(response["environment"], tuple(response["engine"]), runs_by_key)


def _answered(process: subprocess.Popen[str], given_up: Event | None) -> tuple[str, str]:
    """What the process writes to stdout and stderr until it ends."""
    until = time.monotonic() + _TIMEOUT_S
    while given_up is None or not given_up.is_set():
        try:
            return process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            if time.monotonic() > until:
                raise
    raise WorkGivenUp("replay: the run was ended before it was done")
