"""`backtest-pipeline assets` and `venues`: the names that other commands take."""

from __future__ import annotations

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson
from backtest_pipeline.cli.store import open_store

app = typer.Typer()


@app.command()
def assets(*, as_json: AsJson = False) -> None:
    """List the stored assets, with their timeframes and the span of their bars."""
    with open_store() as workspace:
        from backtest_pipeline.storage.tables.dimensions import asset_spans

        with workspace.database.begin() as connection:
            rows = asset_spans(connection, workspace.price_dataset)
    if as_json:
        print_json({"assets": rows})
    elif rows:
        shown = [
            {
                "asset": row["asset"],
                "market": "synthetic" if row["synthetic"] else "real",
                "timeframes": ", ".join(row["timeframes"]),
                "first bar": row["first_ts"][:10],
                "last bar": row["last_ts"][:10],
            }
            for row in rows
        ]
        console.print(rows_table("Assets", shown))
    else:
        say("no asset is stored yet; `refresh` stores those of BACKTEST_BARS")


@app.command()
def venues(*, as_json: AsJson = False) -> None:
    """List the venues whose costs `--venue` takes."""
    from dataclasses import asdict

    from backtest_pipeline.trading.costs import VENUES

    rows = [{"venue": name, **asdict(costs)} for name, costs in VENUES.items()]
    if as_json:
        print_json({"venues": rows})
    else:
        console.print(rows_table("Venues: costs in basis points", rows))
