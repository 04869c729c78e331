"""The table `feature_checkpoints`: the state from which features are continued for new bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.provenance import Checkpoint

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor


@dataclass(frozen=True)
class FeatureCheckpoint:
    """The state from which the features of a partition's newer rows are computed.

    Attributes:
        code_version: declared version of the code that computed the earlier rows.
        input_generation: generation of the bars they were computed from.
        rows: number of earlier rows, which are not recomputed, and their hash.
        standing: float64 `(n_averages, 2)`, as `resume_features` returned it for these rows.
    """

    code_version: str
    input_generation: str
    rows: Checkpoint
    standing: np.ndarray


def read_checkpoints(
    cursor: Cursor, timeframe: str, ids: Mapping[str, int]
) -> dict[str, FeatureCheckpoint]:
    """The stored checkpoints of these assets at a timeframe."""
    rows = copy.fetch(
        cursor,
        "SELECT id, code_version, input_generation, n_rows, digest, standing"
        " FROM feature_checkpoints WHERE tf = $1 AND id = ANY($2::int[])",
        timeframe,
        list(ids.values()),
    )
    levels = rows["standing"].combine_chunks()
    bounds, values = levels.offsets.to_numpy(), levels.values.to_numpy()
    names = ("id", "code_version", "input_generation", "n_rows", "digest")
    by_id = {
        row[0]: FeatureCheckpoint(
            row[1], row[2], Checkpoint(row[3], row[4]), values[start:stop].reshape(-1, 2)
        )
        for *row, start, stop in zip(
            *(rows[name].to_pylist() for name in names), bounds, bounds[1:], strict=False
        )
    }
    return {asset: by_id[i] for asset, i in ids.items() if i in by_id}


def write_checkpoints(
    cursor: Cursor,
    timeframe: str,
    ids: Mapping[str, int],
    checkpoints: Mapping[str, FeatureCheckpoint],
) -> None:
    """Replace all stored checkpoints of these assets."""
    if not checkpoints:
        _delete(cursor, timeframe, list(ids.values()))
        return
    _delete(cursor, timeframe, [i for asset, i in ids.items() if asset not in checkpoints])
    given = list(checkpoints.values())
    flat = pa.array(np.concatenate([c.standing.ravel() for c in given]))
    bounds = np.concatenate(([0], np.cumsum([c.standing.size for c in given]))).astype(np.int32)
    copy.stage(
        cursor,
        "staged_checkpoints",
        pa.table(
            {
                "id": pa.array([ids[asset] for asset in checkpoints], pa.int32()),
                "code_version": [c.code_version for c in given],
                "input_generation": [c.input_generation for c in given],
                "n_rows": pa.array([c.rows.n_rows for c in given], pa.int64()),
                "digest": [c.rows.digest for c in given],
                "standing": pa.ListArray.from_arrays(pa.array(bounds), flat),
            }
        ),
    )
    copy.run(
        cursor,
        "INSERT INTO feature_checkpoints (id, tf, code_version, input_generation, n_rows, digest,"
        " standing) SELECT id, $1, code_version, input_generation, n_rows, digest, standing"
        " FROM staged_checkpoints ON CONFLICT (id, tf) DO UPDATE SET"
        " code_version = excluded.code_version, input_generation = excluded.input_generation,"
        " n_rows = excluded.n_rows, digest = excluded.digest, standing = excluded.standing,"
        " updated_at = now() WHERE (feature_checkpoints.code_version,"
        " feature_checkpoints.input_generation, feature_checkpoints.n_rows,"
        " feature_checkpoints.digest) IS DISTINCT FROM"
        " (excluded.code_version, excluded.input_generation, excluded.n_rows, excluded.digest)",
        timeframe,
    )


def _delete(cursor: Cursor, timeframe: str, ids: list[int]) -> None:
    if ids:
        copy.run(
            cursor,
            "DELETE FROM feature_checkpoints WHERE tf = $1 AND id = ANY($2::int[])",
            timeframe,
            ids,
        )
