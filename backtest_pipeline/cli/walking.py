"""`backtest-pipeline walk-forward`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from backtest_pipeline.cli.console import console, print_json, progress_shown, rows_table, say

if TYPE_CHECKING:
    from backtest_pipeline.cli.assumed import Assumed
    from backtest_pipeline.pipeline.walking import Prepared

_BOUNDS = ("train_start", "train_end", "test_start", "test_end")


def walk_forward(
    signal: str,
    ranges: Sequence[str],
    *,
    asset: str,
    tf: str,
    schedule: Mapping[str, Any],
    dates: Sequence[str],
    gap: Mapping[str, Any],
    objective: str,
    search: Mapping[str, Any],
    assumptions: Assumed,
    bars: str,
    dry_run: bool,
    full_rebuild: bool,
    as_json: bool,
) -> None:
    """Show the folds, do them, and print what each chose and what is left out of sample."""
    from backtest_pipeline.cli.exploring import parameters_of
    from backtest_pipeline.cli.opening import store_and_source

    with progress_shown() as progress:
        progress("loading", 0, 1)
        params = parameters_of(ranges)
        asked = assumptions.asked()
        from backtest_pipeline.pipeline.folds import Plan
        from backtest_pipeline.pipeline.walking import prepare_walk, walk_once
        from backtest_pipeline.research.optimizer import Objective, Search
        from backtest_pipeline.research.schedule import FixedDates, Schedule
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings()
        most = settings.optimizer_max_combinations if search["most"] is None else search["most"]
        plan = Plan(
            FixedDates(_windows(dates), **gap) if dates else Schedule(**schedule, **gap),
            Search(search["method"], most, search["seed"]),
            Objective.of(objective),
            settings.wfo_threshold,
        )
        with store_and_source(asset, bars, progress) as (workspace, source):
            prepared = prepare_walk(
                workspace,
                source,
                asset=asset,
                tf=tf,
                asked=asked,
                schedule=plan.schedule,
                rebuild=full_rebuild,
            )
            if not as_json:
                _show_folds(prepared, each=dry_run)
            if dry_run:
                row = None
            else:
                row = walk_once(
                    workspace,
                    prepared,
                    signal=signal,
                    params=params,
                    asked=asked,
                    plan=plan,
                    rebuild=full_rebuild,
                )
    if as_json:
        print_json(_planned(prepared) if row is None else _as_json(row))
    elif row is not None:
        _show(row)


def _windows(dates: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(text.split(":")) for text in dates]


def _planned(prepared: Prepared) -> dict[str, Any]:
    return {
        "folds": [
            {"fold": fold.number, **{name: getattr(fold, name).isoformat() for name in _BOUNDS}}
            for fold in prepared.folds
        ],
        "left_out": len(prepared.left_out),
    }


def _show_folds(prepared: Prepared, *, each: bool) -> None:
    first, last = prepared.folds[0], prepared.folds[-1]
    if each:
        rows = [
            {
                "fold": fold.number,
                **{name: f"{getattr(fold, name):%Y-%m-%d}" for name in _BOUNDS},
                "train bars": len(fold.train),
                "test bars": len(fold.test),
            }
            for fold in prepared.folds
        ]
        console.print(rows_table(f"{len(rows)} folds", rows))
    say(
        f"{len(prepared.folds)} folds: training from {first.train_start:%Y-%m-%d}, "
        f"tests from {first.test_start:%Y-%m-%d} to {last.test_end:%Y-%m-%d}"
    )
    for window in prepared.left_out:
        say(
            f"left out: the test from {window.test_start:%Y-%m-%d}, for bars in "
            f"{window.train_filled:.0%} of its training window and {window.test_filled:.0%} of its "
            "own"
        )


def _show(row: Mapping[str, Any]) -> None:
    from backtest_pipeline.pipeline.summary import rounded, run_rows

    folds = [
        {
            "fold": fold["fold"],
            "test": f"{fold['test_start']:%Y-%m-%d} to {fold['test_end']:%Y-%m-%d}",
            "chosen": _in_words(fold["params"]),
            "train_sharpe": rounded(fold["train_sharpe"]),
            "test_sharpe": rounded(fold["test_sharpe"]),
            "test_return": rounded(fold["test_total_return"]),
            "test_trades": rounded(fold["test_trade_count"]),
        }
        for fold in row["folds"]
    ]
    tried = max(fold["n_combinations"] for fold in row["folds"])
    console.print(rows_table(f"{len(folds)} folds, {tried:,} combinations each", folds))
    console.print(rows_table(f"out of sample: run {row['run_id']}", run_rows([row])))
    say(_efficiency_told(row))
    say("folds: table walk_forward_folds; run, trades, metrics as of any run, split walk_forward")


def _in_words(params: Mapping[str, Any] | None) -> str:
    if params is None:
        return "nothing: the objective is undefined for all"
    return ", ".join(f"{name} {value:g}" for name, value in params.items())


def _efficiency_told(row: Mapping[str, Any]) -> str:
    judged = f"{row['n_judged']} of {row['n_folds']} folds"
    if row["efficiency"] is None:
        return f"verdict: undefined, for {row['reason']} ({judged})"
    why = f", for {row['reason']}" if row["reason"] else ""
    told = (
        f"verdict: {row['verdict']}{why}: efficiency {row['efficiency']:.2f}, threshold "
        f"{row['threshold']:g}; mean Sharpe {row['train_sharpe']:.2f} in training, "
        f"{row['test_sharpe']:.2f} out of sample ({judged})"
    )
    if row["dsr"] is None:
        return told
    return (
        f"{told}; above zero out of sample with a probability of {row['psr']:.0%}, "
        f"{row['dsr']:.0%} after the {row['n_trials']:,.0f} trials of the strategy here"
    )


def _as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    from backtest_pipeline.simulation.metrics import METRIC_NAMES

    efficiency = ("n_folds", "n_judged", "train_sharpe", "test_sharpe", "efficiency")
    hidden = ("run_id", "fold_key", "id", "computed_at")
    return {
        "run_id": str(row["run_id"]),
        "signal_type": row["signal_type"],
        "asset": row["symbol"],
        "timeframe": row["tf"],
        **{name: row[name] for name in (*efficiency, "threshold", "verdict", "reason")},
        "metrics": {name: row[name] for name in METRIC_NAMES},
        "folds": [
            {
                name: value.isoformat() if isinstance(value, datetime) else value
                for name, value in fold.items()
                if name not in hidden
            }
            for fold in row["folds"]
        ],
    }
