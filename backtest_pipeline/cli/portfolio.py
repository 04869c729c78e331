"""`backtest-pipeline portfolio`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson, Bars, FullRebuild, Signal, SpecOptions, of_spec
from backtest_pipeline.cli.store import open_store_for
from backtest_pipeline.pipeline.specs import PortfolioSpec

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.results import PortfolioResult

_FIGURES = ("total_return", "sharpe", "max_drawdown", "diversification_benefit", "effective_bets")


app = typer.Typer()


@app.command()
@of_spec(PortfolioSpec)
def portfolio(
    *,
    signal: Signal = None,
    options: SpecOptions[PortfolioSpec],
    bars: Bars = None,
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Backtest one strategy on several assets as a portfolio, and store it."""
    with open_store_for(options, signal) as (workspace, settings, spec):
        from backtest_pipeline.pipeline.execution import execute
        from backtest_pipeline.pipeline.results import PortfolioResult

        result = execute(workspace, settings, spec, bars=str(bars or ""), rebuild=full_rebuild)
        assert isinstance(result, PortfolioResult)  # noqa: S101  (a portfolio has no other)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _show(result)


def _show(result: PortfolioResult) -> None:
    members = [
        {"asset": one.symbol, "total_return": one.total_return, "sharpe": one.sharpe}
        for one in result.members
    ]
    title = f"{result.name} on {len(members)} assets, {result.timeframe}, {result.scheme}"
    console.print(rows_table(title, members))
    figures = {name: result.metrics[name] for name in _FIGURES}
    console.print(rows_table(f"portfolio {result.portfolio_id}", [figures]))
    for asset, times in result.left_out.items():
        say(f"{asset} was left out at {times} rebalances")
    first, last = (f"{ts:%Y-%m-%d}" for ts in (result.first_ts, result.last_ts))
    say(f"{result.n_rebalances} rebalances from {first} to {last}")
    say(f"its report: backtest-pipeline runs report {result.portfolio_id} --open")
