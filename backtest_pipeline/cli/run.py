"""`backtest-pipeline run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from backtest_pipeline.cli.console import (
    console,
    print_json,
    rows_table,
    say,
    say_what_is_missing,
)
from backtest_pipeline.cli.options import AsJson, Bars, FullRebuild, Signal, Typed, of_spec
from backtest_pipeline.cli.store import opened_for
from backtest_pipeline.pipeline.specs import RunSpec

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.results import RunResult


app = typer.Typer()


@app.command()
@of_spec(RunSpec, bands=True)
def run(
    *,
    signal: Signal = None,
    typed: Typed[RunSpec],
    bars: Bars = None,
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Backtest one strategy on one asset, and store the run."""
    with opened_for(typed, signal) as (workspace, settings, wanted):
        from backtest_pipeline.pipeline.execution import execute
        from backtest_pipeline.pipeline.results import RunResult

        found = execute(workspace, settings, wanted, bars=str(bars or ""), rebuild=full_rebuild)
        assert isinstance(found, RunResult)  # noqa: S101  (a run has no other)
        folder = f"{workspace.artifacts.where}/{found.artifact_uri}"
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _show(found, folder)


def table_row(found: RunResult) -> dict[str, object]:
    """A run as a row of a table: what was run, then its main metrics."""
    from backtest_pipeline.pipeline.runs.summary import TABLE_METRICS, rounded

    return {
        "signal": found.preset or found.strategy,
        "asset": found.symbol,
        "timeframe": found.timeframe,
        **{name: rounded(found.metrics[name]) for name in TABLE_METRICS},
    }


def _show(found: RunResult, folder: str) -> None:
    console.print(rows_table(f"run {found.run_id}", [table_row(found)]))
    for note in found.notes:
        say(note)
    of_what = " of the synthetic sample market" if found.synthetic else ""
    first, last = (f"{ts:%Y-%m-%d %H:%M:%S}" for ts in (found.first_ts, found.last_ts))
    say(f"{found.n_bars:,} bars{of_what}, closing from {first} to {last} UTC")
    if found.rows_by_reason:
        counts = ", ".join(f"{reason} {rows:,}" for reason, rows in found.rows_by_reason.items())
        say(f"rows of the source, skipped or flagged: {counts}")
    say_trades_by_gap(found)
    if found.liquidated:
        say("the equity was used up: the position was liquidated, and the run ends there")
    if found.blocked_entries:
        say(f"{found.blocked_entries} entries were too small or could not be sized")
    if found.pending:
        say(f"the last bar's signal is pending: {found.pending} at the next open")
    if found.not_fetched_since:
        say_what_is_missing({found.symbol: found.not_fetched_since})
    say(f"equity and monthly returns: {folder}")
    say("run, trades, metrics: tables backtest_runs, backtest_trades, backtest_metrics")
    _show_significance(found)


def say_trades_by_gap(found: RunResult) -> None:
    """Say how many trades lie around holes in the data, where any do."""
    words = {
        "entry_after_gap": "entered on the bar after a hole",
        "exit_after_gap": "left on the bar after a hole",
        "held_across_gap": "held across a hole",
    }
    counts = ", ".join(f"{n:,} {words[name]}" for name, n in found.trades_by_gap.items())
    if counts:
        say(f"trades around missing bars: {counts}")


def _show_significance(found: RunResult) -> None:
    known = found.significance
    if known["dsr"] is not None:
        say(
            f"Probability of a Sharpe ratio above zero {found.metrics['psr']:.0%}; deflated "
            f"{known['dsr']:.0%} ({known['n_trials']:,.0f} trials of {found.strategy} here), "
            f"{known['dsr_effective']:.0%} ({known['n_trials_effective']:,.1f} effective trials)"
        )
    if found.bands and None not in found.bands["sharpe"]:
        low, high = found.bands["sharpe"]
        lowest, highest = found.bands["total_return"]
        say(
            f"Bootstrap 90 % interval of Sharpe {low:.2f} to {high:.2f}, of return "
            f"{lowest:.1%} to {highest:.1%}"
        )
