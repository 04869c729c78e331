"""`backtest-pipeline restatements`."""

from __future__ import annotations

from typing import Annotated

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson, split, split_symbols
from backtest_pipeline.cli.store import open_store

app = typer.Typer()


@app.command()
def restatements(
    *,
    assets: Annotated[str, typer.Option(help="Symbols, separated by commas; all if none.")] = "",
    timeframes: Annotated[
        str, typer.Option(help="Timeframes, separated by commas; all if none.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Find history that was changed after runs had used it, and how much PnL that moved."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.audits import restatements as history

        watched = history.watch_history(workspace)
        rows = history.restatements(
            workspace, symbols=split_symbols(assets), timeframes=split(timeframes)
        )
    if as_json:
        changed = [str(partition) for partition in watched.silent]
        print_json(
            {
                "changed_silently": changed,
                "compared_now": watched.rewrites,
                "restatements": rows,
            }
        )
        return
    say(
        f"{watched.rewrites} rewritten partitions compared, {watched.restated} of them restated, "
        f"{watched.effects} runs compared"
    )
    for partition in watched.silent:
        say(
            f"{partition}: features differ from those kept with its signals, though the source "
            "reported no change; the next refresh computes them anew"
        )
    if rows:
        console.print(rows_table("restated history, equity moved in the quote currency", rows))
    else:
        say("no bar that a run had used was ever changed")
