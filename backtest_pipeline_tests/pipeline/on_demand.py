"""Runs on demand as rows of the store, on any source of bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from backtest_pipeline.pipeline.runs.identity import RunTerms, simulation_config
from backtest_pipeline.pipeline.specs import RunSpec
from backtest_pipeline.pipeline.use_cases.backtest import Made, backtest
from backtest_pipeline.pipeline.use_cases.robustness import assess_run
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.storage.tables.dimensions import active_signals
from backtest_pipeline.strategies.registry import named


def backtest_once(
    workspace: Workspace,
    source: BarSource,
    *,
    signal: str,
    asset: str,
    tf: str,
    terms: RunTerms,
    rebuild: bool = False,
) -> Mapping[str, Any]:
    """One run as `storage.run_tables.runs.runs_by_id` gives it."""
    return _made(workspace, source, signal, asset, tf, terms, rebuild).runs[0]


def assess_once(
    workspace: Workspace,
    source: BarSource,
    *,
    signal: str,
    asset: str,
    tf: str,
    terms: RunTerms,
    draws: int = 1000,
    seed: int = 0,
    rebuild: bool = False,
) -> Mapping[str, Any]:
    """The same with its row of `run_robustness`."""
    made = _made(workspace, source, signal, asset, tf, terms, rebuild)
    found = assess_run(workspace, made, draws, seed, rebuild=rebuild)
    return {**made.runs[0], "robustness": found}


def _made(
    workspace: Workspace,
    source: BarSource,
    signal: str,
    asset: str,
    tf: str,
    terms: RunTerms,
    rebuild: bool,
) -> Made:
    with workspace.database.begin() as connection:
        meant = named(signal, [preset.name for preset in active_signals(connection)])
    spec = RunSpec.model_validate(
        {
            **simulation_config(terms.config),
            "strategy": meant.strategy,
            "preset": meant.preset,
            "symbol": asset,
            "timeframe": tf,
            "start": terms.window.start,
            "end": terms.window.end,
            "benchmark": terms.benchmark,
            "funding": _rates(terms),
        }
    )
    return backtest(workspace, source, spec, [asset], rebuild=rebuild)


def _rates(terms: RunTerms) -> dict[str, list[tuple[Any, float]]] | None:
    if terms.funding is None:
        return None
    return {
        symbol: list(zip(pd.DatetimeIndex(ts.view("M8[us]"), tz="UTC"), rate, strict=True))
        for symbol, ts, rate in (
            (symbol, ts, terms.funding.rate[symbol]) for symbol, ts in terms.funding.ts.items()
        )
    }
