"""`backtest-pipeline columns`: the columns of your own that strategies can read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson
from backtest_pipeline.cli.store import open_store

app = typer.Typer()


@app.command()
def columns(
    *,
    tf: Annotated[
        str, typer.Option(help="Timeframe of the stored bars to look at; default: days.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List the columns of your own: how many bars have a value, and what looks wrong."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.use_cases.column_report import column_reports

        reports, refused = column_reports(workspace, tf or None)
        folder = workspace.columns_folder
    if as_json:
        print_json({"columns": [asdict(report) for report in reports], "refused": refused})
        return
    shown = [
        {
            "column": report.column,
            "from": report.origin.rpartition("/")[2],
            "bars with a value": "" if report.with_value is None else f"{report.with_value:.1%}",
            "assets": str(report.assets),
            "first": (report.first or "")[:10],
            "last": (report.last or "")[:10],
        }
        for report in reports
    ]
    if shown:
        console.print(rows_table(f"Columns on {reports[0].timeframe} bars", shown))
    elif not refused:
        say(f"there are none; put files of symbol, ts and columns into {folder}")
    for report in reports:
        for remark in report.remarks:
            say(f"{report.column}: {remark}")
    for why in dict.fromkeys(refused.values()):  # two files of one column have one reason
        say(f"left out: {why}")
