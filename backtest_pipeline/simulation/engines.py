"""The engines by name: what is recorded of them with each run, and what only one may run."""

from __future__ import annotations

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.engine import account_identity
from backtest_pipeline.simulation.vectorbt_engine.library import vectorbt_identity
from backtest_pipeline.trading.engine_names import EngineName


def engine_identity(engine: EngineName | str) -> tuple[str, str]:
    """Name and version of an engine, recorded with each run; raises UnknownName for no engine.

    Examples:
        >>> engine_identity("vectorbt")
        ('vectorbt', '1.2.0+1')
    """
    if EngineName.of(engine) is EngineName.VECTORBT:
        return vectorbt_identity()
    return account_identity()


def of_the_account(config: SimulationConfig) -> SimulationConfig:
    """The configuration; raises InvalidInput where another engine than the account is to run it.

    Examples:
        >>> of_the_account(SimulationConfig()).engine.value
        'account'
    """
    if config.engine is not EngineName.ACCOUNT:
        raise InvalidInput(
            f"engine {config.engine}: a refresh computes all presets, and vectorbt cannot hold the "
            "stops of some of them; leave engine out (vectorbt checks the runs of a refresh), and "
            "simulate single runs, sweeps and walk-forwards with it"
        )
    return config
