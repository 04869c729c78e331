"""Indicators that sizing and stops need besides the bars."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from backtest_pipeline.market.features import rolling, with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.config import PositionRules, SimulationConfig
from backtest_pipeline.strategies.rules.expressions import number_expression
from backtest_pipeline.trading.sizing import (
    AtrRisk,
    ByExpression,
    EqualWeight,
    FixedFractional,
    Sizing,
    VolatilityScaled,
)
from backtest_pipeline.trading.stops import DISTANCES


def with_config_columns(
    panel: Panel, config: SimulationConfig, rules: Iterable[PositionRules] = ()
) -> Panel:
    """The panel with the indicators that stops and sizing need.

    Call it before cutting a panel to a window: indicators depend on the bars before it.

    Args:
        panel: bars.
        config: sizing and stops.
        rules: those of runs that have their own.
    """
    every = list(dict.fromkeys([config.rules, *rules]))
    for sizing in sizings_of(every):
        panel = with_sizing_columns(panel, sizing, config.delay_bars)
    for name, text in distances_of(every):
        panel = _with_expression(panel, name, text, config.delay_bars)
    for period in atr_periods(every):
        panel = _with_lagged(with_indicators(panel, [f"atr_{period}"]), f"atr_{period}", 1)
    return panel


def atr_periods(rules: Iterable[PositionRules]) -> list[int]:
    """Periods of the average true ranges that trailing stops are multiples of."""
    return sorted({r.stops.atr_period for r in rules if r.stops.trailing_atr is not None})


def sizings_of(rules: Iterable[PositionRules]) -> list[Sizing]:
    """The different sizings of rules, in their order."""
    return list(dict.fromkeys(one.sizing for one in rules))


def distances_of(rules: Iterable[PositionRules]) -> list[tuple[str, str]]:
    """The different distances of stops that are expressions: name and text, in their order."""
    return list(dict.fromkeys(pair for one in rules for pair in one.stops.expressions.items()))


def columns_read(rules: Iterable[PositionRules]) -> tuple[str, ...]:
    """The columns that expressions of stops and sizings read, in their order."""
    read = [
        name
        for one in rules
        for what, text in one.expressions.items()
        for name in number_expression(text, what).reads
    ]
    return tuple(dict.fromkeys(read))


def volatility_column(lookback: int) -> str:
    """Name of the panel column with the annualised volatility of `lookback` returns."""
    return f"volatility_{lookback}"


def _expression_column(text: str) -> str:
    return f"expression {text}"


def lagged_column(name: str, bars: int) -> str:
    """Name of the panel column that holds another column's values of some bars before."""
    return f"{name}_lag_{bars}"


def _with_lagged(panel: Panel, name: str, bars: int) -> Panel:
    lagged = lagged_column(name, bars)
    if lagged in panel.columns:
        return panel
    values = panel[name]
    for _ in range(bars):
        values = rolling.previous(values, panel.offsets)
    return panel.with_columns({lagged: values})


def _with_expression(panel: Panel, what: str, text: str, delay_bars: int) -> Panel:
    name = _expression_column(text)
    if name not in panel.columns:
        panel = panel.with_columns({name: number_expression(text, what).values(panel)})
    return _with_lagged(panel, name, 1 + delay_bars)


def with_sizing_columns(panel: Panel, sizing: Sizing, delay_bars: int = 0) -> Panel:
    """The panel with the indicator that the sizing needs, computed from its bars if missing.

    An entry is sized by the indicator at the close of its signal's bar.

    Raises:
        InvalidInput: where an expression reads a column that the panel does not have.
    """
    if isinstance(sizing, AtrRisk):
        name = f"atr_{sizing.atr_period}"
        panel = with_indicators(panel, [name])
    elif isinstance(sizing, VolatilityScaled):
        name = volatility_column(sizing.lookback)
        if name not in panel.columns:
            change = panel["close"] / rolling.previous(panel["close"], panel.offsets) - 1.0
            deviation = rolling.deviation(change, panel.offsets, sizing.lookback)
            panel = panel.with_columns({name: deviation * panel.timeframe.bars_per_year**0.5})
    elif isinstance(sizing, ByExpression):
        return _with_expression(panel, "sizing", sizing.fraction, delay_bars)
    else:
        return panel
    return _with_lagged(panel, name, 1 + delay_bars)


def entry_fractions(
    panel: Panel, sizing: Sizing, n_members: int, max_leverage: float, delay_bars: int = 0
) -> np.ndarray:
    """Fraction of equity that an entry at each bar's open uses.

    Args:
        panel: from `with_sizing_columns`.
        sizing: sizing mode.
        n_members: number of assets of the account.
        max_leverage: largest fraction.
        delay_bars: bars by which entries are delayed beyond the next open.

    Returns:
        float64 `(n_rows,)`, from indicators at the close of the signal's bar; NaN during their
        warm-up, and where an expression is undefined, 0 or less.
    """
    if isinstance(sizing, FixedFractional):
        fraction = np.full(len(panel), sizing.fraction)
    elif isinstance(sizing, EqualWeight):
        fraction = np.full(len(panel), 1.0 / (sizing.n_assets or n_members))
    elif isinstance(sizing, ByExpression):
        known = panel[lagged_column(_expression_column(sizing.fraction), 1 + delay_bars)]
        fraction = np.where(known > 0, known, np.nan)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            if isinstance(sizing, VolatilityScaled):
                known = panel[lagged_column(volatility_column(sizing.lookback), 1 + delay_bars)]
                fraction = sizing.target / known
            else:
                known = panel[lagged_column(f"atr_{sizing.atr_period}", 1 + delay_bars)]
                fraction = sizing.risk * panel["open"] / (sizing.atr_multiple * known)
    return np.minimum(fraction, max_leverage)


def entry_distances(panel: Panel, name: str, text: str, delay_bars: int = 0) -> np.ndarray:
    """Distance of a stop or target for an entry at each bar's open.

    Args:
        panel: from `with_config_columns`.
        name: which distance, a key of `DISTANCES`.
        text: its expression.
        delay_bars: bars by which entries are delayed beyond the next open.

    Returns:
        float64 `(n_rows,)`, the value at the close of the signal's bar; NaN where it is undefined
        or out of bounds.
    """
    known = panel[lagged_column(_expression_column(text), 1 + delay_bars)]
    most = DISTANCES[name] or np.inf
    return np.where((known > 0) & (known < most), known, np.nan)
