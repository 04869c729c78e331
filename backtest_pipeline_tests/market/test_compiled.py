from __future__ import annotations

import fcntl
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numba.core.caching
import numpy as np
import pytest

_SOURCE = """
from backtest_pipeline.market.compiled import compiled

@compiled
def second(values):
    return values[1]
"""
_WHOLE_ONLY = """
import sys
import numpy as np
from functions import second
print(second(np.arange(10.0)), "numba.np.linalg" in sys.modules)
"""
_THEN_STRIDED = f"""{_WHOLE_ONLY}
print(second(np.arange(10.0)[::2]), "numba.np.linalg" in sys.modules)
"""
_LATER = ["1.0", "False", "2.0", "True"]
_WHOLE = np.arange(10.0)
_STRIDED = _WHOLE[::2]


def _loaded(folder: Path) -> ModuleType:
    """A module with one compiled function, as a process that has just started has it."""
    path = folder / "functions.py"
    if not path.exists():
        folder.mkdir()
        path.write_text(_SOURCE)
    spec = importlib.util.spec_from_file_location("functions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _codes(folder: Path) -> list[Path]:
    return sorted((folder / "__pycache__").glob("*.nbc"))


def test_code_for_other_arguments_is_compiled_again_and_not_run(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert _loaded(ours).second(_STRIDED) == 2.0
    assert _loaded(theirs).second(_WHOLE) == 1.0
    # What a race of two processes leaves: the index of one, and the code of the other.
    (code,), (other,) = _codes(ours), _codes(theirs)
    shutil.copyfile(other, code)
    assert _loaded(ours).second(_STRIDED) == 2.0
    assert code.read_bytes() != other.read_bytes()


def test_code_is_loaded_by_the_next_process_for_each_kind_of_arguments(tmp_path: Path) -> None:
    first = _loaded(tmp_path / "shared").second
    assert (first(_WHOLE), first(_STRIDED)) == (1.0, 2.0)
    assert len(_codes(tmp_path / "shared")) == 2
    again = _loaded(tmp_path / "shared").second
    assert (again(_WHOLE), again(_STRIDED)) == (1.0, 2.0)
    assert sum(again.stats.cache_hits.values()) == 2
    assert not again.stats.cache_misses


def test_a_process_makes_the_compiler_ready_only_where_it_compiles(tmp_path: Path) -> None:
    (tmp_path / "functions.py").write_text(_SOURCE)
    for program, said in ((_WHOLE_ONLY, ["1.0", "True"]), (_THEN_STRIDED, _LATER)):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.split() == said, done.stderr


def test_code_is_saved_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, locked = numba.core.caching.IndexDataCacheFile.save, []

    def saved(self: Any, key: Any, data: Any) -> None:
        with (tmp_path / "shared" / "__pycache__" / "saving.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked.append(True)
        save(self, key, data)

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "save", saved)
    _loaded(tmp_path / "shared").second(_WHOLE)
    assert locked == [True]
