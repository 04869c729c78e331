"""`backtest-pipeline up`, `migrate` and `doctor`."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from backtest_pipeline.cli.console import console, fail, progress_shown, say
from backtest_pipeline.cli.options import split

if TYPE_CHECKING:
    from socket import socket

    from backtest_pipeline.defs.processes.up_programs import DagsterUi
    from backtest_pipeline.storage.doctor import Finding
    from backtest_pipeline.storage.postgres.database import Database
    from backtest_pipeline.storage.settings import Settings

_log = logging.getLogger(__name__)
_MOST_WRONG = 5
READ_ON_THE_WAY = (
    "the token can be read on the way; use 127.0.0.1 behind a proxy with TLS, or add --allow-remote"
)

app = typer.Typer()
AllowRemote = Annotated[
    bool,
    typer.Option(
        "--allow-remote", help="Allow an address that other machines can reach, without TLS."
    ),
]
HostNames = Annotated[
    str, typer.Option(help="Host names by which browsers reach it, besides localhost, by commas.")
]


def ensure_schema(settings: Settings) -> None:
    """Migrate the embedded store; a server of the user's own is migrated only when asked to.

    Before that, as every command that uses the store comes by here, warn of variables that look
    like settings and are none.
    """
    from backtest_pipeline.pipeline.monitoring.notices import NoticeSettings
    from backtest_pipeline.service.settings import ServiceSettings
    from backtest_pipeline.storage.postgres.database import open_database
    from backtest_pipeline.storage.postgres.migrations import check
    from backtest_pipeline.storage.postgres.migrations import migrate as apply
    from backtest_pipeline.storage.settings import Settings, unread_variables
    from backtest_pipeline.strategist.llm.settings import LlmSettings

    for sentence in unread_variables(Settings, ServiceSettings, LlmSettings, NoticeSettings):
        _log.warning(sentence)
    database = open_database(settings)
    try:
        if settings.run_store_mode == "embedded":
            apply(database)
        else:
            check(database)
    finally:
        database.close()


def refuse_remote(host: str, allow_remote: bool, why: str) -> None:
    """Fail where an address can be reached from other machines, unless that is wanted."""
    from backtest_pipeline.storage.settings import is_loopback

    if not (allow_remote or is_loopback(host)):
        fail(f"--host {host} can be reached from other machines, and {why}")


def set_up_store(settings: Settings) -> tuple[Database, tuple[str, ...]]:
    """The open store with the assets of the source as Dagster's partitions.

    Returns the database, and a sentence on each part of the source that cannot be used.
    """
    from backtest_pipeline.defs.instance import open_instance
    from backtest_pipeline.defs.partitions import register_partitions
    from backtest_pipeline.defs.resources import SourceResource
    from backtest_pipeline.launch import offered_assets
    from backtest_pipeline.storage.postgres.database import open_database

    ensure_schema(settings)
    offered = offered_assets(settings, SourceResource())
    database = open_database(settings)
    with open_instance(settings, database) as instance:
        register_partitions(instance, offered.symbols)
    return database, tuple(offered.left_out)


def say_what_is_lacking(settings: Settings) -> None:
    """Say what an edited `dagster.yaml` lacks of what this package relies on, if anything."""
    from backtest_pipeline.defs.instance import instance_file

    file = instance_file(settings)
    if file.lacking:
        say(file.summary)


def guarded_ui(
    settings: Settings, listening: socket, host: str, names: str, *, allow_remote: bool
) -> DagsterUi:
    """The Dagster UI on an open socket, behind the token of this home.

    It is reached by the host, and by names that are separated by commas.
    """
    from backtest_pipeline.defs.processes.guard import read_token, token_file
    from backtest_pipeline.defs.processes.up_programs import DagsterUi

    token = read_token(token_file(settings))
    known = (host, *(split(names) or ()))
    return DagsterUi(listening, token, known, by_any_address=allow_remote)


@contextmanager
def interrupted_alike(database: Database) -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C does, and close the database in the end."""
    # From a shell that ignores SIGINT (a background job) the processes would ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        say("stopped")
    finally:
        database.close()


@app.command()
def migrate(
    *,
    artifacts: Annotated[
        bool,
        typer.Option(
            "--artifacts",
            help="Also see that artifacts can be written, and belong to this database.",
        ),
    ] = False,
) -> None:
    """Bring the database schema, and Dagster's settings in the home folder, up to date."""
    with progress_shown() as progress:
        progress("migrating", 0, 1)
        from backtest_pipeline.defs.instance import dagster_home
        from backtest_pipeline.storage.postgres.database import open_database
        from backtest_pipeline.storage.postgres.migrations import migrate as apply
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings()
        database = open_database(settings)
        try:
            applied = apply(database)
            where = database.where
            root = _own_artifacts(settings, database) if artifacts else ""
        finally:
            database.close()
        dagster_home(settings)
        progress("migrating", 1, 1)
    for name in applied:
        say(f"applied {name}")
    say(f"{where}: the schema is up to date")
    if root:
        say(f"{root} is writable, and belongs to this database")


def _own_artifacts(settings: Settings, database: Database) -> str:
    """Where artifacts are, once they can be written there and belong to the database."""
    from backtest_pipeline.storage.artifact_root import bind_root
    from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore

    store = ArtifactStore.of(settings)
    store.require_writable()
    bind_root(database, store)
    return store.where


@app.command()
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the Dagster UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the Dagster UI.")] = "127.0.0.1",
    allow_remote: AllowRemote = False,
    names: HostNames = "",
) -> None:
    """Start the store, the Dagster UI, its daemon and the code location; Ctrl-C stops all.

    The address that it prints lets a browser in. What ends by itself is started again.
    """
    from backtest_pipeline.service.listening import listen

    refuse_remote(host, allow_remote, READ_ON_THE_WAY)
    with listen(host, port) as listening:
        with progress_shown() as progress:
            progress("store", 0, 1)
            from backtest_pipeline.defs.processes.up_programs import run_programs
            from backtest_pipeline.storage.settings import load_settings

            settings = load_settings()
            database, left_out = set_up_store(settings)
            progress("store", 1, 1)
        for sentence in left_out:
            say(f"left out: {sentence}")
        say_what_is_lacking(settings)
        ui = guarded_ui(settings, listening, host, names, allow_remote=allow_remote)
        say(f"Dagster UI: {ui.first_page} (Ctrl-C stops everything)")
        with interrupted_alike(database):
            run_programs(settings, database, ui)


@app.command()
def doctor(
    *,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Also compare every artifact with its hash, and recompute all stored metrics.",
        ),
    ] = False,
) -> None:
    """Check settings, store, schema, artifacts and disk, and say how to fix what is wrong."""
    with progress_shown() as progress:
        progress("examining", 0, 1)
        from backtest_pipeline.pipeline.monitoring.notices import NoticeSettings
        from backtest_pipeline.service.settings import ServiceSettings
        from backtest_pipeline.storage.doctor import examine, examine_deeply
        from backtest_pipeline.storage.settings import load_settings
        from backtest_pipeline.strategist.llm.settings import LlmSettings

        others = {
            "service settings": ServiceSettings,
            "language model settings": LlmSettings,
            "notice settings": NoticeSettings,
        }
        findings = [*examine(others=others)]
        # Without settings it is not known where the file is.
        if any(finding.name == "settings" and finding.ok for finding in findings):
            findings += [_dagster_settings(), *_certificates_of_the_pool()]
        if deep and all(finding.ok for finding in findings):
            findings += [*examine_deeply(load_settings()), _stored_metrics()]
        progress("examining", 1, 1)
    for finding in findings:
        mark = "[green]ok[/]  " if finding.ok else "[red]fail[/]"
        console.print(mark, end=" ")
        say(f"{finding.name}: {finding.detail}")
        if finding.fix and not finding.ok:
            say(f"     fix: {finding.fix}")
    broken = dict.fromkeys(finding.name for finding in findings if not finding.ok)
    if broken:
        fail(f"needs fixing: {', '.join(broken)}")


def _dagster_settings() -> Finding:
    """Whether Dagster takes an edited `dagster.yaml`, and it has what this package relies on."""
    from backtest_pipeline.defs.instance import valid_instance_file
    from backtest_pipeline.market.errors import ConfigurationError
    from backtest_pipeline.storage.doctor import Finding
    from backtest_pipeline.storage.settings import load_settings

    try:
        file = valid_instance_file(load_settings())
    except ConfigurationError as error:
        what, _, fix = str(error).rpartition("; ")
        return Finding("dagster settings", False, what, fix)
    what, _, fix = (
        file.summary.partition("; ") if file.is_own and file.lacking else (file.summary, "", "")
    )
    return Finding("dagster settings", not fix, what, fix)


def _certificates_of_the_pool() -> list[Finding]:
    """Whether the certificates of a pool hold for another month; nothing where none are needed."""
    from backtest_pipeline.market.errors import ConfigurationError
    from backtest_pipeline.pipeline.pools.tls import validity
    from backtest_pipeline.storage.doctor import Finding
    from backtest_pipeline.storage.settings import load_settings

    name = "certificates of the pool"
    try:
        settings = load_settings()
    except ConfigurationError:
        return []  # the settings are a finding of their own
    folder = settings.pool_tls
    # A host of scheduler or workers alone has them, and no pool. Compose always names a folder.
    if folder is None or (settings.pool != "dask" and not (folder / "ca.pem").exists()):
        return []
    try:
        return [Finding(name, True, validity(folder))]
    except ConfigurationError as error:
        what, _, fix = str(error).partition("; ")
        return [Finding(name, False, what, fix)]


def _stored_metrics() -> Finding:
    from backtest_pipeline.pipeline.audits.stored_metrics import check_stored_metrics
    from backtest_pipeline.pipeline.workspace import open_workspace
    from backtest_pipeline.storage.doctor import Finding

    with open_workspace() as workspace:
        found = check_stored_metrics(workspace)
    wrong = [f"{run_id}: {figure}" for run_id, figure in found.differing.items()]
    wrong += found.unreadable.values()
    if wrong:
        more = f"; {len(wrong)} in all" if len(wrong) > _MOST_WRONG else ""
        detail = "; ".join(wrong[:_MOST_WRONG]) + more
    else:
        runs = "1 run" if found.runs == 1 else f"{found.runs:,} runs"
        n = found.portfolios
        if n:
            runs += " and 1 portfolio" if n == 1 else f" and {n:,} portfolios"
        older = f"; {found.older:,} of an older version not checked" if found.older else ""
        detail = f"those of {runs} follow from their trades and equity{older}"
    return Finding(
        "stored metrics",
        not wrong,
        detail,
        "run what was run on demand again with --full-rebuild, and refresh with --full-rebuild for"
        " the rest; `backtest-pipeline replay RUN` says what else differs",
    )
