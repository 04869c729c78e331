"""`backtest-pipeline pool`: scheduler and workers of a Dask cluster, and their certificates."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from backtest_pipeline.cli.console import say

app = typer.Typer()
pool = typer.Typer(
    name="pool",
    help="Workers on several machines (docs/scaling.md).",
    no_args_is_help=True,
)
app.add_typer(pool)
_HealthPort = Annotated[
    int,
    typer.Option(
        min=0,
        max=65535,
        help="Port at which this host alone may ask how it is; 0 takes any that is free.",
    ),
]


@pool.command()
def certificates(
    folder: Annotated[Path, typer.Argument(help="Folder for ca.pem, cert.pem and key.pem.")],
) -> None:
    """Make a CA and one certificate, which scheduler, workers and clients show each other.

    Does nothing where the folder has some that hold for another month."""
    from backtest_pipeline.pipeline.pools.tls import make_certificates

    folder = folder.expanduser().resolve()  # the setting wants a whole path
    wrote = make_certificates(folder)
    say(f"{folder}: {'made' if wrote else 'there already'}; set BACKTEST_POOL_TLS to this folder")


@pool.command()
def scheduler(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8786,
    health_port: _HealthPort = 0,
) -> None:
    """Run the scheduler until it is stopped; have it restarted whenever it ends.

    At the health port, `/health` answers 200 where the scheduler does."""
    from backtest_pipeline.pipeline.pools.dask_programs import scheduler_program

    _become(*scheduler_program(host, port, health_port))


@pool.command()
def worker(health_port: _HealthPort = 0) -> None:
    """Run BACKTEST_POOL_WORKERS workers of the scheduler at BACKTEST_POOL_ADDRESS.

    They end when the scheduler is gone, without an error: have them restarted whenever they do. At
    the health port, `/ready` answers 200 where the scheduler has taken the first of them."""
    from backtest_pipeline.pipeline.pools.dask_programs import worker_program

    _become(*worker_program(health_port))


@pool.command()
def status() -> None:
    """Show the scheduler's workers that have this code, these packages and this store.

    Fails where there is none."""
    from backtest_pipeline.pipeline.pools.dask_programs import workers_there

    say(workers_there())


def _become(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Replace this process, so that signals and exit status are the program's own."""
    sys.stdout.flush()
    os.execve(command[0], command, {**os.environ, **environment})  # noqa: S606
