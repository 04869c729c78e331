"""Which stops, cooldown and sizing each run trades by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backtest_pipeline.simulation.config import PositionRules, SimulationConfig
from backtest_pipeline.strategies.rules.expressions import plain_sizing
from backtest_pipeline.strategies.strategy import Params, Strategy
from backtest_pipeline.trading.sizing import FixedFractional, Sizing


def config_for(
    config: SimulationConfig, strategy: Strategy[Any], params: Params
) -> SimulationConfig:
    """The configuration with the stops, cooldown and sizing of a strategy where it names none.

    A configuration with any stop has its own stops alone: those of the strategy are replaced.
    Where neither names a sizing, an entry uses all of the equity. What the run does not name
    itself is at most the leverage that it allows.
    """
    return replace(
        config,
        stops=config.stops if config.stops.any else strategy.stops(params),
        cooldown_bars=config.cooldown_bars or strategy.cooldown(params),
        sizing=config.sizing or _allowed((strategy.sizing or _all_of_it)(params), config),
    )


def config_of_all(config: SimulationConfig, strategy: Strategy[Any]) -> SimulationConfig:
    """The configuration that runs of a strategy share, whatever their parameters.

    Its sizing is None where the parameters of each run decide it.
    """
    if config.sizing is not None or strategy.sizing is not None:
        return config
    return replace(config, sizing=_allowed(FixedFractional(), config))


def _allowed(sizing: Sizing, config: SimulationConfig) -> Sizing:
    plain = plain_sizing(sizing)
    if isinstance(plain, FixedFractional):
        return FixedFractional(min(plain.fraction, config.max_leverage))
    return plain


def _all_of_it(_: Params) -> FixedFractional:
    return FixedFractional()


@dataclass(frozen=True)
class RulesOfRuns:
    """Rules that differ between the runs of a batch, or between stretches of their bars.

    Attributes:
        distinct: the rules.
        of: int64 `(n_runs, n_stretches)`, which of them a run trades a stretch by.
        stretches: int64 `(n_stretches + 1,)`, bounds of the stretches in rows of the panel, those
            of its assets among them; None where each asset is one.
    """

    distinct: tuple[PositionRules, ...]
    of: np.ndarray
    stretches: np.ndarray | None = None

    @staticmethod
    def by_run(rules: Sequence[PositionRules], n_assets: int) -> RulesOfRuns:
        """One set of rules for each run, on all assets."""
        distinct = tuple(dict.fromkeys(rules))
        position = {one: i for i, one in enumerate(distinct)}
        of_run = np.array([position[one] for one in rules], np.int64)
        return RulesOfRuns(distinct, np.repeat(of_run[:, None], n_assets, axis=1))
