"""How far one run can be trusted: the run made or found, put in doubt, and the findings stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

import pyarrow as pa

from backtest_pipeline.pipeline.runs.identity import canonical_json, hash_of
from backtest_pipeline.pipeline.use_cases.backtest import Made
from backtest_pipeline.pipeline.versions import ROBUSTNESS_CODE
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.research.robustness.draws import require_draws
from backtest_pipeline.research.robustness.repeat import RunInputs
from backtest_pipeline.research.robustness.robustness import DOUBTS, Robustness, assess
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.robustness import publish_robustness, stored_robustness


@retried
def assess_run(
    workspace: Workspace,
    made: Made,
    draws: int,
    seed: int,
    *,
    rebuild: bool = False,
) -> Mapping[str, Any]:
    """Put the one run that was made in doubt, and store what is found.

    What is stored under the same run, draws, seed and code is kept.

    Args:
        workspace: the open store.
        made: one run, and what it was made from.
        draws: repetitions of each random method.
        seed: of the random numbers.
        rebuild: compute also what is stored.

    Returns:
        The row of `run_robustness`.

    Raises:
        InvalidInput: for draws or a seed out of range.
    """
    require_draws(draws, seed)
    (run,) = made.runs
    workspace.progress("robustness", 0, 1)
    found = None if rebuild else _stored(workspace, run["run_id"])
    if found is None or not _is_kept(workspace, found, draws, seed):
        traded, terms = made.tradable, made.terms
        inputs = RunInputs(traded.panel, traded.events, terms.config, funding=terms.funding)
        _store(workspace, run, assess(inputs, draws=draws, seed=seed))
        found = _stored(workspace, run["run_id"])
    assert found is not None  # noqa: S101  (it was just stored)
    workspace.progress("robustness", 1, 1)
    return found


def _stored(workspace: Workspace, run_id: UUID) -> dict[str, Any] | None:
    with workspace.database.begin() as connection:
        return stored_robustness(connection, run_id)


def _is_kept(workspace: Workspace, found: Mapping[str, Any], draws: int, seed: int) -> bool:
    """Whether it was found in the same way, and its files are whole."""
    how = (found["draws"], found["seed"], found["code_version"])
    same = how == (draws, seed, ROBUSTNESS_CODE)
    return same and workspace.artifacts.is_intact(found["artifact_uri"])


def _store(workspace: Workspace, run: Mapping[str, Any], found: Robustness) -> None:
    """Files first, then the row that points to them."""
    run_id, tf = str(run["run_id"]), run["tf"]
    uri = f"robustness/{tf}/{hash_of([run_id, found.draws, found.seed, ROBUSTNESS_CODE])}"
    files = {
        "bands.parquet": pa.Table.from_pandas(found.bands.reset_index(), preserve_index=False),
        "samples.parquet": pa.Table.from_pandas(found.samples, preserve_index=False),
    }
    about = {"run_id": run_id, "draws": found.draws, "seed": found.seed}
    row = {
        "run_id": run_id,
        "seed": found.seed,
        "draws": found.draws,
        "fragile": found.fragile,
        "reasons": list(found.reasons),
        **{name: found.numbers[name] for name in DOUBTS},
        "envelope": canonical_json([asdict(scenario) for scenario in found.scenarios]),
        "undefined": canonical_json(found.undefined),
        "code_version": ROBUSTNESS_CODE,
        "artifact_uri": uri,
    }
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        copy.lock_cells(cursor, "robustness", tf, [run["id"]])
        workspace.artifacts.put_directory(uri, files, about)
        publish_robustness(cursor, tf, run["id"], pa.Table.from_pylist([row], _schema()))


def _schema() -> pa.Schema:
    """Types that hold where every value of a column is NULL or a list is empty."""
    return pa.schema(
        [
            ("run_id", pa.string()),
            ("seed", pa.int64()),
            ("draws", pa.int64()),
            ("fragile", pa.bool_()),
            ("reasons", pa.list_(pa.string())),
            *((name, pa.float64()) for name in DOUBTS),
            *((name, pa.string()) for name in ("envelope", "undefined")),
            *((name, pa.string()) for name in ("code_version", "artifact_uri")),
        ]
    )
