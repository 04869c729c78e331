"""`backtest-pipeline restatements`."""

from __future__ import annotations

from backtest_pipeline.cli.console import console, print_json, progress_shown, rows_table, say


def restatements(*, assets: list[str] | None, timeframes: list[str] | None, as_json: bool) -> None:
    """Look for restated history, and print all that is known of it."""
    with progress_shown() as progress:
        progress("loading", 0, 1)
        from backtest_pipeline.cli.serving import ensure_schema
        from backtest_pipeline.pipeline import restatements as history
        from backtest_pipeline.pipeline.workspace import open_workspace
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings()
        ensure_schema(settings)
        with open_workspace(settings) as workspace:
            progress("loading", 1, 1)
            watched = history.watch_history(workspace)
            rows = history.restatements(workspace, symbols=assets, timeframes=timeframes)
    if as_json:
        print_json({"compared_now": watched.rewrites, "restatements": rows})
        return
    say(
        f"{watched.rewrites} rewritten partitions compared, {watched.restated} of them restated, "
        f"{watched.effects} runs compared"
    )
    if rows:
        console.print(rows_table("restated history, equity moved in the quote currency", rows))
    else:
        say("no bar that a run had used was ever changed")
