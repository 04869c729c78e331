"""`backtest-pipeline refresh` and `demo`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtest_pipeline.defs.launch import RefreshResult

from backtest_pipeline.cli.console import console, fail, progress_bars, runs_table

# Neighbours in the project's list, so that one range run covers them.
DEMO_TIMEFRAMES = ("4H", "12H", "1D", "2D", "3D", "1W")
_SHOWN = 8


def demo() -> None:
    """The main job on the sample market, with what a trader wants to see of it."""
    console.print(
        "Refreshing 12 [bold]synthetic[/] assets: bars -> features -> signals -> backtests -> "
        "portfolios"
    )
    refresh(None, DEMO_TIMEFRAMES, "", full_rebuild=False, as_json=False, sample=True)
    console.print(
        "Next: [bold]make up[/] opens the Dagster UI on http://127.0.0.1:3000, where each asset "
        "and timeframe can be materialized,\nand [bold]backtest-pipeline run --signal rsi "
        "--asset S-ALPHA --tf 1D --start 2024-01-01[/] runs one backtest.",
        highlight=False,
    )


def refresh(
    assets: Sequence[str] | None,
    timeframes: Sequence[str] | None,
    bars: str,
    *,
    full_rebuild: bool,
    as_json: bool,
    sample: bool = False,
) -> None:
    """Refresh through Dagster, then print the best and worst of the stored runs."""
    with progress_bars(quiet=as_json) as progress:
        progress("loading", 0, 1)
        from backtest_pipeline.cli.serving import ensure_schema
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings(**({"bars": ""} if sample else {}))
        ensure_schema(settings)
        from backtest_pipeline.defs.launch import refresh as launch

        progress("loading", 1, 1)
        result = launch(
            bars=bars or settings.bars,
            assets=assets,
            timeframes=timeframes,
            full_rebuild=full_rebuild,
            progress=progress,
        )
    _show_results(result, as_json)
    if result.failures:
        fail("\n".join(result.failures))


def _show_results(result: RefreshResult, as_json: bool) -> None:
    from backtest_pipeline.pipeline.summary import beating_benchmark, by_sharpe, run_rows
    from backtest_pipeline.pipeline.workspace import open_workspace
    from backtest_pipeline.storage.runs import current_runs

    with open_workspace() as workspace:
        with workspace.database.begin() as connection:
            runs = current_runs(connection, symbols=result.assets, timeframes=result.timeframes)
        folder, where = workspace.artifacts.root, workspace.database.where
    ranked = by_sharpe(runs)
    if as_json:
        console.print_json(
            json.dumps(
                {
                    "dagster_runs": list(result.run_ids),
                    "failures": list(result.failures),
                    "runs": run_rows(runs),
                },
                allow_nan=False,
            )
        )
        return
    if ranked:
        console.print(runs_table("Best runs by Sharpe", run_rows(ranked[:_SHOWN])))
        console.print(runs_table("Worst runs", run_rows(ranked[:-4:-1])))
    trades = int(sum(run["trade_count"] for run in runs))
    console.print(
        f"{len(runs)} backtests, {trades:,} trades; {beating_benchmark(runs)} runs beat buy and "
        "hold. Picking the best of many flatters it: expect less of it than it shows."
    )
    console.print(f"database: {where}\nfiles:    {folder}", highlight=False, soft_wrap=True)
