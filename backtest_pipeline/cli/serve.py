"""`backtest-pipeline serve` and `keys`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest_pipeline.cli.console import console, print_json, progress_shown, rows_table, say
from backtest_pipeline.cli.options import AsJson

if TYPE_CHECKING:
    from backtest_pipeline.storage.postgres.database import Database
    from backtest_pipeline.storage.tables.api_keys import ApiKey

app = typer.Typer()
keys = typer.Typer(help="Keys of the HTTP service.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default BACKTEST_SERVICE_HOST.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; default BACKTEST_SERVICE_PORT.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Warm processes that compute; else BACKTEST_OPTIMIZER_MAX_CONCURRENCY."),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask nobody for a key; on loopback alone.")
    ] = False,
) -> None:
    """Serve backtests, jobs and results over HTTP until Ctrl-C or SIGTERM."""
    from backtest_pipeline.service.settings import load_service_settings

    given = {
        "service_host": host,
        "service_port": port,
        "optimizer_max_concurrency": workers,
        "service_auth": "off" if no_auth else None,
    }
    service = load_service_settings(**{k: v for k, v in given.items() if v is not None})
    with progress_shown() as progress:
        progress("loading", 0, 1)
        from backtest_pipeline.cli.up import ensure_schema
        from backtest_pipeline.service.server import serve
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings()
        ensure_schema(settings)
        progress("loading", 1, 1)
    if service.service_auth == "off":
        console.print("no key is asked for: whoever uses this machine may do everything")
    serve(settings, service)


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="Whom it is for; jobs and runs remember it.")],
    role: Annotated[str, typer.Option(help="viewer (reads) or runner (computes).")] = "viewer",
    rate: Annotated[int, typer.Option(help="Requests a minute.")] = 600,
    expires_days: Annotated[
        float | None, typer.Option(help="Days that it counts; for ever if not given.")
    ] = None,
) -> None:
    """Make a key and print it: it is shown this once, and only its hash is stored."""
    from backtest_pipeline.storage.tables.api_keys import create_key

    with _store() as database, database.begin() as connection:
        key = create_key(connection, name, role, rate, expires_days)
    typer.echo(key)


@keys.command("list")
def list_all(as_json: AsJson = False) -> None:
    """Show all keys, without what would let anybody use them."""
    from backtest_pipeline.storage.tables.api_keys import list_keys

    with _store() as database, database.begin() as connection:
        rows = [_row(key) for key in list_keys(connection)]
    if as_json:
        print_json({"keys": rows})
    elif rows:
        console.print(rows_table("Keys", rows))
    else:
        say("no key yet; backtest-pipeline keys create --name desk --role runner")


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")],
) -> None:
    """Let a key count no more, from the next request on."""
    from backtest_pipeline.storage.tables.api_keys import revoke_key

    with _store() as database, database.begin() as connection:
        key = revoke_key(connection, key_id)
    say(f"{key.key_id} ({key.name}) counts no more")


@contextmanager
def _store() -> Iterator[Database]:
    from backtest_pipeline.cli.up import ensure_schema
    from backtest_pipeline.storage.postgres.database import open_database
    from backtest_pipeline.storage.settings import load_settings

    settings = load_settings()
    ensure_schema(settings)
    database = open_database(settings)
    try:
        yield database
    finally:
        database.close()


def _row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "name": key.name,
        "role": key.role,
        "rate": key.rate_per_minute,
        "created": _day(key.created_at),
        "expires": _day(key.expires_at),
        "revoked": _day(key.revoked_at),
    }


def _day(at: datetime | None) -> str | None:
    return f"{at:%Y-%m-%d %H:%M}" if at else None
