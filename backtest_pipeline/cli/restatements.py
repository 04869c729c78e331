"""`backtest-pipeline restatements`."""

from __future__ import annotations

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.store import open_store


def restatements(*, assets: list[str] | None, timeframes: list[str] | None, as_json: bool) -> None:
    """Look for restated history, and print all that is known of it."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.audits import restatements as history

        watched = history.watch_history(workspace)
        rows = history.restatements(workspace, symbols=assets, timeframes=timeframes)
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
            f"{partition}: features differ from those kept with its signals, and nothing told of "
            "it; the next refresh takes them anew"
        )
    if rows:
        console.print(rows_table("restated history, equity moved in the quote currency", rows))
    else:
        say("no bar that a run had used was ever changed")
