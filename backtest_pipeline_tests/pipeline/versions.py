"""Other versions of the code, as an earlier release would have left them among the artifacts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import (
    archive_of,
    extracted,
    installed_code,
    installed_folder,
)

EMA = "backtest_pipeline/strategies/ema_crossover.py"
NO_LONGS = (EMA, b"long_entry=np.asarray(long_entry),", b"long_entry=np.zeros(len(panel), bool),")
REWORDED = (EMA, b"Trend following:", b"Follows trends:")
_ROOT = Path(__file__).parents[2]
_RUN = """
import sys
from pathlib import Path
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import connect_database
from backtest_pipeline_tests.pipeline.replay.runs_of_one_asset import BARS, run
store = Workspace(connect_database(sys.argv[1]), ArtifactStore(Path(sys.argv[2])))
print(run(store, BARS, SimulationConfig())["run_id"])
store.database.close()
"""


@dataclass(frozen=True)
class Version:
    """A version of the code: its archive, and the folder that it runs from."""

    uri: str
    folder: Path

    def run(self, workspace: Workspace) -> str:
        """Have this version make and store a run; returns its id."""
        found = subprocess.run(
            [
                *(sys.executable, "-P", "-c", _RUN),
                *(workspace.database.conninfo, str(workspace.artifacts.root)),
            ],
            env={**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{_ROOT}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        return found.stdout.strip()


def other_version(artifacts: ArtifactStore, change: tuple[str, bytes, bytes]) -> Version:
    """The installed code with one text of one file replaced."""
    name, old, new = change
    files = installed_code().files()
    assert files[name].count(old) == 1
    archive = archive_of({**files, name: files[name].replace(old, new)})
    artifacts.put_file(archive.uri, archive.data)
    folder = extracted(artifacts, archive.uri)
    _take_over_what_is_compiled(folder, name)
    return Version(archive.uri, folder)


def _take_over_what_is_compiled(folder: Path, changed: str) -> None:
    """Spare the test the half minute that compiling all of an unchanged engine takes."""
    for cached in (installed_folder() / "backtest_pipeline").rglob("*.nb[ic]"):
        module = cached.parent.parent / f"{cached.name.split('.')[0].split('-')[0]}.py"
        if not module.is_file() or module.relative_to(installed_folder()).as_posix() == changed:
            continue
        target = folder / cached.relative_to(installed_folder())
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(cached, target)
        stat = module.stat()
        os.utime(
            folder / module.relative_to(installed_folder()), ns=(stat.st_atime_ns, stat.st_mtime_ns)
        )
