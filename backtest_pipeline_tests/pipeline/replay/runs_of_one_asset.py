"""Runs of one asset, on its bars and on those restated."""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.runs.identity import RunTerms
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel
from backtest_pipeline_tests.pipeline.on_demand import backtest_once

BARS = daily_panel({"A": 250}, seed=11)


def restated(panel: Panel, row: int = 120) -> Panel:
    """One bar of the past a little higher, and two days fewer at the end."""
    columns = {name: values.copy() for name, values in panel.columns.items()}
    for name in ("open", "high", "low", "close"):
        columns[name][row] *= 1.3
    return panel.with_columns(columns).take(np.arange(len(panel)) < len(panel) - 2)


def run(workspace: Workspace, bars: Panel, config: SimulationConfig, **what: Any) -> Any:
    told: dict[str, Any] = {"signal": "ema_9_21", "asset": "A", "tf": "1D"} | what
    return backtest_once(workspace, StaticSource({"1D": bars}), terms=RunTerms(config), **told)
