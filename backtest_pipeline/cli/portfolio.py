"""`backtest-pipeline portfolio`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson, Bars, FullRebuild, Signal, Typed, of_spec
from backtest_pipeline.cli.store import opened_for
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
    typed: Typed[PortfolioSpec],
    bars: Bars = None,
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Trade one strategy on several assets, spread capital over them, and store all."""
    with opened_for(typed, signal) as (workspace, settings, wanted):
        from backtest_pipeline.pipeline.execution import execute
        from backtest_pipeline.pipeline.results import PortfolioResult

        found = execute(workspace, settings, wanted, bars=str(bars or ""), rebuild=full_rebuild)
        assert isinstance(found, PortfolioResult)  # noqa: S101  (a portfolio has no other)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _show(found)


def _show(found: PortfolioResult) -> None:
    members = [
        {"asset": one.symbol, "total_return": one.total_return, "sharpe": one.sharpe}
        for one in found.members
    ]
    title = f"{found.name} on {len(members)} assets, {found.timeframe}, {found.scheme}"
    console.print(rows_table(title, members))
    figures = {name: found.metrics[name] for name in _FIGURES}
    console.print(rows_table(f"portfolio {found.portfolio_id}", [figures]))
    for asset, times in found.left_out.items():
        say(f"{asset} was left out at {times} rebalances")
    first, last = (f"{ts:%Y-%m-%d}" for ts in (found.first_ts, found.last_ts))
    say(f"{found.n_rebalances} rebalances from {first} to {last}")
