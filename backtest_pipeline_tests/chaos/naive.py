"""A publisher as they are often written: the harness must find fault with it, or proves nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backtest_pipeline.pipeline.runs.publish import Publication
from backtest_pipeline.pipeline.stages import backtests
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline_tests.pipeline.markets import StaticSource
from backtest_pipeline_tests.pipeline.processes import refresh_store, started

_UNHURRIED_S = 0.4  # as long as rows by the million take
_publish, _put_directory = backtests.publish, ArtifactStore.put_directory


def naively_refreshing(workspace: Workspace, source: StaticSource, about: str) -> ForkServerProcess:
    """A process that refreshes, and is naive about `rows` or about `files`; started."""
    store = (workspace.database.conninfo, workspace.artifacts.root, source)
    return started(_refresh, about, *store)


def _refresh(about: str, conninfo: str, root: Path, source: StaticSource) -> None:
    if about == "rows":
        backtests.publish = _delete_commit_insert
    else:
        ArtifactStore.put_directory = _write_in_place
    refresh_store(conninfo, root, source, rebuild=False)


def _delete_commit_insert(
    artifacts: ArtifactStore, cursor: copy.Cursor, published: Publication
) -> None:
    """What is there goes, and is gone for all to see; then comes the new."""
    ids = published.runs["id"].unique().to_pylist()
    (tf,) = published.runs["tf"].unique().to_pylist()
    statement = "DELETE FROM backtest_runs WHERE tf = $1 AND id = ANY($2::int[])"
    copy.run(cursor, statement, tf, list(ids))
    cursor.connection.commit()
    time.sleep(_UNHURRIED_S)
    _publish(artifacts, cursor, published)


def _write_in_place(
    self: ArtifactStore, uri: str, tables: Mapping[str, pa.Table], about: Mapping[str, Any]
) -> None:
    """Files under their final names from the first byte on."""
    folder = self.root / uri
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with pq.ParquetWriter(folder / name, table.schema) as writer:
            for batch in table.to_batches(max_chunksize=max(1, table.num_rows // 4)):
                writer.write_batch(batch)
                time.sleep(_UNHURRIED_S / 12)
    _put_directory(self, uri, tables, about)
