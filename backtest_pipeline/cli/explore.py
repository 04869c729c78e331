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
    SpecOptions,
    of_spec,
    with_ranges,
)
from backtest_pipeline.cli.store import open_store_for
from backtest_pipeline.market.errors import InvalidInput
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
        str | None,
        typer.Argument(help="A strategy by its name or its first word, such as ema or macd."),
    ] = None,
    options: SpecOptions[SweepSpec],
    bars: Bars = None,
    output: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("exploration.html"),
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Sweep a strategy's parameters on one asset; print a table, write a heat map as HTML.

    Give parameters as ranges after the strategy: --fast 5:50:5 --slow 20,50,200.
    Parameters left out use the strategy's default grid.
    """
    typed = context.args
    if options.values["rules"] and strategy:  # the first option for a parameter was taken for it
        strategy, typed = None, [strategy, *typed]
    elif not options.values["rules"] and not strategy:
        raise InvalidInput("there is no strategy; write explore STRATEGY, or give --rules FILE")
    ranged = with_ranges(options, typed).updated(strategy=strategy)
    with open_store_for(ranged, None) as (workspace, settings, spec):
        from backtest_pipeline.pipeline.execution import swept
        from backtest_pipeline.pipeline.use_cases.spec_sources import source_for

        limit = spec.max_combinations or settings.optimizer_max_combinations
        settings = settings.model_copy(update={"optimizer_max_combinations": limit})
        source = source_for(workspace, settings, spec, str(bars or ""))
        result, sweep = swept(workspace, settings, spec, source, rebuild=full_rebuild)
        page = sweep.write_html(output)
    if as_json:
        print_json({**result.model_dump(mode="json"), "page": str(page.resolve())})
    else:
        _show(result, sweep, page)


def _show(result: SweepResult, sweep: Exploration, page: Path) -> None:
    from backtest_pipeline.report.sweep_page import (
        neighbourhood_sentence,
        remarks,
        selection_sentences,
    )

    run = result.best_run
    market = "the synthetic sample market: " if run.synthetic else ""
    title = f"{result.strategy} by {result.metric}, {result.n_combinations:,} combinations"
    console.print(rows_table(title, _rows(result)))
    say(f"{market}{sweep.subject}")
    for note in run.notes:
        say(note)
    for reason, rows in run.rows_by_reason.items():
        say(f"source rows skipped or flagged: {reason} {rows:,}")
    for remark in remarks(sweep.table, result.metric, result.left_out):
        say(remark)
    say(f"neighbours of the best: {neighbourhood_sentence(sweep.surroundings, result.metric)}")
    for sentence in selection_sentences(sweep.selection):
        say(sentence)
    say(f"warning: {result.warning}")
    say(f"best combination stored as run {run.run_id}")
    say(f"heat map and curves: {page.resolve()}")


def _rows(result: SweepResult) -> list[dict[str, Any]]:
    places = {"best": result.ranked[0], "median": result.median, "worst": result.worst}
    metrics = dict.fromkeys((result.metric, *_BESIDE))
    return [
        {"": place, **one.params, **{name: one.metrics[name] for name in metrics}}
        for place, one in places.items()
    ]
