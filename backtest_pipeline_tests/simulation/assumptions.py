"""Assumptions that a run may make, for hypothesis to draw from."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import (
    AtrRisk,
    ByExpression,
    EqualWeight,
    FixedFractional,
    Sizing,
    VolatilityScaled,
)
from backtest_pipeline.trading.stops import IntrabarOrder, StopRules


def rarely(*values: float | str) -> st.SearchStrategy[Any]:
    """None in two thirds of the cases, so that positions also live long enough for others."""
    return st.sampled_from([None] * 2 * len(values) + list(values))


BY_ATR, BY_SIDE = "atr_3 / close", "0.3 if close > open else 0"
BY_RISE = "20 * (close / shift(close, 1) - 1)"  # about 1 or more in half of the wilder markets
BY_RISK = "0.02 / (atr_3 / close)"
seeds = st.integers(0, 2**32 - 1)
volatilities = st.sampled_from([0.005, 0.05, 0.4])
cost_models = st.builds(
    CostModel,
    fee_bps=st.sampled_from([0.0, 10.0, 123.4, 2500.0]),
    slippage_bps=st.sampled_from([0.0, 5.0, 77.7, 1500.0]),
    funding_bps_day=st.sampled_from([0.0, 3.0, -3.0, 400.0, -400.0]),
)
stop_rules = st.builds(
    StopRules,
    stop_loss=rarely(0.02, 0.1, 0.5, BY_ATR, BY_SIDE),
    take_profit=rarely(0.02, 0.15, 1.5, BY_ATR, BY_RISE),
    trailing=rarely(0.03, 0.1, 0.4, BY_ATR, BY_RISE),
    trailing_atr=rarely(0.5, 3.0, BY_SIDE, BY_RISE),
    atr_period=st.sampled_from([2, 5, 14]),
    max_bars=rarely(1, 3, 10),
)


def sizings(max_leverage: float) -> st.SearchStrategy[Sizing]:
    """All modes, with values that a leverage allows."""
    return st.one_of(
        st.sampled_from([1.0, 0.999, 0.5, 0.013]).map(
            lambda share: FixedFractional(share * max_leverage)
        ),
        st.builds(EqualWeight, st.sampled_from([None, 2, 3])),
        st.builds(VolatilityScaled, st.sampled_from([0.2, 2.0]), st.sampled_from([2, 7])),
        st.builds(AtrRisk, st.sampled_from([0.01, 0.2]), st.sampled_from([1.0, 2.0]), st.just(3)),
        st.builds(ByExpression, st.sampled_from([BY_SIDE, BY_RISE, BY_RISK])),
    )


@st.composite
def configs(
    draw: st.DrawFn,
    costs: st.SearchStrategy[CostModel] = cost_models,
    stops: st.SearchStrategy[StopRules] = stop_rules,
) -> SimulationConfig:
    """Everything at once."""
    max_leverage = draw(st.sampled_from([0.5, 1.0, 3.0]))
    return SimulationConfig(
        costs=draw(costs),
        sizing=draw(sizings(max_leverage)),
        direction=draw(st.sampled_from(list(Direction))),
        initial_cash=draw(st.sampled_from([10_000.0, 1e9])),
        stops=draw(stops),
        max_leverage=max_leverage,
        lot_size=draw(st.sampled_from([0.0, 0.001, 0.37, 5.0])),
        min_notional=draw(st.sampled_from([0.0, 0.0, 50.0, 3_000.0])),
        delay_bars=draw(st.sampled_from([0, 0, 1, 2])),
        cooldown_bars=draw(st.sampled_from([0, 0, 0, 1, 4])),
        intrabar=draw(st.sampled_from(list(IntrabarOrder))),
    )
