"""`backtest-pipeline run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from backtest_pipeline.cli.console import (
    console,
    print_json,
    rows_table,
    say,
    say_where_the_cache_ends,
)
from backtest_pipeline.cli.options import AsJson, Bars, FullRebuild, Signal, SpecOptions, of_spec
from backtest_pipeline.cli.store import open_store_for
from backtest_pipeline.pipeline.specs import RunSpec

if TYPE_CHECKING:
    from uuid import UUID

    from backtest_pipeline.pipeline.results import RunResult


app = typer.Typer()


@app.command()
@of_spec(RunSpec, bands=True)
def run(
    *,
    signal: Signal = None,
    options: SpecOptions[RunSpec],
    bars: Bars = None,
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Backtest one strategy on one asset, and store the run."""
    with open_store_for(options, signal) as (workspace, settings, spec):
        from backtest_pipeline.pipeline.execution import execute
        from backtest_pipeline.pipeline.results import RunResult

        result = execute(workspace, settings, spec, bars=str(bars or ""), rebuild=full_rebuild)
        assert isinstance(result, RunResult)  # noqa: S101  (a run has no other)
        folder = f"{workspace.artifacts.where}/{result.artifact_uri}"
        from backtest_pipeline.pipeline.runs.reports.report import report_url

        address = report_url(result.run_id, settings)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _show(result, folder)
        say_report(result.run_id, address)


def say_report(run_id: UUID, address: str) -> None:
    """Say where the report of a run is, or what writes it."""
    say(f"report: {address or f'backtest-pipeline runs report {str(run_id)[:8]} --open'}")


def table_row(run: RunResult) -> dict[str, object]:
    """A table row: signal, asset, timeframe, then the main metrics."""
    from backtest_pipeline.pipeline.runs.summary import TABLE_METRICS, rounded

    return {
        "signal": run.preset or run.strategy,
        "asset": run.symbol,
        "timeframe": run.timeframe,
        **{name: rounded(run.metrics[name]) for name in TABLE_METRICS},
    }


def _show(run: RunResult, folder: str) -> None:
    console.print(rows_table(f"run {run.run_id}", [table_row(run)]))
    for note in run.notes:
        say(note)
    market = " of the synthetic sample market" if run.synthetic else ""
    first, last = (f"{ts:%Y-%m-%d %H:%M:%S}" for ts in (run.first_ts, run.last_ts))
    say(f"{run.n_bars:,} bars{market}, closing from {first} to {last} UTC")
    if run.rows_by_reason:
        counts = ", ".join(f"{reason} {rows:,}" for reason, rows in run.rows_by_reason.items())
        say(f"source rows skipped or flagged: {counts}")
    say_trades_by_gap(run)
    say_sampling(run)
    if run.engine != "account":
        say(f"simulated by {run.engine}; docs/vectorbt.md says what differs")
    if run.liquidated:
        say("liquidated: equity reached zero, and nothing is traded after that")
    if run.blocked_entries:
        say(f"{run.blocked_entries:,} entries blocked; table block_events says why")
    if run.conflicting_entries:
        say(f"{run.conflicting_entries:,} bars had entries of both sides; none was made on them")
    if run.pending:
        say(f"signal of the last bar, pending: {run.pending} at the next open")
    if run.not_fetched_since:
        say_where_the_cache_ends({run.symbol: run.not_fetched_since})
    say(f"equity and monthly returns: {folder}")
    say("run, trades, metrics: tables backtest_runs, backtest_trades, backtest_metrics")
    _show_significance(run)


def say_trades_by_gap(run: RunResult) -> None:
    """Say how many trades lie around holes in the data, where any do."""
    words = {
        "entry_after_gap": "entered on the bar after a hole",
        "exit_after_gap": "left on the bar after a hole",
        "held_across_gap": "held across a hole",
    }
    counts = ", ".join(f"{n:,} {words[name]}" for name, n in run.trades_by_gap.items())
    if counts:
        say(f"trades around missing bars: {counts}")


def say_sampling(run: RunResult) -> None:
    """Say where no daily bars mark a run on longer bars, and what brings them."""
    if run.sampling == "bars":
        say(
            f"equity is marked at the closes of {run.timeframe} bars alone, so that drawdowns "
            "between them are not seen: no stored daily bars fit them; backtest-pipeline refresh "
            f"--assets {run.symbol} --timeframes 1D stores those that the source has"
        )


def _show_significance(run: RunResult) -> None:
    known = run.significance
    if known["dsr"] is not None:
        tried = "1 trial" if known["n_trials"] == 1 else f"{known['n_trials']:,.0f} trials"
        say(
            f"Probabilistic Sharpe ratio {run.metrics['psr']:.0%}; deflated {known['dsr']:.0%} "
            f"({tried} of {run.strategy} on {run.symbol} {run.timeframe}, counted by "
            f"{run.counting_rule}), "
            f"{known['dsr_effective']:.0%} "
            f"({known['n_trials_effective']:,.1f} effective trials)"
        )
    if run.bands and None not in run.bands["sharpe"]:
        low, high = run.bands["sharpe"]
        lowest, highest = run.bands["total_return"]
        say(
            f"Nominal 90 % bootstrap intervals: Sharpe {low:.2f} to {high:.2f}, total return "
            f"{lowest:.1%} to {highest:.1%}"
        )
