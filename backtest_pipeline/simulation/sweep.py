"""Sweeps: a strategy's combinations of parameters as one vectorbt indicator, simulated at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.orders import condition_bits
from backtest_pipeline.simulation.rules import RulesOfRuns, config_for
from backtest_pipeline.strategies.grid import ParameterGrid
from backtest_pipeline.strategies.strategy import Strategy, conditions_of

BLOCK_BYTES = 70_000_000
"""Equity of one batch; as many are held at a time as there are workers, and one more."""

_BLOCK_RUNS = 125  # so that progress is seen, and Ctrl-C is heard
_WORKERS = 2


def strategy_indicator(strategy: Strategy[Any], panel: Panel, names: tuple[str, ...]) -> type[Any]:
    """A vectorbt indicator whose parameters are the strategy's, and whose output its conditions.

    `.run(close, *values)` takes a list of values per name, and its `.events` has one uint8
    column per combination (bits as in `simulation.orders`) under the values as labels. Events
    are those of `conditions_of`, so that a sweep means what the strategy means.

    Args:
        strategy: any.
        panel: one asset with the features that the strategy reads; `ema_N`, `rsi_N` and `atr_N`
            are added.
        names: parameters that `run` takes; the others keep their defaults.
    """
    import vectorbt as vbt

    def parsed(values: tuple[Any, ...]) -> Any:
        return strategy.parse(dict(zip(names, values, strict=True)))

    def features_once(_close: np.ndarray, *values: list[Any]) -> Panel:
        """Called once a run: what many combinations read is computed one time."""
        combinations = zip(*values, strict=True)
        read = {name for c in combinations for name in strategy.columns(parsed(c))}
        return with_indicators(panel, sorted(read))

    def events(_close: np.ndarray, *values_and_features: Any) -> np.ndarray:
        *values, features = values_and_features
        conditions = conditions_of(strategy, features, parsed(tuple(values)))
        return condition_bits(conditions)[:, None]

    factory = vbt.IndicatorFactory(
        class_name=strategy.params_type.__name__,
        short_name=strategy.name,
        input_names=["close"],
        param_names=list(names),
        output_names=["events"],
    )
    return factory.from_apply_func(events, cache_func=features_once)


def sweep(
    panel: Panel,
    grid: ParameterGrid,
    config: SimulationConfig,
    *,
    keep: np.ndarray | None = None,
    funding: FundingRates | None = None,
    listen: Callable[[int, int], None] = lambda _done, _total: None,
) -> pd.DataFrame:
    """The metrics of every combination on one asset, each as its run alone would have them.

    Args:
        panel: one asset with the features that the strategy reads.
        grid: what to try.
        config: costs, sizing, direction and starting cash.
        keep: bool, as long as the panel: rows that are traded; indicators know all rows. None is
            all.
        funding: rates by symbol, in place of the flat rate of the costs.
        listen: told how many combinations are done, of how many.

    Returns:
        One row per combination of the grid, indexed by the parameters, one column per metric;
        NaN where undefined.
    """
    batches = sweep_batches(panel, grid, config, keep=keep, funding=funding, listen=listen)
    return metrics_table(grid, [simulated.metrics for _, simulated in batches])


def metrics_table(grid: ParameterGrid, batches: Sequence[Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """The metrics of all batches of a sweep, one row per combination of the grid."""
    table = pd.concat([pd.DataFrame(metrics) for metrics in batches])
    table.index = pd.MultiIndex.from_tuples(grid.combinations, names=grid.names)
    return table


def sweep_batches(
    panel: Panel,
    grid: ParameterGrid,
    config: SimulationConfig,
    *,
    keep: np.ndarray | None = None,
    funding: FundingRates | None = None,
    listen: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[tuple[tuple[tuple[float, ...], ...], BatchResult]]:
    """Combinations with their simulation, batch by batch, in the order of the grid.

    Memory is bounded: the equity of a batch takes `BLOCK_BYTES`. Arguments as in `sweep`.
    """
    strategy = grid.strategy
    given = [strategy.parse(dict(zip(grid.names, c, strict=True))) for c in grid.combinations]
    rules = [config_for(config, strategy, params).rules for params in given]
    panel = with_config_columns(panel, config, rules)
    keep = np.ones(len(panel), bool) if keep is None else keep
    traded = panel.take(keep)
    indicator = strategy_indicator(strategy, panel, grid.names)
    close = pd.Series(panel["close"], name="close")  # vectorbt takes its time over stamps
    batch = max(1, min(_BLOCK_RUNS, BLOCK_BYTES // (8 * max(1, len(traded)))))
    listen(0, len(grid))
    # The compiled part of one batch runs beside the signals of the next.
    with ThreadPoolExecutor(_WORKERS) as pool:
        running: deque[tuple[tuple[tuple[float, ...], ...], Future[BatchResult]]] = deque()
        done = 0
        for start in range(0, len(grid), batch):
            combinations = grid.combinations[start : start + batch]
            run = indicator.run(close, *map(list, zip(*combinations, strict=True)))
            events = np.asarray(run.events).reshape(len(panel), len(combinations))
            events = np.ascontiguousarray(events[keep].T)
            own = RulesOfRuns.by_run(rules[start : start + batch], 1)
            job = pool.submit(simulate_batch, traded, events, config, rules=own, funding=funding)
            running.append((combinations, job))
            while len(running) > (_WORKERS if start + batch < len(grid) else 0):
                finished, job = running.popleft()
                yield finished, job.result()
                done += len(finished)
                listen(done, len(grid))
