"""`backtest-pipeline runs ...`: list, show, compare, report, plot, export, pin and delete runs."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import After, AnyTimeframe, AsJson, Asset
from backtest_pipeline.cli.store import open_store
from backtest_pipeline.report.json_values import plain

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.runs.compare import Compared, RunComparison
    from backtest_pipeline.pipeline.runs.query import RunDetail

app = typer.Typer(
    name="runs", help="Stored runs: list, show, compare, report, plot, export, pin, delete."
)

Runs = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Run ids, or their first characters.")
]


@app.command("list")
def list_(
    *,
    user: Annotated[str | None, typer.Option(help="Requested by this user.")] = None,
    strategy: Annotated[str | None, typer.Option(help="For example ema_crossover.")] = None,
    asset: Asset = None,
    tf: AnyTimeframe = None,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Ended on this UTC date or later.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Ended before this UTC date.")
    ] = None,
    status: Annotated[str | None, typer.Option(help="completed, failed or cancelled.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Part of a signal, symbol or parameter; start of an id.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Runs to show.")] = 20,
    after: After = None,
    as_json: AsJson = False,
) -> None:
    """List stored runs, newest first."""
    from backtest_pipeline.pipeline.runs.query import RunFilter, list_runs

    filters = RunFilter(
        requested_by=user,
        strategy=strategy,
        symbol=asset,
        timeframe=tf,
        completed_from=since.date() if since else None,
        completed_until=until.date() if until else None,
        status=status,
        text=text,
    )
    with open_store() as workspace:
        page = list_runs(workspace, filters, limit=limit, after=after)
    if as_json:
        print_json({"runs": [plain(row) for row in page.rows], "next": page.next})
        return
    if not page.rows:
        say("no run matches these filters")
        return
    console.print(rows_table("Runs, newest first", [_listed(row) for row in page.rows]))
    say("the report of a run: backtest-pipeline runs report RUN --open")
    if page.next:
        say(f"more runs: repeat with --after {page.next}")


def _listed(row: Mapping[str, Any]) -> dict[str, Any]:
    marks = [mark for name, mark in _MARKS.items() if row[name]]
    return {
        "run": str(row["run_id"])[:8],
        "signal": row["signal_name"],
        "asset": row["symbol"],
        "timeframe": row["timeframe"],
        "ended (UTC)": f"{row['completed_at']:%Y-%m-%d %H:%M}",
        **{name: row[name] for name in ("total_return", "sharpe", "max_drawdown", "trade_count")},
        "": " ".join(marks),
    }


_MARKS = {
    "synthetic": "synthetic",
    "pinned": "pinned",
    "quarantined_at": "quarantine",
    "is_current": "current",
}


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="Run id, or its first characters.")],
    as_json: AsJson = False,
) -> None:
    """Show a run: metrics, significance, and the data and code that it was made from."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.runs.query import find_runs, get_run

        detail = get_run(workspace, find_runs(workspace, [run])[0])
        where = f"{workspace.artifacts.where}/{detail.artifact_uri}"
    if as_json:
        print_json(plain(vars(detail)))
    else:
        _show(detail, where)


def _show(run: RunDetail, where: str) -> None:
    say(f"{run.name}, run {run.run_id}: {run.status}{'' if run.is_current else ', not current'}")
    if run.synthetic:
        say("  bars           synthetic: they say nothing about a real market")
    if run.within_training:
        say("  model          may have read in training what it planned: part of this is memory")
    start, end = (day or "" for day in run.window)
    say(f"  traded         {run.n_bars:,} bars, {run.first_ts:%Y-%m-%d} to {run.last_ts:%Y-%m-%d}")
    if start or end:
        say(f"  window         {start or 'the first bar'} until {end or 'the last bar'}")
    say(f"  parameters     {', '.join(f'{k}={v}' for k, v in run.params.items())}")
    values = {**run.metrics, **run.significance}
    rows = [
        {"metric": name, "value": _number(value), "undefined because": run.undefined.get(name, "")}
        for name, value in values.items()
    ]
    console.print(rows_table("Metrics (docs/metrics.md)", rows))
    say(f"  n_trials counts {run.counting_rule}")
    for name, (low, high) in (run.bands or {}).items():
        say(f"  90 % interval  {name} {_number(low)} to {_number(high)}")
    made = run.provenance
    say(f"  engine         {made['engine']} {made['engine_version']}")
    for title, name in (
        ("data", "snapshot_id"),
        ("code", "code_version"),
        ("configuration", "config_hash"),
        ("fingerprint", "result_fingerprint"),
    ):
        say(f"  {title:<15}{made[name]}")
    say(f"  series         {where}")
    for request in run.requests:
        say(f"  requested by   {request['requested_by']}, {request['requested_at']:%F %T} UTC")
    if run.pin:
        note = f": {run.pin['note']}" if run.pin["note"] else ""
        say(f"  pinned by      {run.pin['pinned_by']}, {run.pin['pinned_at']:%F %T} UTC{note}")
    if run.quarantine:
        say(
            f"  IN QUARANTINE since {run.quarantine['quarantined_at']:%F %T} UTC: "
            f"{run.quarantine['reason']}"
        )


@app.command()
def compare(runs: Runs, as_json: AsJson = False) -> None:
    """Compare two or more runs: configuration, metrics, data and code, side by side.

    `explain-diff` recomputes two runs to tell which of these makes them differ.
    """
    from backtest_pipeline.pipeline.runs.compare import compare_runs, require_different
    from backtest_pipeline.pipeline.runs.query import find_runs

    require_different(runs)
    with open_store() as workspace:
        comparison = compare_runs(workspace, find_runs(workspace, runs))
    if as_json:
        print_json(_compared_as_json(comparison))
        return
    for letter, run in zip(_LETTERS, comparison.runs, strict=False):
        say(f"{letter}  {run.name}, run {run.run_id}")
    for title, differences in (
        ("Configuration", comparison.config),
        ("Data (versions of the features)", comparison.data),
        ("Code and environment", comparison.code),
    ):
        if differences:
            console.print(rows_table(f"{title}: differences", _side_by_side(differences)))
        else:
            say(f"{title}: equal")
    console.print(rows_table("Metrics", _side_by_side(comparison.metrics)))
    if comparison.results_are_equal:
        say("trades and equity are identical, bit for bit")


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _side_by_side(differences: Sequence[Compared]) -> list[dict[str, Any]]:
    return [
        {
            "": difference.name,
            **{letter: _number(v) for letter, v in zip(_LETTERS, difference.values, strict=False)},
            **{
                f"{letter} - A": _number(change)
                for letter, change in list(zip(_LETTERS, difference.changes, strict=False))[1:]
            },
        }
        for difference in differences
    ]


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.4f}" if isinstance(value, float) else str(value)


def _compared_as_json(comparison: RunComparison) -> dict[str, Any]:
    parts = {name: getattr(comparison, name) for name in ("config", "metrics", "data", "code")}
    return {
        "runs": [str(run.run_id) for run in comparison.runs],
        "results_are_equal": comparison.results_are_equal,
        **{name: [plain(vars(one)) for one in part] for name, part in parts.items()},
    }


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Run id, or its first characters.")],
    *,
    to: Annotated[Path, typer.Option(help="Folder to write, or the .zip file of a bundle.")],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="parquet, csv, or bundle: one file with its data, code and results."
        ),
    ] = "parquet",
    sign: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY", help="Secret key of minisign (without a password) that signs the bundle."
        ),
    ] = None,
) -> None:
    """Export a run: its tables, or a self-verifying bundle."""
    from backtest_pipeline.pipeline.replay.export import export_as, require_format
    from backtest_pipeline.pipeline.replay.signatures import SigningKey
    from backtest_pipeline.pipeline.runs.query import find_runs

    require_format(form, signed=sign is not None)
    key = None if sign is None else SigningKey.of_file(sign)
    with open_store() as workspace:
        written = export_as(workspace, find_runs(workspace, [run])[0], to, form, key)
    for path in written:
        say(f"wrote {path}")


@app.command()
def report(
    run: Annotated[
        str, typer.Argument(help="Run id, or its first characters; or a portfolio's whole id.")
    ],
    *,
    to: Annotated[
        Path | None, typer.Option(help="File or folder to write; default: <run id>.html here.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over files.")] = False,
    show_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write the report of a run or portfolio as one file that opens offline."""
    from backtest_pipeline.pipeline.runs.reports.report import find_reported, write_report

    with open_store() as workspace:
        run_id = find_reported(workspace, run)
        written = write_report(workspace, run_id, to or Path(), replace=replace)
    for path in written:
        say(f"wrote {path}")
    if show_it:
        typer.launch(written[0].absolute().as_uri())


@app.command()
def plot(
    run: Annotated[str, typer.Argument(help="Run id, or its first characters.")],
    *,
    to: Annotated[
        Path | None, typer.Option(help="HTML file to write; by default <run id>-plot.html here.")
    ] = None,
    show_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Plot a run with vectorbt: orders, trades and cumulative returns, interactive, in one file."""
    from backtest_pipeline.pipeline.replay.vectorbt_portfolio import write_plot
    from backtest_pipeline.pipeline.runs.query import find_runs

    with open_store() as workspace:
        (run_id,) = find_runs(workspace, [run])
        written = write_plot(workspace, run_id, to or Path(f"{run_id}-plot.html"))
    say(f"wrote {written}")
    if show_it:
        typer.launch(str(written.resolve()))


@app.command()
def pin(
    runs: Runs,
    note: Annotated[str, typer.Option(help="Why the runs are kept.")] = "",
) -> None:
    """Pin runs: retention never deletes them."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.runs import query

        ids = query.find_runs(workspace, runs)
        query.pin(workspace, ids, getpass.getuser(), note)
    say(f"pinned {len(ids)} {'run' if len(ids) == 1 else 'runs'}")


@app.command()
def unpin(runs: Runs) -> None:
    """Unpin runs: retention may delete them again."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.runs import query

        ids = query.find_runs(workspace, runs)
        query.unpin(workspace, ids)
    say(f"unpinned {len(ids)} {'run' if len(ids) == 1 else 'runs'}")


@app.command()
def delete(
    runs: Runs,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete runs with their trades, metrics and files, whatever their age."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.runs.query import find_runs

        ids = find_runs(workspace, runs)
    for run_id in ids:
        say(str(run_id))
    if not yes:
        typer.confirm(f"Delete {len(ids)} {'run' if len(ids) == 1 else 'runs'}?", abort=True)
    with open_store() as workspace:
        from backtest_pipeline.pipeline.runs.retention import delete_runs

        deleted = delete_runs(workspace, ids)
    say(f"deleted {deleted} {'run' if deleted == 1 else 'runs'}")
