"""`backtest-pipeline trials`."""

from __future__ import annotations

from typing import Annotated

import typer

from backtest_pipeline.cli.console import console, fail, print_json, rows_table
from backtest_pipeline.cli.options import AsJson, Timeframe
from backtest_pipeline.cli.store import open_store

app = typer.Typer()


@app.command()
def trials(
    *,
    asset: Annotated[str, typer.Option(help="Symbol, for example BTC.")],
    tf: Timeframe = "1D",
    as_json: AsJson = False,
) -> None:
    """Count the trials on one asset and timeframe, and deflate its runs' Sharpe ratios by them."""
    with open_store() as workspace:
        from backtest_pipeline.market.errors import UnknownName
        from backtest_pipeline.market.partitions import Partition
        from backtest_pipeline.market.symbols import key_of
        from backtest_pipeline.pipeline.ranking.deflation import deflate_partitions
        from backtest_pipeline.research.ranking.trials import CountingRule
        from backtest_pipeline.storage.run_tables.runs import current_runs
        from backtest_pipeline.storage.tables.dimensions import known_symbols

        asset = key_of(asset)
        partition = Partition(asset, tf)
        with workspace.database.begin() as connection:
            known = known_symbols(connection)
        if asset not in known:
            raise UnknownName("asset", asset, known)
        families = deflate_partitions(workspace, [partition]).get(partition, {})
        with workspace.database.begin() as connection:
            runs = current_runs(connection, timeframes=[tf], symbols=[asset])
    if not families:
        fail(f"{partition}: no trials yet; `refresh`, `run` and `explore` make some")
    counts = [
        {
            "strategy": name,
            "trials": of.n_trials,
            "effective trials": of.n_effective,
            "windows shown": of.n_windows,
        }
        for name, of in families.items()
    ]
    names = ("sharpe", "psr", "dsr", "dsr_effective", "n_trials")
    deflated = [
        {"signal": run["signal_name"], **{name: run[name] for name in names}} for run in runs
    ]
    if as_json:
        print_json({"asset": asset, "timeframe": tf, "families": counts, "runs": deflated})
        return
    console.print(rows_table(f"Trials on {partition}", counts))
    if deflated:
        title = f"Current runs, deflated by the {CountingRule.SETS} of their strategy"
        console.print(rows_table(title, deflated))
