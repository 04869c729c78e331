"""`backtest-pipeline plans ...`: plan books, their plans, and replans."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson, split
from backtest_pipeline.cli.store import open_store
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.report.json_values import plain

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.planning.plan_changes import PlanChanges
    from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
    from backtest_pipeline.storage.plan_tables.plan_history import LoggedPlan

app = typer.Typer()
plans = typer.Typer(
    name="plans", help="Plans of strategists: list, show, compare, replan.", no_args_is_help=True
)
book = typer.Typer(name="book", help="Plan books: add, list, remove.", no_args_is_help=True)
plans.add_typer(book)
app.add_typer(plans)

Name = Annotated[str, typer.Argument(metavar="BOOK", help="Name of the plan book.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", help="Option of the strategist, such as stop_loss_pct=5; repeatable."),
]
When = Annotated[
    list[str] | None,
    typer.Option(
        "--when", help="When it is planned again, such as valid_days=3 or judge=null; repeatable."
    ),
]


@book.command("add")
def add_book(
    name: Name,
    *,
    symbols: Annotated[str, typer.Option(help="Symbols, separated by commas.")],
    timeframe: Annotated[str, typer.Option(help="Timeframes, separated by commas.")] = "1D",
    strategist: Annotated[str, typer.Option(help="Who plans: rules or llm.")] = "rules",
    option: Options = None,
    when: When = None,
    start: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="First UTC day that the past is planned for."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a plan book; its first plan is made by `plans replan`, or by Dagster's daemon."""
    config, replans = _values("--option", option), _values("--when", when)
    with open_store() as workspace:
        from backtest_pipeline.pipeline.planning import books

        added = books.add_book(
            workspace,
            name,
            [key_of(symbol) for symbol in split(symbols) or ()],
            split(timeframe) or (),
            strategist=strategist,
            config=config,
            replans=replans,
            start=start.date() if start else None,
            user=getpass.getuser(),
        )
    if as_json:
        print_json(plain(vars(added)))
        return
    say(
        f"plan book {added.name}: {', '.join(added.symbols)} at {', '.join(added.timeframes)}, "
        f"planned by {added.strategist}; `backtest-pipeline plans replan {added.name}` makes its "
        "first plan"
    )


@book.command("list")
def list_books(as_json: AsJson = False) -> None:
    """List the plan books."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.planning import books

        found = books.all_books(workspace)
    if as_json:
        print_json({"books": [plain(vars(one)) for one in found]})
    elif found:
        console.print(rows_table("Plan books", [_book_row(one) for one in found]))
    else:
        say("there is no plan book; `backtest-pipeline plans book add` adds one")


def _book_row(one: PlanBook) -> dict[str, Any]:
    return {
        "book": one.name,
        "symbols": ", ".join(one.symbols),
        "timeframes": ", ".join(one.timeframes),
        "strategist": one.strategist,
        "added (UTC)": f"{one.created_at:%Y-%m-%d %H:%M}",
    }


@book.command("remove")
def remove_book(name: Name) -> None:
    """Remove a plan book with its plans; runs that followed them stay, with their copies."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.planning import books

        books.remove_book(workspace, name)
    say(f"plan book {name} is removed; its runs stay until retention deletes them")


@plans.command("list")
def list_plans(name: Name, as_json: AsJson = False) -> None:
    """List the plans of a book in order, and its newest requests for replans."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.planning import books

        detail = books.show_book(workspace, name)
    if as_json:
        print_json(
            {
                "book": plain(vars(detail.book)),
                "plans": [plain(vars(plan)) for plan in detail.plans],
                "requests": [plain(dict(row)) for row in detail.requests],
            }
        )
        return
    if detail.plans:
        title = f"Plans of {name}"
        console.print(rows_table(title, [_plan_row(plan) for plan in detail.plans]))
    else:
        say(f"plan book {name} has no plan yet; `backtest-pipeline plans replan {name}` makes one")
    for row in detail.requests:
        if row["status"] == "waiting":
            failed = f"; before: {row['error']}" if row["error"] else ""
            say(f"waiting: {row['reason']}, {row['detail']}{failed}")


def _plan_row(plan: LoggedPlan) -> dict[str, Any]:
    return {
        "plan": str(plan.sequence),
        "from (UTC)": f"{plan.effective_ts:%Y-%m-%d %H:%M}",
        "until (UTC)": f"{plan.valid_until:%Y-%m-%d %H:%M}",
        "reasons": ", ".join(plan.replan_reasons),
        "regime": plan.plan["regime"],
        "stance": plan.plan["stance"],
        "triggers": len(plan.plan.get("triggers", [])),
        "suppressed": plan.suppressed,
        "origin": plan.origin,
    }


Sequence_ = Annotated[int, typer.Argument(metavar="PLAN", help="Number of the plan.")]


@plans.command("show")
def show_plan(name: Name, number: Sequence_, as_json: AsJson = False) -> None:
    """Show a plan of a book: its triggers, limits, and why it was made."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.planning import books

        plan = books.show_plan(workspace, name, number)
    if as_json:
        print_json(plain(vars(plan)))
        return
    say(f"plan {plan.sequence} of {name}, {plan.plan_id}: {', '.join(plan.replan_reasons)}")
    say(f"  followed      {plan.effective_ts} until {plan.valid_until}")
    say(f"  saw data to   {plan.generated_at}; made {plan.generated_at_actual:%F %T} UTC")
    say(f"  origin        {plan.origin}{': ' if plan.origin_detail else ''}{plan.origin_detail}")
    say(f"  suppressed    {plan.suppressed} replans that would have changed nothing")
    triggers = plan.plan.get("triggers", [])
    if triggers:
        shown = [_trigger_row(trigger) for trigger in triggers]
        console.print(rows_table("Triggers, by falling priority", shown))
    rest = {n: v for n, v in plan.plan.items() if n not in ("triggers", "plan_id")}
    say(json.dumps(plain(rest), indent=2))


def _trigger_row(trigger: Mapping[str, Any]) -> dict[str, Any]:
    rule = trigger.get("entry") or trigger.get("strategy") or ""
    return {
        "trigger": trigger["id"],
        "symbol": trigger["symbol"],
        "category": trigger["category"],
        "side": trigger["direction"],
        "entry": rule,
        "exit": trigger.get("exit") or "",
        "stop %": trigger.get("stop_loss_pct"),
    }


@plans.command()
def diff(name: Name, before: Sequence_, after: Sequence_, as_json: AsJson = False) -> None:
    """Show what a plan changed against another: limits, stance, triggers."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.planning import books

        changes = books.compare_plans(workspace, name, before, after)
    if as_json:
        print_json(plain(vars(changes)))
    else:
        _show_changes(name, changes)


def _show_changes(name: str, changes: PlanChanges) -> None:
    say(
        f"plan {changes.after} of {name} against plan {changes.before}; it was made for "
        f"{', '.join(changes.replan_reasons)}"
    )
    width = max(map(len, changes.fields), default=0)
    for field, (old, new) in changes.fields.items():
        say(f"  {field:<{width}}  {json.dumps(plain(old))} -> {json.dumps(plain(new))}")
    for title, triggers in (("added", changes.added), ("removed", changes.removed)):
        if triggers:
            console.print(rows_table(f"Triggers {title}", [_trigger_row(t) for t in triggers]))
    say(f"  {changes.kept} triggers are in both")


@plans.command()
def replan(
    name: Name,
    *,
    later: Annotated[
        bool, typer.Option("--later", help="Only ask: Dagster's daemon plans and runs it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Plan a book again now, and run it under its plans."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.planning import books, replan_now

        if later:
            books.request_replan(workspace, name, getpass.getuser())
            told: dict[str, Any] = {"book": name, "asked": True}
        else:
            told = replan_now.replan_now(workspace, name, getpass.getuser())
    if as_json:
        print_json(plain(told))
    elif later:
        say(f"a replan of {name} is asked for; Dagster's daemon launches it")
    else:
        _say_replan(told)


def _say_replan(told: Mapping[str, Any]) -> None:
    last = told["sequence"]
    if told["suppressed"]:
        say(f"{told['book']}: nothing would change, so plan {last} stays in force")
    else:
        n = told["plans"]
        say(f"{told['book']}: {n} new {'plan' if n == 1 else 'plans'}, the newest is plan {last}")
    if told["waits"]:
        say(f"  the rest of the past waits for another day: {told['waits']}")
    for run in told["runs"]:
        what = f"run {run['run_id']}" if run["run_id"] else run["why"]
        say(f"  at {run['timeframe']}: {what}")


def _values(option: str, given: list[str] | None) -> dict[str, Any]:
    """`name=value` pairs, the values as JSON; a value that is none is a text."""
    found: dict[str, Any] = {}
    for text in given or ():
        name, equals, value = (piece.strip() for piece in text.partition("="))
        if not equals or not name:
            raise InvalidInput(f"{option}: expected name=value such as valid_days=3, not {text!r}")
        try:
            found[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            found[name.replace("-", "_")] = value
    return found
