"""`backtest-pipeline backup` and `restore`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backtest_pipeline.cli.console import print_json, progress_shown, say
from backtest_pipeline.cli.options import AsJson

if TYPE_CHECKING:
    from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
    from backtest_pipeline.storage.postgres.database import Database

app = typer.Typer()
_MOST_NAMED = 20


@app.command()
def backup(
    path: Annotated[Path, typer.Argument(help="The file to write, such as store.tar.zst.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Write the whole store, rows and artifacts of one moment, into one file."""
    with _unmigrated_store("backup") as (database, artifacts):
        from backtest_pipeline.storage.backup.backup import back_up

        report = back_up(database, artifacts, path.absolute())
    if as_json:
        print_json({**vars(report), "path": str(report.path)})
        return
    say(
        f"{report.path}: {report.tables} tables and {report.artifacts:,} files,"
        f" {report.bytes / 1e6:,.1f} MB"
    )
    for uri in report.unsound[:_MOST_NAMED]:
        say(f"not in the backup, as it is missing or damaged: {uri}")
    if len(report.unsound) > _MOST_NAMED:
        say(f"and {len(report.unsound) - _MOST_NAMED:,} more; --json names them")


@app.command()
def restore(
    path: Annotated[Path, typer.Argument(help="A file that `backup` has written.")],
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop the store that is there now.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty store, all or nothing, and migrate it."""
    with _unmigrated_store("restore") as (database, artifacts):
        from backtest_pipeline.storage.backup.restore import restore as load

        report = load(database, artifacts, path.absolute(), replace=replace)
        where, folder = database.where, artifacts.where
    made = report.manifest
    if as_json:
        print_json(
            {
                "database": where,
                "artifacts": folder,
                "files": report.artifacts,
                "tables": len(made.columns),
                "made_at": made.created_at.isoformat(),
                "made_by": made.version,
                "unsound": list(made.unsound),
            }
        )
        return
    say(
        f"restored what release {made.version} backed up at {made.created_at:%F %T} UTC:"
        f" {len(made.columns)} tables into {where}, {report.artifacts:,} files into {folder}"
    )


@contextmanager
def _unmigrated_store(what: str) -> Iterator[tuple[Database, ArtifactStore]]:
    """Database and artifacts as the settings configure them, whatever schema the database has."""
    with progress_shown() as progress:
        progress(what, 0, 1)
        from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
        from backtest_pipeline.storage.postgres.database import open_database
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings()
        database = open_database(settings)
        try:
            yield database, ArtifactStore.of(settings)
        finally:
            database.close()
        progress(what, 1, 1)
