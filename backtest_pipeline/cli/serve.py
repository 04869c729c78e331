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
keys = typer.Typer(help="API keys of the HTTP service: create, list, revoke.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default: BACKTEST_SERVICE_HOST.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; default: BACKTEST_SERVICE_PORT.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes; default: BACKTEST_OPTIMIZER_MAX_CONCURRENCY."),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Require no API key; loopback addresses only.")
    ] = False,
) -> None:
    """Serve backtests, jobs and results over HTTP until Ctrl-C or SIGTERM."""
    from backtest_pipeline.service.listening import listen
    from backtest_pipeline.service.settings import load_service_settings

    overrides = {
        "service_host": host,
        "service_port": port,
        "optimizer_max_concurrency": workers,
        "service_auth": "off" if no_auth else None,
    }
    service = load_service_settings(**{k: v for k, v in overrides.items() if v is not None})
    with listen(service.service_host, service.service_port) as listening:
        with progress_shown() as progress:
            progress("loading", 0, 1)
            from backtest_pipeline.cli.up import ensure_schema
            from backtest_pipeline.service.server import serve
            from backtest_pipeline.storage.settings import load_settings

            settings = load_settings()
            ensure_schema(settings)
            progress("loading", 1, 1)
        if service.service_auth == "off":
            console.print("authentication is off: everyone on this machine has full access")
        serve(settings, service, listening)


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="User name, recorded with jobs and runs.")],
    role: Annotated[str, typer.Option(help="viewer (reads) or runner (computes).")] = "viewer",
    rate: Annotated[int, typer.Option(help="Requests per minute.")] = 600,
    expires_days: Annotated[
        float | None, typer.Option(help="Days until it expires; default: never.")
    ] = None,
) -> None:
    """Create a key and print it: it is shown only once, and only its hash is stored."""
    from backtest_pipeline.storage.tables.api_keys import create_key, require_terms

    require_terms(name, role, rate, expires_days)
    with _store() as database, database.begin() as connection:
        key = create_key(connection, name, role, rate, expires_days)
    typer.echo(key)


@keys.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List all keys, without their secrets."""
    from backtest_pipeline.storage.tables.api_keys import list_keys

    with _store() as database, database.begin() as connection:
        rows = [_row(key) for key in list_keys(connection)]
    if as_json:
        print_json({"keys": rows})
    elif rows:
        console.print(rows_table("Keys", rows))
    else:
        say("no key yet; `backtest-pipeline keys create --name desk --role runner` makes one")


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, from `keys list`.")],
) -> None:
    """Revoke a key: it is refused from the next request on."""
    from backtest_pipeline.storage.tables.api_keys import revoke_key

    with _store() as database, database.begin() as connection:
        key = revoke_key(connection, key_id)
    say(f"{key.key_id} ({key.name}) is revoked")


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
