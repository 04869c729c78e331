"""`backtest-pipeline walk-forward`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import (
    RANGES,
    AsJson,
    Bars,
    FullRebuild,
    Signal,
    Typed,
    of_spec,
    with_ranges,
)
from backtest_pipeline.cli.run import say_trades_by_gap, table_row
from backtest_pipeline.cli.store import opened_for
from backtest_pipeline.pipeline.specs import WalkForwardSpec

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.results import WalkForwardResult
    from backtest_pipeline.pipeline.use_cases.walk_forward import Prepared

_BOUNDS = ("train_start", "train_end", "test_start", "test_end")


app = typer.Typer()


@app.command("walk-forward", context_settings=RANGES)
@of_spec(WalkForwardSpec)
def walk_forward(
    *,
    context: typer.Context,
    signal: Signal = None,
    typed: Typed[WalkForwardSpec],
    bars: Bars = None,
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show the folds."),
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Choose parameters on training windows, test each choice on the bars after, store all folds.

    The values to choose from are options with a range: --fast 5:50:5 --slow 20,50,200. A
    parameter that is not given takes a range of its own.
    """
    ranged = with_ranges(typed, context.args)
    with opened_for(ranged, signal) as (workspace, settings, wanted):
        from backtest_pipeline.pipeline.execution import execute, prepare, source_for
        from backtest_pipeline.pipeline.results import WalkForwardResult

        named, found = str(bars or ""), None
        if wanted.max_combinations is not None:
            most = max(wanted.max_combinations, settings.optimizer_max_combinations)
            settings = settings.model_copy(update={"optimizer_max_combinations": most})
        if dry_run:
            source = source_for(workspace, settings, wanted, named)
            prepared = prepare(workspace, settings, wanted, source, rebuild=full_rebuild)
        else:
            prepared = None
            found = execute(workspace, settings, wanted, bars=named, rebuild=full_rebuild)
            assert isinstance(found, WalkForwardResult)  # noqa: S101  (it has no other)
    if found is not None:
        print_json(found.model_dump(mode="json")) if as_json else _show(found)
    elif prepared is not None:
        print_json(_planned(prepared)) if as_json else _show_folds(prepared)


def _planned(prepared: Prepared) -> dict[str, Any]:
    return {
        "folds": [
            {"fold": fold.number, **{name: getattr(fold, name).isoformat() for name in _BOUNDS}}
            for fold in prepared.folds
        ],
        "left_out": len(prepared.left_out),
    }


def _show_folds(prepared: Prepared) -> None:
    first, last = prepared.folds[0], prepared.folds[-1]
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


def _show(found: WalkForwardResult) -> None:
    from backtest_pipeline.pipeline.runs.summary import rounded

    folds = [
        {
            "fold": fold.fold,
            "test": f"{fold.test_start:%Y-%m-%d} to {fold.test_end:%Y-%m-%d}",
            "chosen": _in_words(fold.params),
            "train_sharpe": rounded(fold.train["sharpe"]),
            "test_sharpe": rounded(fold.test["sharpe"]),
            "test_return": rounded(fold.test["total_return"]),
            "test_trades": rounded(fold.test["trade_count"]),
        }
        for fold in found.folds
    ]
    tried = max(fold.n_combinations for fold in found.folds)
    console.print(rows_table(f"{len(folds)} folds, {tried:,} combinations each", folds))
    console.print(rows_table(f"out of sample: run {found.run_id}", [table_row(found)]))
    for note in found.notes:
        say(note)
    say_trades_by_gap(found)
    say(_verdict(found))
    say("folds: table walk_forward_folds; run, trades, metrics as of any run, split walk_forward")


def _in_words(params: Mapping[str, Any] | None) -> str:
    if params is None:
        return "nothing: the objective is undefined for all"
    return ", ".join(f"{name} {value:g}" for name, value in params.items())


def _verdict(found: WalkForwardResult) -> str:
    judged = f"{found.n_judged} of {found.n_folds} folds"
    if found.efficiency is None:
        return f"verdict: undefined, for {found.reason} ({judged})"
    why = f", for {found.reason}" if found.reason else ""
    told = (
        f"verdict: {found.verdict}{why}: efficiency {found.efficiency:.2f}, threshold "
        f"{found.threshold:g}; mean Sharpe {found.train_sharpe:.2f} in training, "
        f"{found.test_sharpe:.2f} out of sample ({judged})"
    )
    known = found.significance
    if known["dsr"] is None:
        return told
    return (
        f"{told}; probability of a Sharpe ratio above zero out of sample "
        f"{found.metrics['psr']:.0%}, deflated {known['dsr']:.0%} ({known['n_trials']:,.0f} trials)"
    )
