"""`backtest-pipeline up`, `migrate` and `doctor`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from backtest_pipeline.cli.console import console, fail, progress_shown, say

if TYPE_CHECKING:
    from backtest_pipeline.storage.settings import Settings

_log = logging.getLogger(__name__)
_STOP_SECONDS = 20

app = typer.Typer()


def ensure_schema(settings: Settings) -> None:
    """Migrate the embedded store; a server of the user's own is migrated only when asked to.

    Before that, as every command that uses the store comes by here, warn of variables that look
    like settings and are none.
    """
    from backtest_pipeline.service.settings import ServiceSettings
    from backtest_pipeline.storage.postgres.database import open_database
    from backtest_pipeline.storage.postgres.migrations import check
    from backtest_pipeline.storage.postgres.migrations import migrate as apply
    from backtest_pipeline.storage.settings import Settings, unread_variables

    for sentence in unread_variables(Settings, ServiceSettings):
        _log.warning(sentence)
    database = open_database(settings)
    try:
        if settings.run_store_mode == "embedded":
            apply(database)
        else:
            check(database)
    finally:
        database.close()


@app.command()
def migrate() -> None:
    """Bring the database schema up to date."""
    with progress_shown() as progress:
        progress("migrating", 0, 1)
        from backtest_pipeline.storage.postgres.database import open_database
        from backtest_pipeline.storage.postgres.migrations import migrate as apply
        from backtest_pipeline.storage.settings import load_settings

        database = open_database(load_settings())
        try:
            applied = apply(database)
            where = database.where
        finally:
            database.close()
        progress("migrating", 1, 1)
    for name in applied:
        say(f"applied {name}")
    say(f"{where}: the schema is up to date")


@app.command()
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the Dagster UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the Dagster UI.")] = "127.0.0.1",
) -> None:
    """Start the store, the Dagster UI, its daemon and the code location; Ctrl-C stops all."""
    with progress_shown() as progress:
        progress("store", 0, 1)
        from backtest_pipeline.defs.instance import dagster_environment, open_instance
        from backtest_pipeline.defs.partitions import register_partitions
        from backtest_pipeline.defs.resources import SourceResource
        from backtest_pipeline.launch import offered_assets
        from backtest_pipeline.storage.postgres.database import open_database
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings()
        ensure_schema(settings)
        offered = offered_assets(settings, SourceResource())
        database = open_database(settings)
        with open_instance(settings, database) as instance:
            register_partitions(instance, offered.symbols)
        environment = {**os.environ, **dagster_environment(settings, database)}
        database.close()
        progress("store", 1, 1)
    for sentence in offered.left_out:
        say(f"left out: {sentence}")
    command = [
        *(sys.executable, "-m", "dagster", "dev"),
        *("-m", "backtest_pipeline.definitions", "-h", host, "-p", str(port)),
    ]
    console.print(f"Dagster UI: http://{host}:{port} (Ctrl-C stops everything)", highlight=False)
    # Dagster copies how SIGINT is handled to its children: from a shell that ignores SIGINT
    # (a background job) they could then only be killed.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        code = _stop(process)
    sys.exit(code)


def _stop(process: subprocess.Popen[bytes]) -> int:
    """Interrupt Dagster as Ctrl-C would, and kill what is left of its group in the end."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        console.print(f"Dagster did not stop within {_STOP_SECONDS} s and was killed")
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return 0


@app.command()
def doctor(
    *,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also compare every artifact with its hash.")
    ] = False,
) -> None:
    """Check settings, store, schema, artifacts and disk, and say how to fix what is wrong."""
    with progress_shown() as progress:
        progress("examining", 0, 1)
        from backtest_pipeline.service.settings import ServiceSettings
        from backtest_pipeline.storage.doctor import examine, examine_deeply
        from backtest_pipeline.storage.settings import load_settings

        findings = list(examine(others={"service settings": ServiceSettings}))
        if deep and all(finding.ok for finding in findings):
            findings += examine_deeply(load_settings())
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
