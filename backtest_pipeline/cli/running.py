"""`backtest-pipeline run`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

from backtest_pipeline.cli.console import console, progress_bars, runs_table
from backtest_pipeline.market.errors import InvalidInput, UnknownName


def run(
    *,
    signal: str,
    asset: str,
    tf: str,
    start: str | None,
    end: str | None,
    bars: str,
    direction: str,
    costs: tuple[float, float],
    fraction: float,
    full_rebuild: bool,
    as_json: bool,
) -> None:
    """Backtest, print the result and where its files are."""
    with progress_bars(quiet=as_json) as progress:
        progress("loading", 0, 1)
        from backtest_pipeline.pipeline.identity import Window
        from backtest_pipeline.pipeline.single_run import backtest_once, require_window
        from backtest_pipeline.pipeline.summary import run_rows
        from backtest_pipeline.pipeline.workspace import open_workspace
        from backtest_pipeline.simulation.costs import (
            CostModel,
            Direction,
            FixedFractional,
            SimulationConfig,
        )
        from backtest_pipeline.sources.choose import choose_source
        from backtest_pipeline.storage.settings import load_settings

        if direction not in list(Direction):
            raise UnknownName("direction", direction, list(Direction))
        config = SimulationConfig(
            CostModel(*costs), FixedFractional(fraction), Direction(direction)
        )
        window = Window(_day(start, "--start"), _day(end, "--end"))
        require_window(window)
        settings = load_settings()
        source = choose_source(bars or settings.bars)
        progress("loading", 1, 1)
        with open_workspace(settings, progress=progress) as workspace:
            row = backtest_once(
                workspace,
                source,
                signal=signal,
                asset=asset,
                tf=tf,
                window=window,
                config=config,
                rebuild=full_rebuild,
            )
            folder = workspace.artifacts.root / row["artifact_uri"]
    if as_json:
        console.print_json(json.dumps(_as_json(row, str(folder)), allow_nan=False))
        return
    console.print(runs_table(f"run {row['run_id']}", run_rows([row])))
    synthetic = " of the synthetic sample market" if source.synthetic else ""
    console.print(f"{row['n_bars']} bars{synthetic}, {row['first_ts']} to {row['last_ts']}")
    pending = row["results"]["pending"]
    if pending:
        console.print(f"the last bar's signal is pending: {pending} at the next open")
    console.print(f"equity and monthly returns: {folder}", soft_wrap=True)
    console.print("run, trades, metrics: tables backtest_runs, backtest_trades, backtest_metrics")


def _day(text: str | None, option: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{option} {text!r} is not a day; write it as 2024-01-31") from None


def _as_json(row: Mapping[str, Any], folder: str) -> dict[str, Any]:
    from backtest_pipeline.simulation.metrics import METRIC_NAMES

    return {
        "run_id": str(row["run_id"]),
        "signal": row["signal_name"],
        "asset": row["symbol"],
        "timeframe": row["tf"],
        "bars": int(row["n_bars"]),
        "first_ts": row["first_ts"].isoformat(),
        "last_ts": row["last_ts"].isoformat(),
        "pending": row["results"]["pending"],
        "liquidated": row["results"]["liquidated"],
        "metrics": {name: row[name] for name in METRIC_NAMES},
        "undefined": row["undefined"],
        "result_fingerprint": row["result_fingerprint"],
        "artifacts": folder,
    }
