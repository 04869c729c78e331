"""The leaderboard: all current runs ranked by deflated Sharpe ratio, or the reason for no rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.pipeline.ranking.deflation import strategies_tried
from backtest_pipeline.pipeline.runs.identity import canonical_json, hash_of
from backtest_pipeline.pipeline.versions import LEADERBOARD_CODE, PLANNED
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.research.ranking.leaderboard import (
    DERIVED,
    RUN_COLUMNS,
    SCHEMES,
    TRIED,
    Gate,
    board,
    gates_of,
    with_significance,
)
from backtest_pipeline.research.ranking.trials import Family
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES
from backtest_pipeline.storage.run_tables.engine_checks import EngineAgreement, engine_agreement
from backtest_pipeline.storage.run_tables.leaderboard import (
    GateSet,
    board_faults,
    board_rows,
    gate_set,
    newest_board,
    publish_board,
    register_gate_set,
    runs_to_rank,
)
from backtest_pipeline.trading.engine_names import EngineName

DEFAULT_GATES = "default"
_METRICS = {metric for scheme in SCHEMES for metric in scheme.weights}
_PAID = ("fees_paid", "slippage_cost", "funding_paid")
_DAILY = {"daily_skew": "skew", "daily_kurtosis": "kurtosis"}
READ = (
    *(name for name in RUN_COLUMNS if name in METRIC_NAMES and name not in _DAILY.values()),
    *_PAID,
)
"""The metrics that a board reads: of many runs, reading all takes longer than ranking them."""
SYNTHETIC = "a synthetic asset, in a store that has runs of real ones"
_NO_SHARPE = "no Sharpe ratio: fewer than two daily returns, or returns that never vary"
QUARANTINED = "in quarantine: its replay gave a different result, see table quarantined_runs"
_BY_HAND = "not from the latest refresh: its window, signal or settings differ from the others'"
_OF_PLANS = (
    "a run under the plans of a book, which are chosen day by day: its dsr in backtest_metrics "
    "counts each plan as a trial"
)
_IN_TRAINING = (
    "within_training: a run under the plans of a language model that may have read these bars in "
    "training"
)
_OUT_OF_SAMPLE = (
    "out-of-sample run of a walk-forward, on fewer bars than the others: see its verdict in "
    "walk_forward_runs and its dsr in backtest_metrics"
)
_OF_VECTORBT = "simulated by vectorbt, and the runs that are ranked by the account"
_UNCOUNTED = "not in the trial ledger, which is newer than the run; refresh with --full-rebuild"


@dataclass(frozen=True)
class StoredBoard:
    """A stored leaderboard.

    Attributes:
        about: its row of `leaderboards`, with `gate_set`, `gates`, `registered_at`, and
            `open_gate_sets`, the names of the sets that were registered before its results.
        rows: its runs, best first, unranked ones last.
        agreement: how far vectorbt has followed all current runs, and what differs.
        is_new: whether this call published it.
    """

    about: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    agreement: EngineAgreement
    is_new: bool

    @property
    def gate_sets_not_shown(self) -> list[str]:
        """The other gate sets that it could have been judged by, by name."""
        return [name for name in self.about["open_gate_sets"] if name != self.about["gate_set"]]


@retried
def register_gates(workspace: Workspace, name: str, gates: Sequence[Mapping[str, Any]]) -> GateSet:
    """Register a gate set, before the runs it is to judge; it can never be changed afterwards.

    Args:
        workspace: the open store.
        name: name of the gate set.
        gates: gates with name, metric, and at_least or at_most.

    Raises:
        InvalidInput, UnknownName: for an invalid gate, or a name or gates already registered.
    """
    gates_of(gates)
    with workspace.database.begin() as connection:
        return register_gate_set(connection, name, canonical_json([dict(gate) for gate in gates]))


@retried
def publish_leaderboard(
    workspace: Workspace, *, gates: str = DEFAULT_GATES, late_gates: bool = False
) -> StoredBoard:
    """Rank all current runs and publish the board, unless the newest board is the same.

    Args:
        workspace: an open store.
        gates: name of a registered gate set.
        late_gates: accept gates registered after a ranked configuration was first tried; the
            board then says so in `registered_after_results`.

    Raises:
        UnknownName: for a gate set that is not registered.
        InvalidInput: for gates registered after the first results, unless `late_gates`.
    """
    with workspace.database.begin() as connection:
        chosen = gate_set(connection, gates)
        runs = runs_to_rank(connection, READ)
        newest = newest_board(connection)
    tried = strategies_tried(workspace)
    late = [run for run in runs if not _unranked(run) and run["first_tried"] < chosen.registered_at]
    if late and not late_gates:
        raise InvalidInput(
            f"gate set {gates!r} was registered at {chosen.registered_at:%F %T} UTC, after "
            f"{len(late)} of the configurations it would judge were first tried. Gates chosen "
            "when results are known prove nothing, and recomputing the results does not change "
            "that. Use --late-gates to accept them; the leaderboard will say so"
        )
    board_id = hash_of(
        {
            "runs": sorted([str(run["run_id"]), run["result_fingerprint"]] for run in runs),
            "apart": sorted(str(run["run_id"]) for run in runs if run["quarantined_at"]),
            "tried": {name: [of.n_trials, of.n_effective] for name, of in tried.items()},
            "gates": [chosen.gate_set_id, bool(late)],
            "code": LEADERBOARD_CODE,
        }
    )
    is_new = newest is None or newest["board_id"] != board_id
    if is_new:
        rows = _rows_of(runs, tried, gates_of(chosen.gates))
        _publish(workspace, board_id, chosen, rows, bool(late))
    return StoredBoard(*_newest(workspace), is_new)


def _unranked(run: Mapping[str, Any]) -> str | None:
    """The reason why a run has no rank; None where it can be ranked."""
    if run["quarantined_at"]:
        return QUARANTINED
    if run["synthetic_beside_real"]:
        return SYNTHETIC
    if run["split"] == PLANNED:
        return _IN_TRAINING if run["within_training"] else _OF_PLANS
    if run["split"] == "walk_forward":
        return _OUT_OF_SAMPLE
    if run["engine"] != EngineName.ACCOUNT:
        return _OF_VECTORBT
    if not run["of_refresh"]:
        return _BY_HAND
    return _UNCOUNTED if run["first_tried"] is None else None


def _newest(
    workspace: Workspace,
) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]], EngineAgreement]:
    with workspace.database.begin() as connection:
        about = newest_board(connection)
        if about is None:
            raise InvalidInput(
                "no leaderboard has been published yet; run `backtest-pipeline leaderboard`"
            )
        return about, board_rows(connection, about["board_id"]), engine_agreement(connection)


def _rows_of(
    runs: Sequence[Mapping[str, Any]], tried: Mapping[str, Family], gates: Sequence[Gate]
) -> list[dict[str, Any]]:
    """Rows of `leaderboard`: ranked runs first, then unranked ones."""
    rows, unranked = [], [(run, why) for run in runs if (why := _unranked(run))]
    comparable = [run for run in runs if not _unranked(run)]
    if comparable:
        judged = with_significance(_frame(comparable, tried))
        ranked = judged["dsr"].notna().to_numpy()
        if ranked.any():
            ranking = board(pd.DataFrame(judged[ranked]), gates)
            parts = (ranking.runs, ranking.scores, ranking.gates)
            records = (part.to_dict("records") for part in parts)
            rows = [_row(*one) for one in zip(*records, ranking.passed.tolist(), strict=True)]
        unranked += [(comparable[i], _NO_SHARPE) for i in np.flatnonzero(~ranked)]
    return rows + [_named(run) | _UNRANKED | {"unranked": why} for run, why in unranked]


def _frame(runs: Sequence[Mapping[str, Any]], tried: Mapping[str, Family]) -> pd.DataFrame:
    """The runs as the frame that a board is computed from; each run's family is its strategy."""
    # What says how sure a daily Sharpe ratio is; the metrics may be of returns from bar to bar.
    frame = pd.DataFrame(runs).rename(columns=_DAILY)
    numbers = [*READ, *_DAILY.values()]
    frame[numbers] = frame[numbers].astype(float)
    families = [tried[name] for name in frame["strategy"]]
    return frame.assign(
        n_trials=[family.n_trials for family in families],
        n_trials_effective=[family.n_effective for family in families],
        n_families=len(tried),
        costs_paid=frame["slippage_cost"] + frame["funding_paid"] + frame["fees_paid"],
    )


_NEEDED = sorted({*_METRICS, *DERIVED})
_UNRANKED = {
    **dict.fromkeys(("rank", *TRIED, *DERIVED)),
    "scores": "{}",
    "gates": "{}",
    "passed": False,
    "undefined": [],
}


def _named(run: Mapping[Any, Any]) -> dict[str, Any]:
    n_days = None if run["n_days"] is None else int(run["n_days"])
    named = {name: str(run[name]) for name in ("signal_name", "symbol", "tf")}
    return {"run_id": str(run["run_id"]), "n_days": n_days, "family": run["strategy"], **named}


def _row(
    run: Mapping[Any, Any], scores: Mapping[Any, float], gates: Mapping[Any, bool], passed: bool
) -> dict[str, Any]:
    return _named(run) | {
        "rank": int(run["rank"]),
        "unranked": None,
        **{name: _number(run[name]) for name in (*TRIED, *DERIVED)},
        "scores": canonical_json(scores),
        "gates": canonical_json(gates),
        "passed": passed,
        "undefined": [name for name in _NEEDED if np.isnan(run[name])],
    }


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


_ROWS = pa.schema(
    [
        *((name, pa.string()) for name in ("board_id", "run_id")),
        ("rank", pa.int32()),
        *((name, pa.string()) for name in ("unranked", "signal_name", "family", "symbol", "tf")),
        *((name, pa.float64()) for name in (*TRIED, *DERIVED)),
        ("n_days", pa.int32()),
        *((name, pa.string()) for name in ("scores", "gates")),
        ("passed", pa.bool_()),
        ("undefined", pa.list_(pa.string())),
    ]
)


def _publish(
    workspace: Workspace, board_id: str, gates: GateSet, rows: list[dict[str, Any]], late: bool
) -> None:
    about = {
        "board_id": board_id,
        "gate_set_id": gates.gate_set_id,
        "registered_after_results": late,
        "n_ranked": sum(row["rank"] is not None for row in rows),
        "n_passed": sum(row["passed"] for row in rows),
        "code_version": LEADERBOARD_CODE,
    }
    table = pa.Table.from_pylist([{**row, "board_id": board_id} for row in rows], _ROWS)
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        publish_board(cursor, pa.Table.from_pylist([about]), table)


@retried
def leaderboard_faults(workspace: Workspace) -> dict[str, int]:
    """The faults of the newest board, counted by kind; all 0 for a valid board."""
    with workspace.database.begin() as connection:
        return board_faults(connection)
