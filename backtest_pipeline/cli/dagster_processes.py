"""`backtest-pipeline code-server`, `webserver`, `daemon`: what `up` runs, one by one; `health`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from backtest_pipeline.cli.console import fail, progress_shown, say
from backtest_pipeline.cli.up import (
    READ_ON_THE_WAY,
    AllowRemote,
    HostNames,
    ensure_schema,
    guarded_ui,
    interrupted_alike,
    refuse_remote,
    say_what_is_lacking,
    set_up_store,
)

_CODE = "127.0.0.1:4000"

app = typer.Typer()
_CodeServer = Annotated[
    str, typer.Option(help="Where the code server listens.", metavar="HOST:PORT")
]


@app.command("code-server")
def code_server(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 4000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    allow_remote: AllowRemote = False,
) -> None:
    """Serve the code location to a webserver and a daemon elsewhere, and run what they launch.

    Whoever reaches the port can run everything: it knows no token. What ends by itself is started
    again.
    """
    refuse_remote(
        host,
        allow_remote,
        "whoever reaches the port can run everything; use 127.0.0.1, or a network of these "
        "processes alone with --allow-remote",
    )
    with progress_shown() as progress:
        progress("store", 0, 1)
        from backtest_pipeline.defs.processes.health import CodeAddress
        from backtest_pipeline.defs.processes.separate_programs import run_code_server
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings()
        database, left_out = set_up_store(settings)
        progress("store", 1, 1)
    for sentence in left_out:
        say(f"left out: {sentence}")
    say_what_is_lacking(settings)
    address = CodeAddress(host, port)
    say(f"code server: {address} (Ctrl-C stops it, and its runs)")
    with interrupted_alike(database):
        run_code_server(settings, database, address)


@app.command()
def webserver(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the Dagster UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the Dagster UI.")] = "127.0.0.1",
    allow_remote: AllowRemote = False,
    names: HostNames = "",
    code_server: _CodeServer = _CODE,
) -> None:
    """Serve the Dagster UI of a code server elsewhere, behind the same guard as `up` does.

    The address that it prints lets a browser in. What ends by itself is started again.
    """
    from backtest_pipeline.service.listening import listen

    refuse_remote(host, allow_remote, READ_ON_THE_WAY)
    with listen(host, port) as listening:
        with progress_shown() as progress:
            progress("store", 0, 1)
            from backtest_pipeline.defs.processes.health import CodeAddress
            from backtest_pipeline.defs.processes.separate_programs import run_webserver
            from backtest_pipeline.storage.postgres.database import open_database
            from backtest_pipeline.storage.settings import load_settings

            code = CodeAddress.parse(code_server)
            settings = load_settings()
            ensure_schema(settings)
            database = open_database(settings)
            progress("store", 1, 1)
        say_what_is_lacking(settings)
        ui = guarded_ui(settings, listening, host, names, allow_remote=allow_remote)
        say(f"Dagster UI: {ui.first_page} (Ctrl-C stops it)")
        with interrupted_alike(database):
            run_webserver(settings, ui, code)


@app.command()
def daemon(code_server: _CodeServer = _CODE) -> None:
    """Run the daemon for a code server elsewhere: it launches queued runs, sensors and schedules.

    A store has one daemon; another one is refused. What ends by itself is started again.
    """
    with progress_shown() as progress:
        progress("store", 0, 1)
        from backtest_pipeline.defs.processes.health import CodeAddress
        from backtest_pipeline.defs.processes.separate_programs import run_daemon
        from backtest_pipeline.storage.postgres.database import open_database
        from backtest_pipeline.storage.settings import load_settings

        code = CodeAddress.parse(code_server)
        settings = load_settings()
        ensure_schema(settings)
        database = open_database(settings)
        progress("store", 1, 1)
    say_what_is_lacking(settings)
    say(f"daemon of the code server at {code} (Ctrl-C stops it)")
    with interrupted_alike(database):
        run_daemon(settings, database, code)


@app.command()
def health(
    part: Annotated[
        Literal["code-server", "webserver", "daemon"], typer.Argument(help="What to look at.")
    ],
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="HOST:PORT",
            help="Where it listens; default: port 4000 or 3000 of this machine.",
        ),
    ] = "",
) -> None:
    """Say whether a part of Dagster does what it is there for; exit code 1 where it does not.

    A code server answers once it has loaded the code location, a webserver has it loaded, and each
    part of the daemon has given a sign of life within two minutes.
    """
    from backtest_pipeline.defs.processes import health as examined
    from backtest_pipeline.storage.settings import load_settings

    if part == "code-server":
        problem = examined.code_server_problem(examined.CodeAddress.parse(at or _CODE))
    elif part == "webserver":
        from backtest_pipeline.defs.processes.guard import token_file

        path = token_file(load_settings())
        address = examined.CodeAddress.parse(at or "127.0.0.1:3000")
        problem = (
            examined.webserver_problem(f"http://{address}", path.read_text().strip())
            if path.exists()
            else f"it has not been started with this home: there is no {path}"
        )
    else:
        from contextlib import closing

        from backtest_pipeline.storage.postgres.database import open_database

        with closing(open_database(load_settings())) as database:
            problem = examined.daemon_problem(database)
    if problem is not None:
        fail(f"{part}: {problem}")
    say(f"{part}: well")
