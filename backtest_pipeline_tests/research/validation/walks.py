"""Walk-forwards for tests: a small space, windows, and random markets laid out in folds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.validation.optimizer import Objective, Search
from backtest_pipeline.research.validation.schedule import (
    Schedule,
    Task,
    tasks_of,
)
from backtest_pipeline.research.validation.walk_forward import (
    Question,
)
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.strategies.grid import parameter_space
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline_tests.simulation.markets import random_panel

EMA = strategy_of("ema_crossover")
SPACE = parameter_space(EMA, {"fast": [2, 4, 8], "slow": [6, 12]})
WINDOWS = Schedule(120, 40)


def question(**changes: object) -> Question:
    asked = Question(SPACE, Search(), Objective.of("sharpe"), SimulationConfig())
    return replace(asked, **changes)


def market(seed: int, lengths: tuple[int, ...] = (400, 330)) -> tuple[Panel, list[Task]]:
    panel = random_panel(np.random.default_rng(seed), lengths, holes=0.02)
    tasks = [task for asset in panel.assets for task in tasks_of(panel, asset, WINDOWS)[0]]
    return panel, tasks
