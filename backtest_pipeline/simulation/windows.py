"""Simulate many windows of a history at once, each with conditions of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.config import PositionRules, SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.inputs import account_inputs
from backtest_pipeline.simulation.orders import HOLD, LONG_ENTRY, SHORT_ENTRY
from backtest_pipeline.simulation.rules import RulesOfRuns, config_for
from backtest_pipeline.simulation.strategy_conditions import conditions_of_rules
from backtest_pipeline.strategies.rules.expressions import number_expression
from backtest_pipeline.strategies.strategy import Strategy

NO_SIGNALS = -1


@dataclass(frozen=True)
class Candidates:
    """Conditions and rules of a strategy under several sets of parameters.

    Attributes:
        events: uint8 `(n_sets, n_rows)`, see `simulation.orders`.
        rules: of each set.
    """

    events: np.ndarray
    rules: tuple[PositionRules, ...]


def conditions_by_params(
    panel: Panel, strategy: Strategy[Any], params: Sequence[Mapping[str, Any]]
) -> np.ndarray:
    """Conditions of a strategy for each parameter set, uint8 `(len(params), n_rows)`.

    Args:
        panel: bars from each asset's first one on, and features; missing `ema_N`, `rsi_N` and
            `atr_N` are computed once for all parameter sets.
        strategy: the strategy.
        params: parameter sets.

    Returns:
        Bits as in `simulation.orders`.

    Raises:
        InvalidInput: for parameters that the strategy rejects.
    """
    return conditions_of_rules(panel, [(strategy, strategy.parse(given)) for given in params])


def expressions_by_params(
    panel: Panel, strategy: Strategy[Any], params: Sequence[Mapping[str, Any]]
) -> np.ndarray:
    """What the expressions of a strategy's stops and sizings give, float64.

    Arguments as `conditions_by_params`; parameter sets may share an expression, or have none.

    Returns:
        `(n_expressions, n_rows)`, NaN where undefined.
    """
    rules = [
        config_for(SimulationConfig(), strategy, strategy.parse(given)).rules for given in params
    ]
    texts = {text: what for one in rules for what, text in one.expressions.items()}
    found = [number_expression(text, what).values(panel) for text, what in texts.items()]
    return np.array(found, np.float64).reshape(len(found), len(panel))


def candidates(
    panel: Panel,
    strategy: Strategy[Any],
    params: Sequence[Mapping[str, Any]],
    config: SimulationConfig,
) -> Candidates:
    """What a strategy does under each set of parameters; arguments as `conditions_by_params`.

    Stops and cooldown of the configuration, where it names any, replace those of the strategy.
    """
    rules = tuple(config_for(config, strategy, strategy.parse(given)).rules for given in params)
    return Candidates(conditions_by_params(panel, strategy, params), rules)


def simulate_windows(
    panel: Panel,
    tried: Candidates,
    windows: Sequence[slice],
    chosen: np.ndarray,
    config: SimulationConfig,
    *,
    holds: np.ndarray | None = None,
    funding: FundingRates | None = None,
) -> BatchResult:
    """Simulate windows of a history, each on its own.

    A window starts with the starting cash; a position open at its end is marked to its last close.
    Conditions and indicators use the bars before the window too.

    Args:
        panel: bars.
        tried: conditions and rules of each parameter set.
        windows: rows of one asset each; they may overlap.
        chosen: int `(n_runs, n_windows)`, the parameter set to trade in each window, or NO_SIGNALS.
        config: costs, sizing, direction and starting cash.
        holds: int8 `(n_runs, n_windows)`, side to hold from the second bar's open on, where windows
            begin with the bar before; all start flat if not given.
        funding: funding rates by symbol; None for the flat rate of the costs.

    Returns:
        One run per row of `chosen`; the segments of its panel are the windows.
    """
    cut = with_config_columns(panel, config, tried.rules).windows(windows)
    traded = np.zeros((len(chosen), len(cut)), np.uint8)
    for w, window in enumerate(windows):
        trading = chosen[:, w] != NO_SIGNALS
        rows = slice(cut.offsets[w], cut.offsets[w + 1])
        traded[trading, rows] = tried.events[chosen[trading, w], window]
        if holds is not None:
            traded[:, rows.start] = position_bits(holds[:, w])
    distinct = tuple(dict.fromkeys(tried.rules)) or (config.rules,)
    rule_of = np.array([distinct.index(one) for one in tried.rules] or [0])
    rules = RulesOfRuns(distinct, rule_of[np.maximum(chosen, 0)])
    return simulate_batch(cut, traded, config, rules=rules, funding=funding)


def position_bits(sides: np.ndarray) -> np.ndarray:
    """The events, uint8, that bring an account to hold these sides: 1, -1, or 0 for none."""
    bits = np.select([sides > 0, sides < 0], [LONG_ENTRY, SHORT_ENTRY], 0)
    return (bits | HOLD).astype(np.uint8)


def sides_held(
    panel: Panel,
    tried: Candidates,
    rows: Sequence[int],
    sets: Sequence[int],
    config: SimulationConfig,
    funding: FundingRates | None = None,
) -> np.ndarray:
    """The side that the account of each set of parameters holds from a row's open on.

    Each is traded alone from the first bar of the row's asset on.

    Args:
        panel, tried, config, funding: as `simulate_windows` takes them.
        rows: rows of the panel.
        sets: the set of parameters for each of them.

    Returns:
        int8 `(len(rows),)`: 1, -1, or 0 where it is flat.
    """
    firsts = panel.offsets[:-1][panel.segment_of_row[np.array(rows, np.int64)]]
    histories = [slice(int(first), row) for first, row in zip(firsts, rows, strict=True)]
    bars = with_config_columns(panel, config, tried.rules).windows(histories)
    own = [tried.events[s, history] for s, history in zip(sets, histories, strict=True)]
    distinct = tuple(tried.rules[s] for s in sets)
    rules = RulesOfRuns(distinct, np.arange(len(distinct))[None, :])
    events = np.concatenate([*own, np.zeros(0, np.uint8)])[None, :]
    inputs = account_inputs(bars, events, config, funding=funding, rules=rules)
    return inputs.simulate_each(bars).next_side
