"""`backtest-pipeline automation`: what runs by itself, when, and turning it on and off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson

if TYPE_CHECKING:
    from backtest_pipeline.defs.automation.switches import AutomationStatus
    from backtest_pipeline.defs.automation.table import Automation
    from backtest_pipeline.storage.postgres.database import Database

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Schedules and sensors; else all.")
]

app = typer.Typer()
automation = typer.Typer(
    name="automation",
    help="What runs by itself: show it, turn it on and off.",
    no_args_is_help=True,
)
app.add_typer(automation)


@automation.command()
def status(names: Names = None, *, as_json: AsJson = False) -> None:
    """Show which schedules and sensors are on, when they tick, and what the last tick did."""
    from backtest_pipeline.defs.automation.switches import status_of

    now = datetime.now(UTC)
    with _opened() as (instance, rows, database):
        found = [status_of(instance, row, now) for row in _chosen(rows, names)]
        unsent = _unsent(database)
    if as_json:
        print_json({"automation": [_as_json(one) for one in found], "unsent_notices": unsent})
        return
    if names:
        for one in found:
            for name, value in _as_json(one).items():
                say(f"{name}: {value if value is not None else ''}")
        return
    console.print(rows_table("Automation", [_row(one) for one in found]))
    if unsent:
        say(f"notices of failed runs: {unsent}")
    say("`backtest-pipeline automation status NAME` tells more; they tick while `up` runs")


@automation.command()
def on(names: Names = None) -> None:
    """Turn schedules and sensors on; without names, those that `off` without names stopped.

    Where it stopped none, those that a new store has on."""
    _switch(names, on=True)


@automation.command()
def off(names: Names = None) -> None:
    """Turn schedules and sensors off; runs that they have requested go on.

    Without names all are stopped, also the launch of requested jobs, the watch over killed runs and
    the notices of failed ones."""
    _switch(names, on=False)


def _switch(names: list[str] | None, *, on: bool) -> None:
    from backtest_pipeline.defs.automation import switches

    with _opened() as (instance, rows, _):
        if names:
            changed = switches.switch_some(instance, switches.chosen(rows, names), on=on)
        elif on:
            changed = switches.switch_on_again(instance, rows)
        else:
            changed = switches.switch_all_off(instance, rows)
    word = "on" if on else "off"
    if not changed:
        say(f"all of them were {word} already")
        return
    say(f"turned {word}: {', '.join(row.name for row in changed)}")
    if not on:
        say("until they are on again, nothing does this:")
        for row in changed:
            say(f"  {row.name}: {row.does}")


def _unsent(database: Database) -> str:
    from backtest_pipeline.pipeline.monitoring.notices import NoticeSettings, unsent_in_words
    from backtest_pipeline.storage.run_notices import unsent_notices
    from backtest_pipeline.storage.settings import read_settings

    with database.begin() as connection:
        return unsent_in_words(unsent_notices(connection, read_settings(NoticeSettings).receivers))


def _chosen(rows: tuple[Automation, ...], names: list[str] | None) -> tuple[Automation, ...]:
    from backtest_pipeline.defs.automation.switches import chosen

    return chosen(rows, names) if names else rows


@contextmanager
def _opened() -> Iterator[tuple[Any, tuple[Automation, ...], Database]]:
    """The store's Dagster instance, its schedules and sensors, and its database."""
    from backtest_pipeline.cli.up import ensure_schema
    from backtest_pipeline.defs.automation.switches import of_this_store
    from backtest_pipeline.defs.instance import open_instance
    from backtest_pipeline.storage.postgres.database import open_database
    from backtest_pipeline.storage.settings import load_settings

    settings = load_settings()
    ensure_schema(settings)
    database = open_database(settings)
    try:
        with open_instance(settings, database) as instance:
            rows = of_this_store(is_external=settings.external is not None)
            yield instance, rows, database
    finally:
        database.close()


def _row(one: AutomationStatus) -> dict[str, Any]:
    last = f"{one.last_tick:%m-%d %H:%M} {one.last_result}" if one.last_tick else "never"
    return {
        "name": one.row.name,
        "": "on" if one.is_on else "off",
        "when": one.row.when,
        "next tick (UTC)": f"{one.next_tick:%m-%d %H:%M}" if one.next_tick else "",
        "last tick": last,
        "seconds": "" if one.last_seconds is None else f"{one.last_seconds:.1f}",
    }


def _as_json(one: AutomationStatus) -> dict[str, Any]:
    row = one.row
    return {
        "name": row.name,
        "kind": "schedule" if row.is_schedule else "sensor",
        "is_on": one.is_on,
        "is_on_at_first": row.on,
        "when": row.when,
        "does": row.does,
        "over": row.over,
        "cost": row.cost,
        "after_downtime": row.downtime,
        "next_tick": one.next_tick.isoformat() if one.next_tick else None,
        "last_tick": one.last_tick.isoformat() if one.last_tick else None,
        "last_result": one.last_result,
        "last_reason": one.last_reason,
        "last_seconds": one.last_seconds,
    }
