"""Case `walk_forward`: folds x combinations at once, and backtesting.py window by window."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.validation.optimizer import Objective, Search
from backtest_pipeline.research.validation.schedule import Schedule, tasks_of
from backtest_pipeline.research.validation.splits import Fold
from backtest_pipeline.research.validation.walk_forward import Chosen, Question, choose
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.strategies.grid import parameter_space
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.trading.costs import CostModel
from bench.engines import CASH, FEE
from bench.harness import Report, Table, interleaved, median
from bench.peers import random_panel

_FAST, _SLOW = tuple(range(5, 15)), tuple(range(20, 120, 10))
_CONFIG = SimulationConfig(
    costs=CostModel(fee_bps=FEE * 1e4, slippage_bps=0), direction=Direction.LONG, initial_cash=CASH
)


def run(*, quick: bool) -> Report:
    """Measure it."""
    n_bars, fast, slow, n_sampled, repeats = (
        (500, _FAST[:2], _SLOW[:2], 1, 1) if quick else (2_924, _FAST, _SLOW, 2, 3)
    )
    panel = random_panel(1, n_bars)
    (asset,) = panel.assets
    space = parameter_space(strategy_of("ema_crossover"), {"fast": fast, "slow": slow})
    question = Question(space, Search(), Objective.of("sharpe"), _CONFIG)
    tasks, _ = tasks_of(panel, asset, Schedule())
    folds = [task.fold for task in tasks]
    n_combinations = len(space.grid())

    def ours() -> list[Chosen]:
        return choose(panel, tasks, question)

    sampled = [folds[i] for i in np.linspace(0, len(folds) - 1, n_sampled).astype(int)]

    def theirs() -> None:
        for fold in sampled:
            optimise_by_backtesting_py(panel, fold, fast, slow)

    ours()  # compiles
    seconds = {
        name: median(taken).wall
        for name, taken in interleaved({"ours": ours, "theirs": theirs}, repeats).items()
    }
    whole = seconds["theirs"] * len(folds) / len(sampled)
    rows: list[list[str | float | int]] = [
        ["backtest_pipeline, all folds at once", len(folds), seconds["ours"], 1.0],
        [
            f"backtesting.py, scaled from {len(sampled)} folds",
            len(folds),
            whole,
            whole / seconds["ours"],
        ],
    ]
    return Report(
        "Walk-forward",
        f"EMA crossover, {n_combinations} combinations, 365 days to train and 90 to test, "
        f"{len(folds)} folds of {n_bars:,} random daily bars, long only, fee {FEE:.1%} a side; "
        "training and test, indicators included, warm, one process each. backtesting.py runs all "
        f"combinations on {len(sampled)} of the training windows and tests the best; its time is "
        f"scaled to {len(folds)}. Medians of {repeats} rounds in turns.",
        [Table("All folds", ["engine", "folds", "seconds", "times ours"], rows)],
    )


def optimise_by_backtesting_py(
    panel: Panel, fold: Fold, fast: tuple[int, ...], slow: tuple[int, ...]
) -> float:
    """Total return in the test window of what had the best Sharpe in training."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # it draws a progress bar
        warnings.simplefilter("ignore")  # remarks on notebooks and on open trades
        from backtesting import Backtest, Strategy
        from backtesting.lib import crossover

        def average(close: Any, period: int) -> pd.Series:
            return pd.Series(pd.Series(close).ewm(span=period, adjust=False).mean())

        class Crossover(Strategy):
            fast = 5
            slow = 20

            def init(self) -> None:
                self.quick: Any = self.I(average, self.data.Close, self.fast)
                self.steady: Any = self.I(average, self.data.Close, self.slow)

            def next(self) -> None:
                if crossover(self.quick, self.steady):
                    self.buy()
                elif crossover(self.steady, self.quick):
                    self.position.close()

        (asset,) = panel.assets
        bars = panel.frame(asset).rename(columns=str.capitalize)
        bars.index = pd.DatetimeIndex(bars.index).tz_localize(None)
        training = Backtest(bars.iloc[fold.train], Crossover, cash=CASH, commission=FEE)
        sharpe = {
            params: training.run(fast=params[0], slow=params[1])["Sharpe Ratio"]
            for params in product(fast, slow)
        }
        best = max(sharpe, key=lambda params: np.nan_to_num(sharpe[params], nan=-np.inf))
        testing = Backtest(bars.iloc[fold.test], Crossover, cash=CASH, commission=FEE)
        tested: Any = testing.run(fast=best[0], slow=best[1])
        return tested["Return [%]"] / 100
