"""Parameter sweeps: all combinations of a strategy as one vectorbt indicator, run in batches."""

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
from backtest_pipeline.simulation.cores import usable_cores
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.marks import marks_of
from backtest_pipeline.simulation.orders import condition_bits
from backtest_pipeline.simulation.rules import RulesOfRuns, config_for
from backtest_pipeline.simulation.vectorbt_engine.library import vectorbt_library
from backtest_pipeline.strategies.grid import ParameterGrid
from backtest_pipeline.strategies.strategy import Strategy, conditions_of

BATCH_BYTES = 70_000_000
"""Largest equity array of a batch."""

_BATCH_RUNS = 125  # so that progress shows, and Ctrl-C takes effect
_MOST_BYTES = 8 * BATCH_BYTES  # equity in memory, however many cores there are


def strategy_indicator(strategy: Strategy[Any], panel: Panel, names: tuple[str, ...]) -> type[Any]:
    """A vectorbt indicator class that takes a strategy's parameters and outputs its conditions.

    `.run(close, *values)` takes a list of values per name; its `.events` has one uint8 column per
    combination (bits as in `simulation.orders`), labelled with the values. They come from
    `conditions_of`, as in a single run.

    Args:
        strategy: the strategy.
        panel: one asset with the features that the strategy reads; missing `ema_N`, `rsi_N` and
            `atr_N` are computed.
        names: parameters that `run` takes; the others keep their defaults.
    """

    def parsed(values: tuple[Any, ...]) -> Any:
        return strategy.parse(dict(zip(names, values, strict=True)))

    def features_once(_close: np.ndarray, *values: list[Any]) -> Panel:
        """Called once per run, so shared indicators are computed once."""
        combinations = zip(*values, strict=True)
        read = {name for c in combinations for name in strategy.columns(parsed(c))}
        return with_indicators(panel, sorted(read))

    def events(_close: np.ndarray, *values_and_features: Any) -> np.ndarray:
        *values, features = values_and_features
        conditions = conditions_of(strategy, features, parsed(tuple(values)))
        return condition_bits(conditions)[:, None]

    factory = vectorbt_library().IndicatorFactory(
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
    daily: Panel | None = None,
    listen: Callable[[int, int], None] = lambda _done, _total: None,
) -> pd.DataFrame:
    """Metrics of every combination on one asset, each equal to those of a single run.

    Args:
        panel: one asset with the features that the strategy reads.
        grid: combinations to run.
        config: costs, sizing, direction and starting cash.
        keep: bool `(n_rows,)`, rows to trade; indicators use all rows. None trades all.
        funding: funding rates by symbol; None for the flat rate of the costs.
        daily: daily bars to mark equity by, see `simulation.marks.marks_of`.
        listen: called with the number of finished combinations and their total.

    Returns:
        One row per combination, indexed by its parameters, and one float64 column per metric; NaN
        where undefined.
    """
    batches = sweep_batches(
        panel, grid, config, keep=keep, funding=funding, daily=daily, listen=listen
    )
    return metrics_table(grid, [simulated.metrics for _, simulated in batches])


def metrics_table(grid: ParameterGrid, batches: Sequence[Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Metrics of all batches of a sweep, one row per combination of the grid."""
    table = pd.concat([pd.DataFrame(metrics) for metrics in batches])
    table.index = pd.MultiIndex.from_tuples(grid.combinations, names=grid.names)
    return table


def runs_a_batch(n_marks: int) -> int:
    """How many combinations are simulated at once where equity is marked so many times."""
    return max(1, min(_BATCH_RUNS, BATCH_BYTES // (8 * max(1, n_marks))))


def sweep_batches(
    panel: Panel,
    grid: ParameterGrid,
    config: SimulationConfig,
    *,
    keep: np.ndarray | None = None,
    funding: FundingRates | None = None,
    daily: Panel | None = None,
    listen: Callable[[int, int], None] = lambda _done, _total: None,
    threads: int | None = None,
) -> Iterator[tuple[tuple[tuple[float, ...], ...], BatchResult]]:
    """Simulate the combinations batch by batch, in the order of the grid; arguments as in `sweep`.

    Memory is bounded: the equity of a batch takes at most `BATCH_BYTES`, and of one batch more than
    there are threads eight times as much.

    Args:
        threads: how many simulate, beside this one that computes the signals; one for each core
            where None.

    Yields:
        The combinations of a batch and their simulation.
    """
    strategy = grid.strategy
    given = [strategy.parse(dict(zip(grid.names, c, strict=True))) for c in grid.combinations]
    rules = [config_for(config, strategy, params).rules for params in given]
    keep = np.ones(len(panel), bool) if keep is None else keep
    marks = marks_of(panel.take(keep), daily)
    indicator = strategy_indicator(strategy, panel, grid.names)
    close = pd.Series(panel["close"], name="close")  # vectorbt is slow with a datetime index
    batch = runs_a_batch(len(marks))
    at_once = max(2, _MOST_BYTES // (8 * batch * max(1, len(marks)))) - 1
    n_threads = min(threads or usable_cores(), at_once)
    listen(0, len(grid))
    # Simulate one batch while computing the signals of the next.
    with ThreadPoolExecutor(n_threads) as pool:
        running: deque[tuple[tuple[tuple[float, ...], ...], Future[BatchResult]]] = deque()
        done = 0
        for start in range(0, len(grid), batch):
            combinations = grid.combinations[start : start + batch]
            run = indicator.run(close, *map(list, zip(*combinations, strict=True)))
            events = np.asarray(run.events).reshape(len(panel), len(combinations))
            events = np.ascontiguousarray(events[keep].T)
            own = RulesOfRuns.by_run(rules[start : start + batch], 1)
            # Of this batch alone: each combination may be sized by an expression of its own.
            bars = with_config_columns(panel, config, own.distinct).take(keep)
            job = pool.submit(
                simulate_batch, bars, events, config, rules=own, funding=funding, marks=marks
            )
            running.append((combinations, job))
            while len(running) > (n_threads if start + batch < len(grid) else 0):
                finished, job = running.popleft()
                yield finished, job.result()
                done += len(finished)
                listen(done, len(grid))
