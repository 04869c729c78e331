"""`backtest-pipeline blocks`: why entries and exits of a run were blocked."""

from __future__ import annotations

from typing import Annotated

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson
from backtest_pipeline.cli.store import open_store
from backtest_pipeline.report.json_values import plain

app = typer.Typer()


@app.command()
def blocks(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id, or its first characters.")],
    *,
    by: Annotated[
        str, typer.Option(help="Count by reason, trigger, symbol, side or day.")
    ] = "reason",
    as_json: AsJson = False,
) -> None:
    """Count the blocked entries and exits of a run, with the numbers of the newest of each."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.runs.blocked_entries import run_causes
        from backtest_pipeline.pipeline.runs.query import find_runs

        (run_id,) = find_runs(workspace, [run])
        rows = run_causes(workspace, run_id, by)
    if as_json:
        print_json({"run_id": str(run_id), "by": by, "rows": [plain(row) for row in rows]})
        return
    if not rows:
        say(f"run {run_id} has no blocked entries or exits")
        return
    first = next(iter(rows[0]))
    shown = [
        {
            first: str(row[first] or "-"),
            "count": row["count"],
            "share": f"{row['share']:.1%}",
            "first (UTC)": f"{row['first_ts']:%Y-%m-%d %H:%M}",
            "last (UTC)": f"{row['last_ts']:%Y-%m-%d %H:%M}",
            "newest": row["detail"],
        }
        for row in rows
    ]
    console.print(rows_table(f"Blocked entries and exits of run {str(run_id)[:8]} by {by}", shown))
