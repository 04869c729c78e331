"""`backtest-pipeline cross-section`: strategies that rank a universe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson, FullRebuild, SpecOptions, of_spec
from backtest_pipeline.cli.run import say_report
from backtest_pipeline.cli.store import open_store
from backtest_pipeline.pipeline.specs import CrossSectionSpec

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.results import CrossSectionResult

_FIGURES = ("total_return", "benchmark_return", "sharpe", "max_drawdown", "turnover", "trade_count")
_RETURNS = ("mean_return", "quantile_spread")
"""Returns of a few bars, too small for the two digits of other figures."""
_INFORMATION = ("mean_ic", "icir", "ic_t_value", "ic_hit_rate", "quantile_spread")

app = typer.Typer()
cross_section = typer.Typer(
    name="cross-section",
    help="Strategies that rank a universe: run, and show their information coefficients.",
    no_args_is_help=True,
)
app.add_typer(cross_section)


@cross_section.command()
@of_spec(CrossSectionSpec)
def run(
    *,
    options: SpecOptions[CrossSectionSpec],
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Rank stored assets at each rebalance, trade the ends of the ranking, and store the run."""
    spec = options.spec()
    with open_store() as workspace:
        from backtest_pipeline.pipeline.execution import execute
        from backtest_pipeline.pipeline.results import CrossSectionResult
        from backtest_pipeline.pipeline.runs.reports.report import report_url
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings()
        result = execute(workspace, settings, spec, rebuild=full_rebuild)
        assert isinstance(result, CrossSectionResult)  # noqa: S101  (it has no other)
        address = report_url(result.run_id, settings)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _show(result)
        say_report(result.run_id, address)


def _show(result: CrossSectionResult) -> None:
    title = f"{result.strategy} on {len(result.symbols)} assets, {result.timeframe}"
    console.print(rows_table(title, [{name: result.metrics[name] for name in _FIGURES}]))
    figures = [_shown({name: result.information[name] for name in _INFORMATION})]
    console.print(rows_table(f"Information, {result.horizon} bars ahead", figures))
    console.print(
        rows_table("Quantiles, the lowest scores first", [*map(_shown, result.quantiles)])
    )
    told = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in result.rebalances.items())
    say(f"rebalances: {told}")
    say(f"delisted while held: {result.delisted}, each at {result.delisting_return:.0%}")
    for note in result.notes:
        say(note)
    say("benchmark: the same universe held in equal parts, bought once")
    say(f"run {result.run_id}")


def _shown(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    """Figures with the returns of a few bars in basis points, and quantiles as whole numbers."""
    shown: dict[str, float | None] = {}
    for name, value in figures.items():
        if name in _RETURNS:
            shown[f"{name}, bp"] = None if value is None else value * 1e4
        else:
            shown[name] = int(value) if name == "quantile" and value else value
    return shown
