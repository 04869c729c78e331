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
    SpecOptions,
    of_spec,
    with_ranges,
)
from backtest_pipeline.cli.run import say_sampling, say_trades_by_gap, table_row
from backtest_pipeline.cli.store import open_store_for
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
    options: SpecOptions[WalkForwardSpec],
    bars: Bars = None,
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show the folds."),
    declare: bool = typer.Option(
        False,
        "--declare",
        help="Only declare it, before the strategy's first trial there; run it later.",
    ),
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Choose parameters on training windows, trade each choice on the test window that follows.

    Give parameters as ranges: --fast 5:50:5 --slow 20,50,200. Parameters left out use the
    strategy's default grid.
    """
    ranged = with_ranges(options, context.args)
    with open_store_for(ranged, signal) as (workspace, settings, spec):
        from backtest_pipeline.pipeline import execution
        from backtest_pipeline.pipeline.execution import execute, prepare
        from backtest_pipeline.pipeline.results import WalkForwardResult
        from backtest_pipeline.pipeline.use_cases.spec_sources import source_for

        source_name, prepared, declaration, result = str(bars or ""), None, None, None
        if spec.max_combinations is not None:
            limit = max(spec.max_combinations, settings.optimizer_max_combinations)
            settings = settings.model_copy(update={"optimizer_max_combinations": limit})
        if declare:
            declaration = execution.declare(workspace, settings, spec, bars=source_name)
        elif dry_run:
            source = source_for(workspace, settings, spec, source_name)
            prepared = prepare(workspace, settings, spec, source, rebuild=full_rebuild)
        else:
            result = execute(workspace, settings, spec, bars=source_name, rebuild=full_rebuild)
            assert isinstance(result, WalkForwardResult)  # noqa: S101  (it has no other)
            from backtest_pipeline.defs.assets.walk_forward import ad_hoc_walk_forward
            from backtest_pipeline.launch import report_seen

            report_seen(ad_hoc_walk_forward(result))
    if declaration is not None:
        if as_json:
            print_json(declaration.model_dump(mode="json"))
        else:
            say(
                f"declared {declaration.declared_at:%F %T} UTC: a walk-forward of "
                f"{declaration.strategy} on {declaration.symbol} {declaration.timeframe}. Run it "
                "with the same options; it is judged at a probabilistic Sharpe ratio of 0.95 if "
                "it is the only one declared there"
            )
    elif result is not None:
        print_json(result.model_dump(mode="json")) if as_json else _show(result)
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
            f"left out: test window from {window.test_start:%Y-%m-%d}; bars fill "
            f"{window.train_filled:.0%} of its training window and {window.test_filled:.0%} of the "
            "test"
        )


def _show(result: WalkForwardResult) -> None:
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
        for fold in result.folds
    ]
    tried = max(fold.n_combinations for fold in result.folds)
    console.print(rows_table(f"{len(folds)} folds, {tried:,} combinations each", folds))
    console.print(rows_table(f"Out of sample: run {result.run_id}", [table_row(result)]))
    for note in result.notes:
        say(note)
    say_trades_by_gap(result)
    say_sampling(result)
    say(_verdict(result))
    say("folds: table walk_forward_folds; the out-of-sample run has split = walk_forward")


def _in_words(params: Mapping[str, Any] | None) -> str:
    if params is None:
        return "none: the objective is undefined for all combinations"
    return ", ".join(f"{name} {value:g}" for name, value in params.items())


def _verdict(result: WalkForwardResult) -> str:
    from backtest_pipeline.research.validation.efficiency import in_words

    judged = f"{result.n_judged} of {result.n_folds} folds judged"
    if result.efficiency is None:
        return f"verdict: undefined: {result.reason} ({judged})"
    parts = [f"verdict: {in_words(result.verdict, result.reason)}"]
    if result.declared_at is not None:
        parts.append(f"declared {result.declared_at:%F %T} UTC, before its strategy's first trial")
    if "efficiency" not in (result.reason or ""):
        parts.append(f"efficiency {result.efficiency:.2f} (threshold {result.threshold:g})")
    parts.append(
        f"mean Sharpe {result.train_sharpe:.2f} in training, {result.test_sharpe:.2f} out of "
        f"sample ({judged})"
    )
    known = result.significance
    if known["dsr"] is not None:
        n = known["n_trials"]
        tried = "1 walk-forward" if n == 1 else f"{n:,.0f} walk-forwards"
        parts.append(
            f"out of sample, probabilistic Sharpe ratio {result.metrics['psr']:.0%}, deflated "
            f"{known['dsr']:.0%} ({tried} on {result.symbol} {result.timeframe})"
        )
    return "; ".join(parts)
