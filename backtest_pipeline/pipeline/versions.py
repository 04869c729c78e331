"""Code versions of each kind of result, such as `engine 1, metrics 1`.

Each number is declared next to the code it describes, and raised by hand when results change. So
moving, renaming, formatting or documenting code makes no stored result stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from backtest_pipeline.market.features import FEATURES_VERSION
from backtest_pipeline.market.revision import RESTATEMENTS_VERSION
from backtest_pipeline.market.validation import BARS_VERSION
from backtest_pipeline.research.cross_section.information import INFORMATION_VERSION
from backtest_pipeline.research.look_ahead.look_ahead import LOOK_AHEAD_VERSION
from backtest_pipeline.research.portfolio.portfolio import PORTFOLIO_VERSION
from backtest_pipeline.research.ranking.leaderboard import LEADERBOARD_VERSION
from backtest_pipeline.research.ranking.negative_controls import NEGATIVE_CONTROLS_VERSION
from backtest_pipeline.research.robustness.robustness import ROBUSTNESS_VERSION
from backtest_pipeline.research.validation.walk_forward import WALK_FORWARD_VERSION
from backtest_pipeline.simulation.cross_section.rebalanced_account import REBALANCED_VERSION
from backtest_pipeline.simulation.engine import ENGINE_VERSION
from backtest_pipeline.simulation.metrics.benchmarks import BENCHMARKS
from backtest_pipeline.simulation.metrics.metrics import METRICS_VERSION
from backtest_pipeline.simulation.planned.planned_book import PLANS_VERSION
from backtest_pipeline.simulation.vectorbt_engine.library import vectorbt_identity
from backtest_pipeline.strategies.cross_section.definition import KIND
from backtest_pipeline.strategies.registry import strategies, strategy_hash
from backtest_pipeline.strategies.strategy import SIGNALS_VERSION
from backtest_pipeline.strategist.judge import JUDGE_VERSION
from backtest_pipeline.strategist.regime_rules import RULES_VERSION
from backtest_pipeline.trading.engine_names import EngineName

PLANNED = "planned"
"""`kind` of the configuration, and `split`, of a run that follows the plans of a book."""
_SIGNALS = {"features": FEATURES_VERSION, "signals": SIGNALS_VERSION}
_RUN = {**_SIGNALS, "engine": ENGINE_VERSION, "metrics": METRICS_VERSION}


def _text(versions: Mapping[str, int | str], *strategy_names: str) -> str:
    declared = [f"{name} {version}" for name, version in sorted(versions.items())]
    own = [f"{name} {strategy_hash(name)}" for name in strategy_names]
    return ", ".join((*declared, *own))


BARS_CODE = _text({"bars": BARS_VERSION})
FEATURES_CODE = _text({"features": FEATURES_VERSION})
EXTERNAL_FEATURES_CODE = _text({"bars": BARS_VERSION, "features": FEATURES_VERSION})
RUNS_CODE = _text(_RUN)
"""Code version of runs of any strategy, without the strategy's own hash."""
WALK_FORWARDS_CODE = _text({**_RUN, "walk_forward": WALK_FORWARD_VERSION})
PORTFOLIO_CODE = _text({"metrics": METRICS_VERSION, "portfolio": PORTFOLIO_VERSION})
LEADERBOARD_CODE = _text({"leaderboard": LEADERBOARD_VERSION})
ROBUSTNESS_CODE = _text({"engine": ENGINE_VERSION, "robustness": ROBUSTNESS_VERSION})
LOOK_AHEAD_CODE = _text({"bars": BARS_VERSION, "look_ahead": LOOK_AHEAD_VERSION})
PLANS_CODE = _text({"features": FEATURES_VERSION, "judge": JUDGE_VERSION, "rules": RULES_VERSION})
PLANNED_CODE = _text({**_RUN, "plans": PLANS_VERSION})
"""Code version of runs under plans, without the hashes of strategies that triggers follow."""
CROSS_SECTION_CODE = _text(
    {**_RUN, "information": INFORMATION_VERSION, "rebalanced": REBALANCED_VERSION}
)
"""Code version of runs that rank a universe; what their strategy says is in their configuration."""
RESTATEMENTS_CODE = _text({"restatements": RESTATEMENTS_VERSION})


def signal_code(strategy: str) -> str:
    """Code version of a strategy's signals; raises UnknownName for an unknown strategy."""
    return _text(_SIGNALS, strategy)


def probe_code(strategy: str) -> str:
    """Code version of look-ahead verdicts on a strategy; errors as `signal_code`."""
    return _text({**_SIGNALS, "look_ahead": LOOK_AHEAD_VERSION}, strategy)


def run_code(
    strategy: str,
    *,
    is_walk_forward: bool = False,
    benchmark: str = "asset",
    engine: str = EngineName.ACCOUNT,
) -> str:
    """Code version of a run; raises UnknownName for an unknown strategy.

    Args:
        strategy: strategy that it trades.
        is_walk_forward: whether its parameters were chosen fold by fold.
        benchmark: its benchmark; one made of other assets depends on the portfolio code too.
        engine: who simulates it. What vectorbt simulates follows from its version too, beside that
            of the account, which holds the benchmark.
    """
    versions: dict[str, int | str] = dict(_RUN)
    if engine == EngineName.VECTORBT:
        name, version = vectorbt_identity()
        versions[name] = version
    if is_walk_forward:
        versions["walk_forward"] = WALK_FORWARD_VERSION
    if benchmark not in BENCHMARKS:
        versions["portfolio"] = PORTFOLIO_VERSION
    return _text(versions, strategy)


def planned_code(strategy_names: Iterable[str]) -> str:
    """Code version of a run under plans whose triggers follow these strategies."""
    return _text({**_RUN, "plans": PLANS_VERSION}, *sorted(set(strategy_names)))


def code_of_config(config: Mapping[str, Any]) -> str:
    """The code version that a run of a stored configuration would have today; see `run_code`."""
    if config.get("kind") == PLANNED:
        return planned_code(config["strategies"])
    if config.get("kind") == KIND:
        return CROSS_SECTION_CODE
    return run_code(
        config["strategy"],
        is_walk_forward="walk_forward" in config,
        benchmark=config["benchmark"],
        engine=config.get("engine", EngineName.ACCOUNT),
    )


def todays_run_codes() -> frozenset[str]:
    """The code versions that runs of any strategy would have today."""
    return frozenset(
        run_code(name, is_walk_forward=walk_forwards, benchmark=benchmark, engine=engine)
        for name in strategies()
        for walk_forwards in (False, True)
        for benchmark in ("asset", "universe")
        for engine in EngineName
    ) | {PLANNED_CODE, CROSS_SECTION_CODE}


def all_signals_code() -> str:
    """Code version of the signals of all strategies."""
    return _text(_SIGNALS, *sorted(strategies()))


def all_runs_code() -> str:
    """Code version of runs of all strategies."""
    return _text(_RUN, *sorted(strategies()))


def all_walk_forwards_code() -> str:
    """Code version of walk-forwards of all strategies."""
    return _text({**_RUN, "walk_forward": WALK_FORWARD_VERSION}, *sorted(strategies()))


def negative_controls_code() -> str:
    """Code version of negative controls, which search all strategies."""
    own = {"negative_controls": NEGATIVE_CONTROLS_VERSION, "walk_forward": WALK_FORWARD_VERSION}
    judged = {"leaderboard": LEADERBOARD_VERSION}
    return _text({**_RUN, **own, **judged}, *sorted(strategies()))
