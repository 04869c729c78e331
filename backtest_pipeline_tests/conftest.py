"""Fixtures that all layers share."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.compiling import compile_once
from backtest_pipeline_tests.process_state import shared_by_tests

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.workspace import Workspace
    from backtest_pipeline_tests.buckets import Server
    from backtest_pipeline_tests.other_schemas import OtherSchema
    from backtest_pipeline_tests.theirs import Theirs

# Tests make a thousand databases, and publish artifacts with the care that a crash of the machine
# asks for: on a disk, they would mostly wait for it.
_MEMORY, _NEEDED_BYTES = Path("/dev/shm"), 6 * 10**9  # noqa: S108
if (
    "TMPDIR" not in os.environ
    and os.access(_MEMORY, os.W_OK)
    and shutil.disk_usage(_MEMORY).free > _NEEDED_BYTES
):
    os.environ["TMPDIR"] = str(_MEMORY)  # also for the processes that tests start
    tempfile.tempdir = None  # to be chosen anew

# No test may use the store of whoever runs the suite: what is not given a home has none.
os.environ["BACKTEST_HOME"] = "/dev/null/home"

# Nothing of a test has to outlive the machine, nor may it fill its memory; and what is planned must
# not depend on whether the server has looked at a table meanwhile.
SETTINGS = (
    "fsync = off",
    "full_page_writes = off",
    "max_wal_size = '1GB'",
    "autovacuum = off",
)

# How long an example takes depends on what else the machine does. The suite draws the same examples
# each time, so that a change is judged by what it changes; `make fuzz` looks for others, and more.
settings.register_profile("same", deadline=None, derandomize=True, database=None, max_examples=30)
settings.register_profile("other", deadline=None, print_blob=True)
settings.load_profile("same")


def pytest_sessionstart(session: pytest.Session) -> None:
    """No test waits for a compiler, nor do several processes for the same one."""
    if not (hasattr(session.config, "workerinput") or session.config.option.collectonly):
        compile_once()


@pytest.fixture(autouse=True, scope="module")
def left_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test file leaves the process otherwise than it found it.

    Which files share a process is chance: what one leaves would fail the tests of another.
    """
    before = shared_by_tests()
    yield
    after = shared_by_tests()
    changed = sorted(name for name, _ in before.items() ^ after.items())
    assert not changed, f"{request.node.nodeid} leaves changed in its process: {changed}"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real market data; tests that need it are skipped where it is absent."""
    folder = Path(
        os.environ.get("BACKTEST_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
    )
    if not folder.is_dir():
        pytest.skip(f"no market data at {folder}; set BACKTEST_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A short temporary folder that another user may enter, as a server started by root must."""
    folder = Path(tempfile.mkdtemp(prefix="btp-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def template(open_folder: Path) -> Iterator[Database]:
    """A migrated database on an embedded server of this test process; tests get copies of it.

    The shipped strategies have passed the look-ahead guard in it, or each store would probe them.
    """
    import psycopg

    from backtest_pipeline.storage.postgres.database import open_database
    from backtest_pipeline.storage.postgres.embedded import embedded_server
    from backtest_pipeline.storage.postgres.migrations import migrate
    from backtest_pipeline.storage.settings import load_settings

    home = open_folder / "home"
    database = open_database(load_settings(run_store_mode="embedded", home=home))
    with psycopg.connect(database.conninfo, autocommit=True) as server:
        for setting in SETTINGS:
            server.execute(f"ALTER SYSTEM SET {setting}")  # pyright: ignore[reportCallIssue, reportArgumentType]
        server.execute("SELECT pg_reload_conf()")
    migrate(database)
    _probe_shipped_strategies(database, open_folder / "artifacts")
    database.close()
    yield database
    embedded_server(home).release()


def _probe_shipped_strategies(database: Database, artifacts: Path) -> None:
    from backtest_pipeline.pipeline.look_ahead_guard import refused_strategies
    from backtest_pipeline.pipeline.presets import presets_to_compute
    from backtest_pipeline.pipeline.workspace import Workspace
    from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
    from backtest_pipeline.strategies.known_strategies import shipped

    workspace = Workspace(database, ArtifactStore(artifacts))
    presets_to_compute(workspace)
    assert refused_strategies(workspace, {name: [] for name in shipped()}) == {}


@pytest.fixture
def empty_database(template: Database) -> Iterator[Database]:
    """A database of its own with nothing in it."""
    yield from database_like(template, "template0")


@pytest.fixture
def database(template: Database) -> Iterator[Database]:
    """A migrated database of its own."""
    yield from database_like(template, "backtest")


@pytest.fixture(scope="session")
def with_dagster(template: Database, open_folder: Path) -> Iterator[str]:
    """Name of a migrated database with Dagster's tables, which take it half a second to make."""
    from backtest_pipeline.defs.instance import open_instance
    from backtest_pipeline.storage.settings import load_settings

    for database in database_like(template, "backtest"):
        open_instance(load_settings(home=open_folder / "dagster"), database).dispose()
        database.close()
        yield database.where.rpartition("/")[2]


@pytest.fixture
def dagster_database(template: Database, with_dagster: str) -> Iterator[Database]:
    """A migrated database of its own with Dagster's tables."""
    yield from database_like(template, with_dagster)


@pytest.fixture
def workspace(database: Database, tmp_path: Path) -> Workspace:
    """An empty store: that database, and a folder for artifacts."""
    from backtest_pipeline.pipeline.workspace import Workspace
    from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore

    return Workspace(database, ArtifactStore(tmp_path / "artifacts"))


@pytest.fixture(params=["older", "newer"])
def other_schema(request: pytest.FixtureRequest, template: Database) -> Iterator[OtherSchema]:
    """A store of the schema before the baseline, and one that a later release has migrated."""
    from backtest_pipeline_tests.other_schemas import newer_store, older_store

    name, made = {"older": ("template0", older_store), "newer": ("backtest", newer_store)}[
        request.param
    ]
    for database in database_like(template, name):
        yield made(database)


@pytest.fixture(scope="session")
def their_template(template: Database) -> Iterator[str]:
    """Name of a database with a table of features of somebody else, three assets of 300 bars."""
    from backtest_pipeline_tests.theirs import make_theirs

    role = f"reader_{uuid.uuid4().hex[:12]}"
    for database in database_like(template, "backtest"):
        name = database.where.rpartition("/")[2]
        make_theirs(database.conninfo, role, assets=3, rows=300)
        database.close()
        yield name


@pytest.fixture
def theirs(template: Database, their_template: str) -> Iterator[Theirs]:
    """That table in a database of its own, which is a store besides."""
    from backtest_pipeline_tests.theirs import Theirs, as_reader

    for database in database_like(template, their_template):
        query = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'reader_%'"
        (role,) = (row[0] for row in Theirs(database.conninfo, "").run(query))
        yield Theirs(database.conninfo, as_reader(database.conninfo, role))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    from backtest_pipeline_tests.buckets import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def azure_server() -> Iterator[Server]:
    from backtest_pipeline_tests.buckets import azure_server

    with azure_server() as server:
        yield server


@pytest.fixture
def s3(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty place in a bucket, which the environment leads to."""
    return _reached(s3_server, monkeypatch)


@pytest.fixture
def azure(azure_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same in a container of Azure's."""
    return _reached(azure_server, monkeypatch)


def _reached(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    return server.new_url()


def database_like(template: Database, name: str) -> Iterator[Database]:
    """A copy of a database, dropped when the next one is made: by then its sessions have ended.

    Dropped at once, the server would wait a tenth of a second for them.
    """
    import psycopg
    from psycopg.conninfo import make_conninfo

    from backtest_pipeline.storage.postgres.database import connect_database

    copy = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(
        make_conninfo(template.conninfo, dbname="postgres"), autocommit=True
    ) as server:
        while _left:
            server.execute(f"DROP DATABASE {_left.pop()} WITH (FORCE)")  # pyright: ignore[reportCallIssue, reportArgumentType]
        server.execute(f"CREATE DATABASE {copy} TEMPLATE {name} STRATEGY file_copy")  # pyright: ignore[reportCallIssue, reportArgumentType]
        database = connect_database(make_conninfo(template.conninfo, dbname=copy))
        yield database
        database.close()
        _left.append(copy)


_left: list[str] = []
