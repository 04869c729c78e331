"""`backtest-pipeline look-ahead`."""

from __future__ import annotations

from typing import Annotated

import typer

from backtest_pipeline.cli.console import console, fail, print_json, rows_table, say
from backtest_pipeline.cli.options import (
    AsJson,
    Bars,
    SampledAssets,
    Timeframes,
    split,
    split_symbols,
)
from backtest_pipeline.cli.store import open_store

_SHOWN = 20

app = typer.Typer()


@app.command("look-ahead")
def look_ahead(
    *,
    assets: SampledAssets = "",
    timeframes: Timeframes = "",
    bars: Bars = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random cuts and futures.")] = 0,
    cuts: Annotated[int, typer.Option(min=1, help="Cuts per timeframe.")] = 6,
    as_json: AsJson = False,
) -> None:
    """Test whether any feature or signal uses later bars (look-ahead)."""
    symbols = split_symbols(assets)
    with open_store() as workspace:
        from backtest_pipeline.pipeline.audits.look_ahead import leak_rows, probe_look_ahead, record
        from backtest_pipeline.sources.choose import choose_source
        from backtest_pipeline.storage.settings import exchange_access, load_settings

        source = None
        if workspace.external is None:
            source = choose_source(
                str(bars or "") or load_settings().bars, exchange_access, symbols or ()
            )
        probe = probe_look_ahead(
            workspace,
            source,
            assets=symbols,
            timeframes=split(timeframes),
            seed=seed,
            cuts=cuts,
        )
        record(workspace, source, probe)
    rows = leak_rows(probe.leaks)
    if as_json:
        print_json(
            {
                "scope": probe.scope,
                "partitions": probe.partitions,
                "futures": probe.futures,
                "signals": probe.signals,
                "seed": probe.seed,
                "leaks": rows,
                "failing": dict(probe.failing),
            }
        )
    elif rows:
        console.print(rows_table("Values that change when later bars change", rows[:_SHOWN]))
    if probe.leaks or probe.failing:
        fail(probe.verdict)
    if not as_json:
        say(probe.verdict)
