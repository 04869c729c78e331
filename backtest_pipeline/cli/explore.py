"""`backtest-pipeline explore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import (
    RANGES,
    AsJson,
    Bars,
    FullRebuild,
    Typed,
    of_spec,
    with_ranges,
)
from backtest_pipeline.cli.store import opened_for
from backtest_pipeline.pipeline.specs import SweepSpec

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.results import SweepResult
    from backtest_pipeline.pipeline.use_cases.sweep import Exploration

_BESIDE = ("sharpe", "total_return", "benchmark_return", "max_drawdown", "trade_count")


app = typer.Typer()


@app.command(context_settings=RANGES)
@of_spec(SweepSpec, leave_out=["strategy"], max_combinations=20_000)
def explore(
    *,
    context: typer.Context,
    strategy: Annotated[
        str, typer.Argument(help="A strategy by its name or its first word, such as ema or macd.")
    ],
    typed: Typed[SweepSpec],
    bars: Bars = None,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("exploration.html"),
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Sweep a strategy's parameters on one asset: a heat map as one HTML page, and a table.

    Parameters are options with a range, after the strategy: --fast 5:50:5 --slow 20,50,200.
    A parameter that is not given takes a range of its own.
    """
    ranged = with_ranges(typed, context.args).adding(strategy=strategy)
    with opened_for(ranged, None) as (workspace, settings, wanted):
        from backtest_pipeline.pipeline.execution import source_for, swept

        most = wanted.max_combinations or settings.optimizer_max_combinations
        settings = settings.model_copy(update={"optimizer_max_combinations": most})
        source = source_for(workspace, settings, wanted, str(bars or ""))
        found, sweep = swept(workspace, settings, wanted, source, rebuild=full_rebuild)
        page = sweep.write_html(output)
    if as_json:
        print_json({**found.model_dump(mode="json"), "page": str(page.resolve())})
    else:
        _show(found, sweep, page)


def _show(found: SweepResult, sweep: Exploration, page: Path) -> None:
    from backtest_pipeline.report.sweep_page import (
        neighbourhood_sentence,
        remarks,
        selection_sentences,
    )

    run = found.best_run
    of_what = "the synthetic sample market: " if run.synthetic else ""
    title = f"{found.strategy} by {found.metric}, {found.n_combinations:,} combinations"
    console.print(rows_table(title, _rows(found)))
    say(f"{of_what}{sweep.subject}")
    for note in run.notes:
        say(note)
    for reason, rows in run.rows_by_reason.items():
        say(f"rows of the source, skipped or flagged: {reason} {rows:,}")
    for remark in remarks(sweep.table, found.metric, found.left_out):
        say(remark)
    say(f"around the best: {neighbourhood_sentence(sweep.surroundings, found.metric)}")
    for sentence in selection_sentences(sweep.selection):
        say(sentence)
    say(f"warning: {found.warning}")
    say(f"the best as a run: {run.run_id}")
    say(f"heat map and curves: {page.resolve()}")


def _rows(found: SweepResult) -> list[dict[str, Any]]:
    places = {"best": found.ranked[0], "median": found.median, "worst": found.worst}
    metrics = dict.fromkeys((found.metric, *_BESIDE))
    return [
        {"": place, **one.params, **{name: one.metrics[name] for name in metrics}}
        for place, one in places.items()
    ]
