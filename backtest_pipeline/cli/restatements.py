"""`backtest-pipeline restatements`."""

from __future__ import annotations

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson, Assets, Timeframes, split, split_symbols
from backtest_pipeline.cli.store import open_store

app = typer.Typer()


@app.command()
def restatements(
    *,
    assets: Assets = "",
    timeframes: Timeframes = "",
    as_json: AsJson = False,
) -> None:
    """Find bars that changed after runs had used them, and how much PnL that moved."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.audits import restatements as history

        report = history.watch_history(workspace)
        rows = history.restatements(
            workspace, symbols=split_symbols(assets), timeframes=split(timeframes)
        )
        from backtest_pipeline.defs.assets.restatements import restatements_rows
        from backtest_pipeline.launch import report_stored

        report_stored("restatements", restatements_rows(workspace, report))
    if as_json:
        changed = [str(partition) for partition in report.silent]
        print_json(
            {
                "changed_silently": changed,
                "compared_now": report.rewrites,
                "restatements": rows,
            }
        )
        return
    say(
        f"{report.rewrites} rewritten partitions compared, {report.restated} of them restated, "
        f"{report.effects} runs compared"
    )
    for partition in report.silent:
        say(
            f"{partition}: features differ from those stored with its signals, though the source "
            "reported no change; the next refresh recomputes them"
        )
    if rows:
        console.print(rows_table("Restated history, change of equity in quote currency", rows))
    else:
        say("no bar used by a run has changed since")
