"""Identity of a run: its configuration and inputs, and the id and hashes derived from them."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from functools import cache
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import BadRange
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.rules import config_for, config_of_all
from backtest_pipeline.simulation.trades import Trades
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.strategies.rules.expressions import number_expression
from backtest_pipeline.trading.sizing import SIZINGS, FixedFractional
from backtest_pipeline.trading.stops import DISTANCES

_NAMESPACE = uuid.UUID("5f0b1a3e-6c3d-5d52-9d0e-0f6a5b1c7e11")
# A separate namespace: a dataset's first generation equals its first version.
_SERIES = uuid.UUID("c1f4b0de-0a83-5f0e-8a2d-64f3f1f7a9d2")
# All fields of a trade except the batch column it belongs to, and where its holes lie: that follows
# from its bars, and what they cost is in its funding.
_BESIDE = ("column", "exit_after_gap", "held_across_gap")
_FINGERPRINTED = tuple(f.name for f in fields(Trades) if f.name not in _BESIDE)

_EXPRESSIONS = {"stops": tuple(DISTANCES), "sizing": ("fraction",)}
"""The fields of a setting whose texts are expressions."""


@dataclass(frozen=True)
class Window:
    """Half-open range of UTC dates that a run trades in; None is unbounded.

    Raises:
        BadRange: where the end is not after the start.
    """

    start: date | None = None
    end: date | None = None

    def __post_init__(self) -> None:
        if self.start and self.end and self.end <= self.start:
            raise BadRange(
                f"the window's end {self.end} is not after its start {self.start}; give as the "
                "end the day after the last day to trade"
            )


@dataclass(frozen=True)
class Stretch(Window):
    """A window that begins or ends within a day: the bars from one timestamp to another.

    Attributes:
        start, end: the days it touches, half-open.
        first_us, last_us: timestamps of its first and last bar, microseconds since 1970 UTC.
    """

    first_us: int = 0
    last_us: int = 0


@dataclass(frozen=True)
class RunTerms:
    """The terms of runs besides their signals, assets and timeframe.

    Attributes:
        config: costs, sizing, stops, direction.
        window: dates to trade.
        benchmark: name of the benchmark, see `pipeline.stages.benchmark_assets`.
        funding: funding rates by symbol, in place of the flat rate.
        walk_forward: how parameters are chosen fold by fold, as JSON values; None where they are
            the signal's own.
    """

    config: SimulationConfig
    window: Window = field(default_factory=Window)
    benchmark: str = "asset"
    funding: FundingRates | None = None
    walk_forward: Mapping[str, Any] | None = None

    @property
    def split(self) -> str:
        """The value of `backtest_runs.split`: `full`, or `walk_forward` for out-of-sample bars."""
        return "full" if self.walk_forward is None else "walk_forward"


@dataclass(frozen=True)
class Configuration:
    """One run's fully resolved spec, as stored in `backtest_runs.config`.

    Attributes:
        config: all fields, defaults included; for a plain run the fields of a `RunSpec`.
        identifying: the fields that ids are hashed from: those not at their default, so that adding
            a field changes no id.
    """

    config: dict[str, Any]
    identifying: dict[str, Any]

    @property
    def strategy(self) -> str:
        """The strategy that is traded."""
        return self.config["strategy"]

    @property
    def hash(self) -> str:
        """Hash of the configuration; a newer run with the same hash replaces an older one."""
        return hash_of(self.identifying)


def configurations(
    signals: Sequence[SignalRow], assets: Sequence[str], timeframe: str, terms: RunTerms
) -> list[Configuration]:
    """The configurations of every signal on every asset, signal by signal."""
    shared = {
        "timeframe": timeframe,
        "start": terms.window.start and terms.window.start.isoformat(),
        "end": terms.window.end and terms.window.end.isoformat(),
        "benchmark": terms.benchmark,
    }
    if terms.walk_forward is not None:
        shared |= {"kind": "walkforward", "walk_forward": dict(terms.walk_forward)}
    funding = [terms.funding.version(asset) if terms.funding else None for asset in assets]
    all_of_them = []
    for signal in signals:
        whole = all_params(signal, terms)
        differing = _differing_params(signal, whole, terms)
        # What a walk-forward chooses decides its stops as well, so that each fold has its own.
        walks = terms.walk_forward is not None
        decided = config_of_all(terms.config, strategy_of(signal.strategy))
        config = decided if walks else config_of(signal, terms.config)
        rest = {**shared, **simulation_config(config)}
        short = without_defaults(rest)
        for asset, rates in zip(assets, funding, strict=True):
            own = {"strategy": signal.strategy, "symbol": asset}
            all_of_them.append(
                Configuration(
                    {**own, "params": whole, "funding": rates, **rest},
                    {**own, "params": differing, **({"funding": rates} if rates else {}), **short},
                )
            )
    return all_of_them


def config_of(signal: SignalRow, config: SimulationConfig) -> SimulationConfig:
    """The configuration with a preset's own stops, cooldown and sizing, where it names none."""
    strategy = strategy_of(signal.strategy)
    return config_for(config, strategy, strategy.parse(signal.params))


def all_params(signal: SignalRow, terms: RunTerms) -> dict[str, Any]:
    """All parameters of a signal with defaults; of a walk-forward, the values to choose from."""
    if terms.walk_forward is not None:
        return dict(signal.params)
    return strategy_of(signal.strategy).parse(signal.params).model_dump()


def _differing_params(
    signal: SignalRow, params: Mapping[str, Any], terms: RunTerms
) -> Mapping[str, Any]:
    if terms.walk_forward is not None:
        return params
    known = strategy_of(signal.strategy).params_type.model_fields
    return {name: value for name, value in params.items() if value != known[name].default}


def without_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings not at their default; sizing is compared with the defaults of its mode.

    A sizing of None, which each run's strategy decides, is not the default. An expression is in one
    spelling, so that no id, and no trial that is counted, follows from its spaces and brackets.
    """
    kept = {}
    for name, given in config.items():
        value = _in_one_spelling(name, given)
        usual: Any = _defaults().get(name)
        if name == "sizing" and value is not None:
            declared = {f.name: f.default for f in fields(SIZINGS[value["mode"]])}
            usual = {**declared, "mode": usual["mode"]}
        if isinstance(value, Mapping) and isinstance(usual, Mapping):
            if differing := {n: v for n, v in value.items() if n not in usual or v != usual[n]}:
                kept[name] = differing
        elif value != usual:
            kept[name] = value
    return kept


def _in_one_spelling(name: str, value: Any) -> Any:
    """A setting, with the texts of its expressions as `NumberExpression.spelling` has them."""
    if name not in _EXPRESSIONS or value is None:
        return value
    texts = {n: v for n, v in value.items() if n in _EXPRESSIONS[name] and isinstance(v, str)}
    return {**value, **{n: number_expression(v, n).spelling for n, v in texts.items()}}


@cache
def _defaults() -> dict[str, Any]:
    return {**simulation_config(SimulationConfig(sizing=FixedFractional())), "benchmark": "asset"}


def simulation_config(config: SimulationConfig) -> dict[str, Any]:
    """Costs, sizing, stops and account as JSON values: the fields of a `SimulationSpec`."""
    if config.sizing is None:
        return asdict(config)
    (mode,) = (name for name, kind in SIZINGS.items() if kind is type(config.sizing))
    return {**asdict(config), "sizing": {"mode": mode, **asdict(config.sizing)}}


def canonical_json(value: Any) -> str:
    """Canonical JSON: the same value always gives the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def hash_of(value: Any) -> str:
    """Hash of a JSON value, 32 hex digits."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=16).hexdigest()


def run_id_of(config: str, snapshot_id: str, code: str) -> uuid.UUID:
    """The run id: a hash of all that can change the result.

    Args:
        config: hash of a `Configuration`.
        snapshot_id: as `snapshot_id_of` returns it.
        code: as `pipeline.versions.run_code` returns it.
    """
    return uuid.uuid5(_NAMESPACE, f"{config}\0{snapshot_id}\0{code}")


def series_id_of(config: str, generations: Mapping[str, str], code: str) -> uuid.UUID:
    """The id that runs of one configuration share while their bars are only appended to.

    It is hashed like `run_id_of`, with each dataset's generation in place of its version.

    Args:
        config, code: as in `run_id_of`.
        generations: generations of the datasets that are read, by partition.
    """
    return uuid.uuid5(_SERIES, str(run_id_of(config, snapshot_id_of(generations), code)))


def snapshot_id_of(contents: Mapping[str, str]) -> str:
    """Hash of the sorted contents of what was read, by partition.

    They are versions of whole datasets, and of daily bars the hash of the days that mark a run.
    """
    return hash_of(sorted(contents.items()))


def fingerprints(batch: BatchResult) -> list[str]:
    """The fingerprint of each column's result: a sha256 in canonical bytes.

    It covers every field of every trade (prices, sizes, costs, funding, excursions, exit reasons),
    the equity and the benchmark at each mark, the pending order, whether the account was
    liquidated, and the number of blocked entries. Numbers are little-endian float64, with a single
    NaN and a single zero.
    """
    trades = batch.trades
    log = np.column_stack([np.asarray(getattr(trades, name), "<f8") for name in _FINGERPRINTED])
    log = _canonical(log)
    offsets, n_assets = batch.marks.offsets, len(batch.panel.assets)
    bounds = np.searchsorted(trades.column, np.arange(len(batch.pending) + 1))
    ends = _canonical(np.column_stack([batch.pending, batch.liquidated, batch.refused]))
    held = _canonical(batch.benchmark)
    prints = []
    for column in range(len(batch.pending)):
        run, asset = divmod(column, n_assets)
        rows = slice(offsets[asset], offsets[asset + 1])
        digest = hashlib.sha256(log[bounds[column] : bounds[column + 1]].data)
        digest.update(_canonical(batch.equity[run, rows]).data)
        digest.update(held[rows].data)
        digest.update(ends[column].data)
        prints.append(digest.hexdigest())
    return prints


def _canonical(values: np.ndarray) -> np.ndarray:
    """Little-endian float64 with a single NaN and a single zero."""
    numbers = np.ascontiguousarray(values, "<f8") + 0.0  # -0.0 becomes 0.0
    np.copyto(numbers, np.nan, where=np.isnan(numbers))
    return numbers
