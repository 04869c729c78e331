"""Robustness tests of one run, and storing their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

import pyarrow as pa

from backtest_pipeline.pipeline.runs.identity import canonical_json, hash_of
from backtest_pipeline.pipeline.stages.features import load_daily
from backtest_pipeline.pipeline.use_cases.backtest import Made
from backtest_pipeline.pipeline.versions import ROBUSTNESS_CODE
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.research.robustness.draws import require_draws
from backtest_pipeline.research.robustness.permuted_bars import bars_of, rule_of
from backtest_pipeline.research.robustness.repeat import Rule, RunInputs
from backtest_pipeline.research.robustness.robustness import DOUBTS, Robustness, assess
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.robustness import publish_robustness, stored_robustness
from backtest_pipeline.strategies.registry import strategy_of


@retried
def assess_run(
    workspace: Workspace,
    made: Made,
    draws: int,
    seed: int,
    *,
    rebuild: bool = False,
) -> Mapping[str, Any]:
    """Run the robustness tests on one run, and store the results.

    Results already stored for the same run, draws, seed and code are returned as they are.

    Args:
        workspace: the open store.
        made: one run with its inputs.
        draws: number of draws of each resampling method.
        seed: seed of the random numbers.
        rebuild: recompute even if results are stored.

    Returns:
        The row of `run_robustness`.

    Raises:
        InvalidInput: for draws or a seed out of range.
    """
    require_draws(draws, seed)
    (run,) = made.runs
    workspace.progress("robustness", 0, 1)
    row = None if rebuild else _stored(workspace, run["run_id"])
    if row is None or not _is_kept(workspace, row, draws, seed):
        traded, terms = made.tradable, made.terms
        inputs = RunInputs(
            traded.panel,
            traded.events,
            terms.config,
            funding=terms.funding,
            daily=load_daily(workspace, traded.panel).days,
            # A user's own features and columns do not follow from permuted bars.
            rule=_rule(made) if workspace.external is None and not traded.own.sets else None,
        )
        _store(workspace, run, assess(inputs, draws=draws, seed=seed))
        row = _stored(workspace, run["run_id"])
    assert row is not None  # noqa: S101  (it was just stored)
    workspace.progress("robustness", 1, 1)
    return row


def _rule(made: Made) -> Rule:
    strategy = strategy_of(made.signal.strategy)
    before = int(made.tradable.panel.ts[0])
    return Rule(
        rule_of(strategy, strategy.parse(made.signal.params)), bars_of(made.features, before)
    )


def _stored(workspace: Workspace, run_id: UUID) -> dict[str, Any] | None:
    with workspace.database.begin() as connection:
        return stored_robustness(connection, run_id)


def _is_kept(workspace: Workspace, row: Mapping[str, Any], draws: int, seed: int) -> bool:
    """Whether stored results have the same settings and code, and their files are intact."""
    how = (row["draws"], row["seed"], row["code_version"])
    same = how == (draws, seed, ROBUSTNESS_CODE)
    return same and workspace.artifacts.is_intact(row["artifact_uri"])


def _store(workspace: Workspace, run: Mapping[str, Any], result: Robustness) -> None:
    """Store the files first, then the row that points to them."""
    run_id, tf = str(run["run_id"]), run["tf"]
    uri = f"robustness/{tf}/{hash_of([run_id, result.draws, result.seed, ROBUSTNESS_CODE])}"
    files = {
        "bands.parquet": pa.Table.from_pandas(result.bands.reset_index(), preserve_index=False),
        "samples.parquet": pa.Table.from_pandas(result.samples, preserve_index=False),
    }
    about = {"run_id": run_id, "draws": result.draws, "seed": result.seed}
    row = {
        "run_id": run_id,
        "seed": result.seed,
        "draws": result.draws,
        "fragile": result.fragile,
        "reasons": list(result.reasons),
        **{name: result.numbers[name] for name in DOUBTS},
        "envelope": canonical_json([asdict(scenario) for scenario in result.scenarios]),
        "undefined": canonical_json(result.undefined),
        "code_version": ROBUSTNESS_CODE,
        "artifact_uri": uri,
    }
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        copy.lock_cells(cursor, "robustness", tf, [run["id"]])
        workspace.artifacts.put_directory(uri, files, about)
        publish_robustness(cursor, tf, run["id"], pa.Table.from_pylist([row], _schema()))


def _schema() -> pa.Schema:
    """Column types, which Arrow cannot infer from NULLs and empty lists."""
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
