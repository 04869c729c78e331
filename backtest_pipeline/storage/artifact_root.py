"""The database and its artifact root know each other by an id, checked when a store is opened.

The id stands in the table `artifact_root` and in the file `store-id` of the root. The first process
that opens a store writes the file; afterwards a root without it, or with another id, is refused.
"""

from __future__ import annotations

from sqlalchemy import Connection, Row, text

from backtest_pipeline.market.errors import OtherArtifactRoot
from backtest_pipeline.storage.artifacts.artifacts import ROOT_ID_FILE, ArtifactStore
from backtest_pipeline.storage.postgres.database import Database

_READ = "SELECT root_id::text AS root_id, place, bound_at FROM artifact_root"
_BIND = "UPDATE artifact_root SET place = :place, bound_at = now()"
_NEWEST_ARTIFACT = """
    SELECT artifact_uri FROM visible_runs
    WHERE status = 'completed' ORDER BY completed_at DESC LIMIT 1
"""


def require_own_root(database: Database, artifacts: ArtifactStore) -> bool:
    """Refuse an artifact root that is not this database's; returns whether it is bound already.

    Raises:
        OtherArtifactRoot: with the root that the database knows.
    """
    with database.begin() as connection:
        row = connection.execute(text(_READ)).one()
        return _is_bound(connection, row, artifacts, database.where)


def bind_root(database: Database, artifacts: ArtifactStore) -> None:
    """Tie the database to its artifact root, once; raises as `require_own_root` afterwards.

    A kill in the middle leaves a root with the id of a database that is not bound yet, which the
    next process binds. Of processes with different roots, only the first succeeds.
    """
    if require_own_root(database, artifacts):
        return
    with database.begin() as connection:
        row = connection.execute(text(f"{_READ} FOR UPDATE")).one()  # another may have been first
        if not _is_bound(connection, row, artifacts, database.where):
            artifacts.write_root_id(row.root_id)
            connection.execute(text(_BIND), {"place": artifacts.where})


def rebind_root(connection: Connection, artifacts: ArtifactStore) -> None:
    """Have a restored database belong to this root: by the root's id, or by a new one.

    Never by the id that was backed up, whose root may still be in use. `bind_root` completes it
    after the transaction, whatever happens in between.
    """
    connection.execute(
        text("""
            UPDATE artifact_root SET place = NULL, bound_at = NULL,
                root_id = coalesce(CAST(:root_id AS UUID), gen_random_uuid())
        """),
        {"root_id": artifacts.root_id()},
    )


def _is_bound(
    connection: Connection, row: Row[tuple[str, str, object]], artifacts: ArtifactStore, where: str
) -> bool:
    there = artifacts.root_id()
    if there == row.root_id:
        return row.bound_at is not None
    if there is not None:
        raise OtherArtifactRoot(
            f"{artifacts.where} holds the artifacts of another store than {where}"
            f"{_known_as(row.place)}; set BACKTEST_ARTIFACTS_URL to the artifacts of this database,"
            " or to a new folder if it has none yet"
        )
    newest = connection.scalar(text(_NEWEST_ARTIFACT))
    if row.bound_at is not None or (newest is not None and not artifacts.has(newest)):
        raise OtherArtifactRoot(
            f"{artifacts.where} does not hold the artifacts of {where}{_known_as(row.place)}; set"
            f" BACKTEST_ARTIFACTS_URL to where they are. If they are lost, write {row.root_id} into"
            f" the file {ROOT_ID_FILE} of that folder, and refresh with --full-rebuild"
        )
    return False


def _known_as(place: str | None) -> str:
    return f", which were at {place} when it was first used" if place else ""
