"""The Python API: run specs against the store, or work with pandas objects, one asset at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.features import build_features as build_panel_features
from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.panel import OHLCV, Panel, utc_index
from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.market.timeframes import timeframe as named_timeframe
from backtest_pipeline.pipeline import execution
from backtest_pipeline.pipeline.look_ahead_guard import require_probed
from backtest_pipeline.pipeline.results import Declaration, Result
from backtest_pipeline.pipeline.specs import (
    ExecutableSpec,
    RobustnessSpec,
    WalkForwardSpec,
    checked,
    spec_of,
)
from backtest_pipeline.pipeline.stages.external.external_features import whole_columns
from backtest_pipeline.pipeline.stages.external.external_reader import ExternalReader
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
from backtest_pipeline.pipeline.workspace import open_workspace, use_strategies
from backtest_pipeline.research.robustness.permuted_bars import bars_of, rule_of
from backtest_pipeline.research.robustness.repeat import Rule, RunInputs
from backtest_pipeline.research.robustness.robustness import Robustness, assess
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.pandas_objects.frames import (
    bars_panel,
    daily_panel,
    events_of,
    timeframe_of,
)
from backtest_pipeline.simulation.pandas_objects.single import SimulationResult, simulate
from backtest_pipeline.simulation.rules import config_for
from backtest_pipeline.sources.choose import choose_source
from backtest_pipeline.storage.settings import exchange_access, load_settings
from backtest_pipeline.storage.tables.features import read_features
from backtest_pipeline.storage.tables.signals import read_signals
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.strategies.strategy import Strategy, conditions_of
from backtest_pipeline.trading.stops import IntrabarOrder, StopRules

_ASSET = "asset"


def execute(
    spec: ExecutableSpec | RobustnessSpec | Mapping[str, Any],
    *,
    rebuild: bool = False,
) -> Result:
    """Run a spec, and store its result in the store that the environment configures.

    The command line, the service, jobs and Dagster run the same specs with the same results.

    Args:
        spec: the spec, or its fields as a mapping; `kind` defaults to `run`.
        rebuild: compute again even if nothing has changed.

    Returns:
        `RunResult`, `WalkForwardResult`, `SweepResult`, `PortfolioResult`, `RobustnessResult` or
        `CrossSectionResult`.

    Raises:
        UnknownName, InvalidInput: for a field that is unknown or out of range.
        StoreError: if the store cannot be opened.

    Examples:
        >>> from backtest_pipeline import execute
        >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
        >>> result.kind
        'run'
    """
    parsed = spec_of(spec) if isinstance(spec, Mapping) else spec
    settings = load_settings()
    with open_workspace(settings) as workspace:
        return execution.execute(workspace, settings, parsed, rebuild=rebuild)


def declare_walk_forward(spec: WalkForwardSpec | Mapping[str, Any]) -> Declaration:
    """Declare a walk-forward in the configured store, before its strategy was ever tried there.

    Run later by `execute`, it is judged at a probabilistic Sharpe ratio of 0.95 if it is the only
    one declared on its symbol and timeframe, and not as one of all walk-forwards.

    Args:
        spec: the walk-forward, or its fields as a mapping.

    Returns:
        The declaration with the database's stamp; the same spec again returns the first.

    Raises:
        UnknownName: for a field, strategy or symbol that does not exist.
        InvalidInput: for a value out of range, or where the ledger has trials of the strategy on
            the symbol and timeframe.
        StoreError: if the store cannot be opened.

    Examples:
        >>> from backtest_pipeline import declare_walk_forward
        >>> spec = {"symbol": "S-KAPPA", "strategy": "macd_crossover", "timeframe": "1W"}
        >>> declare_walk_forward(spec).strategy
        'macd_crossover'
    """
    parsed = checked(WalkForwardSpec, spec) if isinstance(spec, Mapping) else spec
    settings = load_settings()
    with open_workspace(settings) as workspace:
        return execution.declare(workspace, settings, parsed)


def load_bars(path: str | Path | None = None, *, asset: str, timeframe: str = "1D") -> pd.DataFrame:
    """Load validated, complete bars of one asset.

    Args:
        path: file or folder of bars (docs/bars.md), or `binance:1h` for hourly bars of the
            exchange; None for the synthetic sample market.
        asset: symbol as the source spells it, or its key.
        timeframe: name of the timeframe; finer bars are resampled to it.

    Returns:
        Columns open, high, low, close, volume, gap_bars (float64); index `ts`, close stamps in UTC.
        The timeframe is in `.attrs["timeframe"]`, where the other functions find it, and data
        quality issues of the source's rows are in `.attrs["issues"]`.

    Raises:
        UnknownName: for an asset or timeframe that does not exist.
        BarsError: for a file that cannot be read, or an exchange that cannot be reached.
        InvalidInput: if the source has no complete bar at that timeframe.

    Examples:
        >>> from backtest_pipeline import load_bars
        >>> bars = load_bars(asset="S-ALPHA")
        >>> list(bars.columns)
        ['open', 'high', 'low', 'close', 'volume', 'gap_bars']
    """
    asset = key_of(asset)
    reader = SourceReader(choose_source(str(path or ""), exchange_access), [asset])
    panel = reader.resampled(timeframe, [asset])
    if not len(panel):
        bases = ", ".join(base.name for base in reader.bases_of(asset))
        raise InvalidInput(
            f"{asset}: no complete {timeframe} bar in its {bases} bars; load more or finer bars"
        )
    bars = panel.frame(asset)
    bars.attrs["timeframe"] = panel.timeframe.name
    bars.attrs["issues"] = [
        *(f"{issue.rows} rows: {issue.reason.explanation}" for issue in reader.bars.issues),
        *reader.bars.unread,
    ]
    return bars


def build_features(bars: pd.DataFrame, *, timeframe: str | None = None) -> pd.DataFrame:
    """All feature columns of one asset's bars; docs/features.md defines them.

    Args:
        bars: columns open, high, low, close, volume; tz-aware, strictly increasing index.
        timeframe: name of the timeframe; inferred from the spacing of the bars by default.

    Returns:
        Float64 columns, NaN where undefined, and bool flags, on the index of the bars.

    Raises:
        InvalidInput: for missing columns or invalid timestamps.

    Examples:
        >>> from backtest_pipeline import build_features, load_bars
        >>> features = build_features(load_bars(asset="S-ALPHA"))
        >>> bool(features["rsi_14"].iloc[-1] > 0)
        True
    """
    features = build_panel_features(bars_panel(bars, timeframe, _ASSET))
    frame = features.frame(_ASSET)
    frame.attrs["timeframe"] = features.timeframe.name
    return frame


def generate_signals(
    features: pd.DataFrame, strategy: str, *, timeframe: str | None = None, **params: Any
) -> pd.DataFrame:
    """Entry and exit conditions of a strategy on one asset's features.

    They do not depend on what is held: an entry may be true on many bars in a row, and the account
    decides what to do with it, see `simulate`.

    Args:
        features: returned by `build_features`.
        strategy: name of a strategy, or its first word, such as `rsi`.
        timeframe: name of the timeframe; inferred from the spacing of the bars by default.
        params: parameters of the strategy; missing ones take their defaults.

    Returns:
        Boolean columns entries, exits, short_entries, short_exits, known at the close of their bar.

    Raises:
        UnknownName: for a strategy that does not exist.
        InvalidInput: for parameters that are unknown, of the wrong type or out of range.
        LooksAhead: for a strategy whose signals use later bars.

    Examples:
        >>> from backtest_pipeline import build_features, generate_signals, load_bars
        >>> features = build_features(load_bars(asset="S-ALPHA"))
        >>> signals = generate_signals(features, "ema_crossover", fast=9, slow=21)
        >>> list(signals.columns)
        ['entries', 'exits', 'short_entries', 'short_exits']
    """
    definition = _strategy(strategy)
    parsed = definition.parse(params)
    read = {*OHLCV, *definition.columns(parsed)}
    panel = Panel.stack(
        timeframe_of(features, timeframe), {_ASSET: features}, [c for c in features if c in read]
    )
    require_probed(None, definition, [params], panel)
    known = with_indicators(panel, definition.columns(parsed))
    events = conditions_of(definition, known, parsed)
    return pd.DataFrame(
        {
            "entries": events.long_entry,
            "exits": events.long_exit,
            "short_entries": events.short_entry,
            "short_exits": events.short_exit,
        },
        index=features.index,
    )


def _strategy(name: str) -> Strategy[Any]:
    use_strategies()
    return strategy_of(name)


def run_backtest(
    bars: pd.DataFrame,
    strategy: str,
    params: Mapping[str, Any],
    *,
    direction: str = "both",
    timeframe: str | None = None,
    **assumptions: Any,
) -> SimulationResult:
    """Backtest a strategy on one asset: features, signals and simulation in one call.

    Args:
        bars: columns open, high, low, close, volume; tz-aware, strictly increasing index.
        strategy: name of the strategy, as in `generate_signals`.
        params: parameters of the strategy.
        direction: `long`, `short` or `both`.
        timeframe: as in `simulate`.
        assumptions: costs, sizing, stops, funding and every other keyword of `simulate`.

    Raises:
        UnknownName, InvalidInput, LooksAhead: as in `generate_signals` and `simulate`.

    Examples:
        >>> from backtest_pipeline import load_bars, run_backtest
        >>> bars = load_bars(asset="S-ALPHA")
        >>> result = run_backtest(bars, "ema_crossover", {"fast": 9, "slow": 21}, direction="long")
        >>> result.metrics["trade_count"] == len(result.trades)
        True
    """
    side_of_run = Direction.of(direction)
    definition = _strategy(strategy)
    own = config_for(
        SimulationConfig(
            stops=assumptions.pop("stops", None) or StopRules(),
            cooldown_bars=assumptions.pop("cooldown_bars", 0),
            sizing=assumptions.pop("sizing", None),
            max_leverage=assumptions.get("max_leverage", 1.0),
        ),
        definition,
        definition.parse(params),
    )
    features = build_features(bars, timeframe=timeframe)
    signals = generate_signals(features, strategy, timeframe=timeframe, **params)
    never = pd.Series(np.zeros(len(signals), bool), signals.index)

    def traded(name: str, side: Direction) -> pd.Series:
        return pd.Series(signals[name]) if side_of_run in (side, Direction.BOTH) else never

    return simulate(
        bars,
        traded("entries", Direction.LONG),
        traded("exits", Direction.LONG),
        traded("short_entries", Direction.SHORT),
        traded("short_exits", Direction.SHORT),
        stops=own.stops,
        cooldown_bars=own.cooldown_bars,
        sizing=own.sizing,
        timeframe=timeframe,
        **assumptions,
    )


def robustness(
    bars: pd.DataFrame,
    strategy: str,
    params: Mapping[str, Any],
    *,
    direction: str = "both",
    draws: int = 1000,
    seed: int = 0,
    funding: pd.Series | None = None,
    finer: pd.DataFrame | None = None,
    daily: pd.DataFrame | None = None,
    timeframe: str | None = None,
    **assumptions: Any,
) -> Robustness:
    """Robustness of the run that `run_backtest` makes; docs/robustness.md explains the methods.

    Args:
        bars: columns open, high, low, close, volume; tz-aware, strictly increasing index.
        strategy: the strategy, as in `generate_signals`.
        params: its parameters.
        direction: `long`, `short` or `both`.
        draws: repetitions of each random method, 1 to 10,000.
        seed: random seed; the same seed gives the same result.
        funding, finer, daily, timeframe: as in `simulate`.
        assumptions: costs, sizing, stops, initial_cash, max_leverage, lot_size, min_notional,
            delay_bars, intrabar and risk_free, as in `simulate`.

    Raises:
        UnknownName, InvalidInput: as in `run_backtest`, and for a number of draws or a seed out of
            range.

    Examples:
        >>> from backtest_pipeline import load_bars, robustness
        >>> bars = load_bars(asset="S-ALPHA")
        >>> found = robustness(bars, "ema_crossover", {"fast": 9, "slow": 21}, draws=20)
        >>> 0 < found.numbers["p_sharpe"] <= 1
        True
    """
    if "intrabar" in assumptions:
        assumptions["intrabar"] = IntrabarOrder.of(assumptions["intrabar"])
    definition = _strategy(strategy)
    config = SimulationConfig(direction=Direction.of(direction), **assumptions)
    config = config_for(config, definition, definition.parse(params))
    features = build_features(bars, timeframe=timeframe)
    signals = generate_signals(features, strategy, timeframe=timeframe, **params)
    by_name = {str(name): pd.Series(column) for name, column in signals.items()}
    panel = bars_panel(bars, timeframe, _ASSET)
    run = RunInputs(
        panel,
        events_of(by_name, bars.index),
        config,
        funding=None if funding is None else FundingRates.of({_ASSET: funding}),
        finer=None if finer is None else bars_panel(finer, None, _ASSET),
        daily=daily_panel(daily, _ASSET),
        rule=Rule(
            rule_of(definition, definition.parse(params)), bars_of(panel, before=int(panel.ts[0]))
        ),
    )
    return assess(run, draws=draws, seed=seed)


def load_features(
    asset: str, timeframe: str = "1D", columns: Sequence[str] = ("close",)
) -> pd.DataFrame:
    """Load stored features of one asset from the store that the environment configures.

    Args:
        asset, timeframe: the partition.
        columns: columns of `cmc_features`, or numbers and flags of the user's own feature table if
            one is configured; and `ema_N` for the stored periods.

    Raises:
        UnknownName: for an asset, timeframe or column that is not stored.
        StoreError: if the store cannot be read.

    Examples:
        >>> from backtest_pipeline import execute, load_features
        >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
        >>> list(load_features("S-ALPHA", columns=["close", "rsi_14"]).columns)
        ['close', 'rsi_14']
    """
    tf = named_timeframe(timeframe)
    with open_workspace() as workspace:
        if workspace.external is None:
            panel = read_features(workspace.database, tf, [asset], columns)
        else:
            panel = whole_columns(ExternalReader(workspace), tf, asset, columns)
    return panel.frame(asset).reindex(columns=list(columns))


def load_signals(asset: str, timeframe: str = "1D") -> pd.DataFrame:
    """Load the stored signals of one asset, each with the full feature row of its bar.

    Returns:
        Columns name, direction, action, close, and the features of the bar; index `ts`.

    Raises:
        UnknownName: for an asset or timeframe that is not stored.
        StoreError: if the store cannot be read.

    Examples:
        >>> from backtest_pipeline import execute, load_signals
        >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
        >>> list(load_signals("S-ALPHA").columns[:4])
        ['name', 'direction', 'action', 'close']
    """
    with open_workspace() as workspace:
        stored = read_signals(
            workspace.database, named_timeframe(timeframe), [asset], snapshots=True
        )
    names = ("name", "direction", "action", "close")
    events = stored.select(names).to_pylist()
    snapshots = [json.loads(text) for text in stored["feature_snapshot"].to_pylist()]
    rows = [{**snapshot, **event} for snapshot, event in zip(snapshots, events, strict=True)]
    frame = pd.DataFrame(rows, utc_index(stored["ts"].cast(pa.int64()).to_numpy()))
    features = [name for name in frame.columns if name not in (*names, "ts")]
    return frame.reindex(columns=[*names, *features])
