"""The shared matrix of cases that the account and vectorbt have to agree on."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.rules import RulesOfRuns
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.engine_names import EngineName
from backtest_pipeline.trading.sizing import (
    AtrRisk,
    ByExpression,
    EqualWeight,
    FixedFractional,
    Sizing,
    VolatilityScaled,
)
from backtest_pipeline.trading.stops import StopRules

AGREED = 1e-9
COSTS = {"free": CostModel(0.0, 0.0), "fees": CostModel(10.0, 0.0), "both": CostModel(10.0, 5.0)}
SIZINGS: dict[str, Sizing] = {
    "all": FixedFractional(),
    "part": FixedFractional(0.3),
    "equal": EqualWeight(4),
    "volatility": VolatilityScaled(0.2, 20),
    "atr": AtrRisk(0.02, 2.0, 7),
    "expression": ByExpression("0.02 * close / (high - low)"),
}
STOPS = {
    "none": StopRules(),
    "stop": StopRules(stop_loss=0.05),
    "trailing": StopRules(trailing=0.04),
    "target": StopRules(take_profit=0.03),
    "stop and target": StopRules(stop_loss=0.03, take_profit=0.03),
    "trailing and target": StopRules(trailing=0.03, take_profit=0.02),
    "by expression": StopRules(stop_loss="2 * (high - low) / close", take_profit="0.04"),
}


def both(
    panel: Panel, events: np.ndarray, config: SimulationConfig, rules: RulesOfRuns | None = None
) -> tuple[BatchResult, BatchResult]:
    """The same runs by the account and by vectorbt."""
    return (
        simulate_batch(panel, events, config, rules=rules),
        simulate_batch(panel, events, replace(config, engine=EngineName.VECTORBT), rules=rules),
    )


def assert_agree(ours: BatchResult, theirs: BatchResult) -> None:
    """Equity, every column of the trade log, metrics, and what is pending or was blocked."""
    np.testing.assert_allclose(theirs.equity, ours.equity, rtol=AGREED)
    assert len(theirs.trades) == len(ours.trades)
    for field in fields(ours.trades):
        np.testing.assert_allclose(
            getattr(theirs.trades, field.name).astype(float),
            getattr(ours.trades, field.name).astype(float),
            rtol=AGREED,
            atol=1e-7 if field.name == "pnl" else AGREED,
            err_msg=field.name,
        )
    for field in fields(ours.refusals):
        np.testing.assert_allclose(
            np.asarray(getattr(theirs.refusals, field.name), float),
            np.asarray(getattr(ours.refusals, field.name), float),
            rtol=AGREED,
            err_msg=field.name,
        )
    for name in ("pending", "liquidated", "refused", "conflicts"):
        np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name), err_msg=name)
    for name, values in ours.metrics.items():
        np.testing.assert_allclose(theirs.metrics[name], values, rtol=1e-7, atol=1e-9, err_msg=name)


__all__ = ["AGREED", "COSTS", "SIZINGS", "STOPS", "Direction", "assert_agree", "both"]
