"""`backtest-pipeline timeframes`: the bar lengths of a store, and which a refresh computes."""

from __future__ import annotations

from typing import Annotated

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson
from backtest_pipeline.cli.store import open_store

Name = Annotated[str, typer.Argument(metavar="NAME", help="Timeframe, for example 7D or 1Q.")]

app = typer.Typer()
timeframes = typer.Typer(
    name="timeframes", help="List, add and remove timeframes.", no_args_is_help=True
)
app.add_typer(timeframes)


@timeframes.command("list")
def list_timeframes(*, as_json: AsJson = False) -> None:
    """List the timeframes of the store by length; those marked are refreshed always."""
    with open_store() as workspace:
        from backtest_pipeline.market.timeframes import timeframe
        from backtest_pipeline.pipeline.use_cases.timeframes import known_timeframes
        from backtest_pipeline.storage.settings import load_settings

        named = load_settings().timeframes
        found = known_timeframes(workspace)
    sound = [row for row in found if not row.contradiction]
    rows = [
        {
            "timeframe": row.name,
            "definition": row.label,
            "days": timeframe(row.name).days,
            "origin": "shipped" if row.is_shipped else "added",
            "refreshed": row.is_refreshed or row.name in named,
            "assets": row.n_assets,
        }
        for row in sound
    ]
    left_out = [row.contradiction for row in found if row.contradiction]
    if as_json:
        print_json({"timeframes": rows, "left_out": left_out})
        return
    shown = [
        {
            "timeframe": row["timeframe"],
            "definition": row["definition"],
            "days": f"{row['days']:.5g}",
            "origin": row["origin"],
            "refreshed": "yes" if row["refreshed"] else "",
            "stored assets": row["assets"] or "",
        }
        for row in rows
    ]
    console.print(rows_table("Timeframes", shown))
    for sentence in left_out:
        say(f"left out: {sentence}")


@timeframes.command()
def add(name: Name) -> None:
    """Add a timeframe: every refresh computes it from now on."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.use_cases.timeframes import add as add_to

        added = add_to(workspace, name)
    say(f"timeframe {added} is added; the next refresh computes it")


@timeframes.command()
def remove(name: Name) -> None:
    """Remove a timeframe of which nothing is stored."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.use_cases.timeframes import remove as remove_from
        from backtest_pipeline.storage.settings import load_settings

        removed = remove_from(workspace, name, load_settings().timeframes)
    say(f"timeframe {removed} is removed; refreshes leave it out")
