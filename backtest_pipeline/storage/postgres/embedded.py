"""The embedded store: a private PostgreSQL server below the home folder.

Any number of processes share one server: the first starts it, the last one stops it. Each process
that uses it holds a shared file lock, which the kernel releases when the process dies, so a crash
leaves no stale user behind. The server listens only on a unix socket in a folder that only its
owner can enter, and on no network address.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backtest_pipeline.market.errors import ConfigurationError, StoreUnavailable
from backtest_pipeline.storage.postgres.programs import (
    MAJOR_VERSION,
    Programs,
    find_programs,
    make_folder,
)

SUPERUSER = "postgres"
PORT = 5432  # names the socket file; no network port is opened
START_SECONDS = 300.0  # recovery after a crash may have to read max_wal_size of log
STOP_SECONDS = 60
_DYING_S = 5.0
_SOCKET_PATH_LIMIT = 103  # bytes; the shortest of the supported systems

# Tuned for batches of several hundred thousand rows. Commits stay durable (synchronous_commit). The
# log of changes is written for recovery alone, compressed, and its files stay below max_wal_size,
# but for a moment.
_CONFIGURATION = """\
# Written by backtest_pipeline at each start; your own settings belong to ALTER SYSTEM.
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 256MB
work_mem = 64MB
maintenance_work_mem = 256MB
effective_io_concurrency = 32
wal_level = minimal
max_wal_senders = 0
wal_compression = on
max_wal_size = 256MB
min_wal_size = 64MB
checkpoint_timeout = 15min
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
"""
_CONFIGURATION_FILE = "backtest_pipeline.conf"
_INCLUDED = f"include '{_CONFIGURATION_FILE}'\n"

_log = logging.getLogger(__name__)
_claimed: dict[Path, EmbeddedServer] = {}
_claiming, _ending = threading.Lock(), threading.Lock()


def embedded_server(home: Path) -> EmbeddedServer:
    """The server below `home`, started if necessary and kept running until this process ends.

    Raises:
        ConfigurationError: where PostgreSQL cannot run below that folder.
        StoreUnavailable: where it does not start, with the end of its log.
    """
    home = home.resolve()
    with _claiming:
        if home not in _claimed:
            server = EmbeddedServer(home)
            server.claim()
            atexit.register(server.release)
            _claimed[home] = server
        return _claimed[home]


def release_all() -> None:
    """Stop using all servers, for a process that is about to end without its `atexit`."""
    with _ending:
        for server in list(_claimed.values()):
            server.end()


class EmbeddedServer:
    """One server below `home`, as seen by one process.

    `<home>/postgres` holds the data folder `data`, the server's log, the lock files, and the
    socket unless its path would be too long.
    """

    def __init__(self, home: Path) -> None:
        make_folder(home)
        self._programs: Programs = find_programs(home)
        self._folder = home / "postgres"
        self._data = self._folder / "data"
        self._log_file = self._folder / "server.log"
        self._claim: int | None = None
        self._has_ended = False

    @property
    def socket_folder(self) -> Path:
        """The folder of the server's unix socket, libpq's `host`."""
        return _short_enough(self._folder)

    def claim(self) -> None:
        """Register as a user of the server, starting it if it is not running."""
        self._folder.mkdir(exist_ok=True)
        self._programs.give(self._folder)
        with self._changing_state():
            self._initialise()
            self._start()
            self._claim = _lock_file(self._folder / "users.lock", fcntl.LOCK_SH)

    def revive(self) -> None:
        """Restart the server if it has died.

        Raises:
            StoreUnavailable: where it does not start, with the end of its log; or where this
                process is about to end.
        """
        with self._changing_state():
            if self._has_ended:
                raise StoreUnavailable("this process is about to end")
            self._start()

    def end(self) -> None:
        """Stop using the server for good: other threads of this process cannot start it again.

        Whoever dies at the same time counts as its user a moment longer, and is waited for.
        """
        self._has_ended = True
        deadline = time.monotonic() + _DYING_S
        while not self.release() and time.monotonic() < deadline:
            time.sleep(0.05)

    def release(self) -> bool:
        """Stop using the server; the last user stops it. False if it has others."""
        if not self._folder.is_dir() or (self._claim is None and not self._has_ended):
            return True
        with self._changing_state():
            if self._claim is not None:
                os.close(self._claim)
                self._claim = None
            try:
                alone = _lock_file(self._folder / "users.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            os.close(alone)
            if self._postmaster_lives():
                self._stop()
        return True

    @contextmanager
    def _changing_state(self) -> Iterator[None]:
        """Hold the lock under which only one process starts, claims or stops the server."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                lock = _lock_file(self._folder / "state.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(
                        f"another process has been starting or stopping the embedded server in"
                        f" {self._folder} for {START_SECONDS:.0f} s; end it and try again"
                    ) from None
                time.sleep(0.02)
        try:
            yield
        finally:
            os.close(lock)

    def _initialise(self) -> None:
        if self._data.is_dir():
            made_by = (self._data / "PG_VERSION").read_text().strip()
            if made_by != MAJOR_VERSION:
                raise ConfigurationError(
                    f"{self._data} was created by PostgreSQL {made_by}, but this release uses"
                    f" {MAJOR_VERSION}; dump it with the older release, or set BACKTEST_HOME to a"
                    " new folder"
                )
            return
        partial = self._data.with_name("data.partial")  # a killed initdb leaves only this
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        self._programs.give(partial)
        options = ("--auth=trust", "--encoding=UTF8", "--locale-provider=builtin")
        options += ("--builtin-locale=C.UTF-8", "--locale=C", f"--username={SUPERUSER}")
        status, output = self._programs.run("initdb", *options, "-D", partial, cwd=self._folder)
        if status != 0:
            raise StoreUnavailable(
                f"cannot create a database in {self._folder}: initdb failed: {output}"
            )
        partial.rename(self._data)

    def _start(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if not self._postmaster_lives():
                self._launch(deadline)
            refusal = self._refusal()
            if refusal is None:
                return
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the embedded server in {self._folder} does not respond after"
                    f" {START_SECONDS:.0f} s: {refusal}; see {self._log_file}"
                )
            time.sleep(0.1)

    def _launch(self, deadline: float) -> None:
        # Files of a killed server would be taken for valid while any process has its process id.
        socket = self.socket_folder / f".s.PGSQL.{PORT}"
        for stale in (
            self._data / "postmaster.pid",
            socket,
            socket.with_name(f"{socket.name}.lock"),
        ):
            stale.unlink(missing_ok=True)
        self._configure()
        if self.socket_folder != self._folder:
            self._programs.give(self.socket_folder)
        if self._log_file.exists():
            self._log_file.replace(self._log_file.with_suffix(".log.previous"))
        seconds = str(max(1, int(deadline - time.monotonic())))
        status, output = self._programs.run(
            "pg_ctl",
            *("start", "--wait", "-t", seconds, "-D", self._data, "-l", self._log_file),
            *("-o", f"-p {PORT} -k '{self.socket_folder}'"),
            cwd=self._folder,
        )
        log = _tail(self._log_file)
        # Backends of a killed server take a moment to notice; until then a start is refused.
        if status != 0 and "pre-existing shared memory block" not in log:
            raise StoreUnavailable(
                f"the embedded server in {self._folder} does not start: {output}\n{log}"
            )

    def _configure(self) -> None:
        """Give the server the settings of this release, whichever release created its data."""
        own = self._data / _CONFIGURATION_FILE
        unfinished = own.with_suffix(".unfinished")
        unfinished.write_text(_CONFIGURATION)
        self._programs.give(unfinished)
        unfinished.rename(own)
        with (self._data / "postgresql.conf").open("r+") as main:
            if _INCLUDED not in main.read():
                main.write(f"\n{_INCLUDED}")  # the last of several settings counts

    def _stop(self) -> None:
        status, output = self._programs.run(
            "pg_ctl",
            *("stop", "--wait", "-t", str(STOP_SECONDS), "-m", "fast", "-D", self._data),
            cwd=self._folder,
        )
        if status != 0 and self._postmaster_lives():
            _log.warning("could not stop the embedded server in %s: %s", self._folder, output)

    def _postmaster_lives(self) -> bool:
        """Whether `postmaster.pid` names a running server on our data folder."""
        import psutil

        try:
            number = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
            command = psutil.Process(number).cmdline()
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            return False
        return "-D" in command and str(self._data) in command

    def _refusal(self) -> str | None:
        """The error of connecting to the server; None if it responds."""
        import psycopg

        address = {"host": str(self.socket_folder), "port": PORT, "user": SUPERUSER}
        try:
            with closing(psycopg.connect(dbname="postgres", connect_timeout=10, **address)) as c:
                c.execute("SELECT 1")
        except psycopg.OperationalError as error:
            return str(error)
        return None


def _lock_file(path: Path, operation: int) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, operation)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _short_enough(folder: Path) -> Path:
    """`folder`, or a private temporary folder if the socket's path would be too long."""
    if len(os.fsencode(folder / f".s.PGSQL.{PORT}.lock")) <= _SOCKET_PATH_LIMIT:
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"backtest-{digest}"
    short.mkdir(mode=0o700, exist_ok=True)
    info = short.lstat()
    if not short.is_dir() or short.is_symlink() or info.st_mode & 0o077:
        raise ConfigurationError(f"{short} must be a private folder of this user; remove it")
    return short


def _tail(path: Path, lines: int = 10) -> str:
    return (
        "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""
    )
