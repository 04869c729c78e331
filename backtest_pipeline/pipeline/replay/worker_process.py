"""Runs computed again in a fresh interpreter, on the code that made them or on today's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backtest_pipeline.market.errors import CannotReplay
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.replay.worker import PROTOCOL
from backtest_pipeline.pipeline.runs.run_files import funding_uri
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import (
    code_on_disk,
    extracted,
    installed_folder,
    read_code,
)
from backtest_pipeline.storage.run_tables.recorded_runs import RecordedRun, Snapshot

_WORKER = "backtest_pipeline.pipeline.replay.worker"
# Old code gets no secret of today, and nothing that leads it to a store: what it reads is at hand.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "NUMBA_CACHE_DIR")
_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Rerun:
    """One computation to do again.

    Attributes:
        key: names it among others.
        config: what to assume, as `backtest_runs.config` holds it.
        asset, timeframe: whose bars to trade.
        snapshots: the features to read, by partition.
    """

    key: str
    config: Mapping[str, Any]
    asset: str
    timeframe: str
    snapshots: Mapping[str, Snapshot]

    @staticmethod
    def of(run: RecordedRun) -> Rerun:
        """A recorded run as it was.

        Raises:
            CannotReplay: where it is not known which files hold its rows.
        """
        for partition, version in run.dataset_versions.items():
            if partition not in run.snapshots:
                raise CannotReplay(
                    f"the rows of {partition} that it read (features {version}) are in no file "
                    "that is known: they were stored before versions were kept, or the table "
                    "dataset_snapshots has lost them; refresh to have a run that can be replayed"
                )
        return Rerun(str(run.run_id), run.config, run.asset, run.timeframe, run.snapshots)

    def as_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "config": dict(self.config),
            "asset": self.asset,
            "timeframe": self.timeframe,
            "snapshots": {name: vars(snapshot) for name, snapshot in self.snapshots.items()},
        }

    @property
    def reads(self) -> set[str]:
        """The artifacts that its inputs are in."""
        uris = {uri for snapshot in self.snapshots.values() for uri in snapshot.uris}
        rates = self.config.get("funding")
        return uris | ({funding_uri(rates)} if rates else set())

    @property
    def partition(self) -> Partition:
        return Partition(self.asset, self.timeframe)


@dataclass(frozen=True)
class Answer:
    """What a worker found.

    Attributes:
        environment: as `storage.tables.environment.environment` has it.
        engine: name and version.
        runs: by key; see `pipeline.replay.worker`.
    """

    environment: Mapping[str, Any]
    engine: tuple[str, str]
    runs: Mapping[str, Mapping[str, Any]]


def rerun(
    artifacts: ArtifactStore, code: str, runs: Sequence[Rerun], *, series: bool = False
) -> Answer:
    """Compute runs in one fresh process.

    Args:
        artifacts: where the rows are.
        code: uri of the archive of the sources to run; the installed ones run in place.
        runs: what to compute.
        series: whether curves are wanted, and not only their hashes.

    Raises:
        ArtifactCorrupt: where the archive is gone or damaged.
        CannotReplay: where that code cannot do it, and why.
    """
    if code == code_on_disk().uri:
        folder = installed_folder()
    else:
        if f"{_WORKER.replace('.', '/')}.py" not in read_code(artifacts, code).files():
            raise CannotReplay(
                f"the sources that made it ({code}) are too old to be run again; --code installed "
                "tells what today's make of the same rows"
            )
        folder = extracted(artifacts, code)
    request = {
        "protocol": PROTOCOL,
        "artifacts": str(artifacts.at_hand({u for run in runs for u in run.reads}).resolve()),
        "series": series,
        "runs": [run.as_json() for run in runs],
    }
    known = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    process = subprocess.run(
        [sys.executable, "-P", "-m", _WORKER],
        input=json.dumps(request, allow_nan=False),
        env={**known, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if process.returncode:
        (*_, why) = process.stderr.strip().splitlines() or ["it ended without a word"]
        raise CannotReplay(f"the sources {code} fail here: {why}")
    found = json.loads(process.stdout)
    if (found["protocol"], found["code"]) != (PROTOCOL, code):
        raise CannotReplay(
            f"other code was run than asked for: {found['code']} and not {code}; is the package "
            "being changed while it runs?"
        )
    runs_by_key = {run["key"]: run for run in found["runs"]}
    return Answer(found["environment"], tuple(found["engine"]), runs_by_key)
