"""`backtest-pipeline look-ahead`."""

from __future__ import annotations

from collections.abc import Sequence

from backtest_pipeline.cli.console import console, fail, print_json, rows_table, say
from backtest_pipeline.cli.store import open_store

_SHOWN = 20


def look_ahead(
    *,
    assets: Sequence[str] | None,
    timeframes: Sequence[str] | None,
    bars: str,
    seed: int,
    cuts: int,
    as_json: bool,
) -> None:
    """Probe what is stored, print what looks ahead; exit code 1 where something does."""
    with open_store() as workspace:
        from backtest_pipeline.pipeline.audits.look_ahead import leak_rows, probe_look_ahead, record
        from backtest_pipeline.sources.choose import choose_source
        from backtest_pipeline.storage.settings import exchange_access, load_settings

        source = None
        if workspace.external is None:
            source = choose_source(bars or load_settings().bars, exchange_access, assets or ())
        probe = probe_look_ahead(
            workspace, source, assets=assets, timeframes=timeframes, seed=seed, cuts=cuts
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
            }
        )
    elif rows:
        console.print(rows_table("What another future changes", rows[:_SHOWN]))
    if probe.leaks:
        fail(probe.verdict)
    if not as_json:
        say(probe.verdict)
