"""What a run is: its configuration, its inputs, and the id and hashes that follow from them."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from typing import Any, TypeVar, get_args

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.simulation.account import engine_identity
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.benchmarks import BENCHMARKS
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.metrics import METRICS_VERSION
from backtest_pipeline.simulation.sizing import Sizing
from backtest_pipeline.simulation.stops import StopRules
from backtest_pipeline.simulation.trades import Trades
from backtest_pipeline.storage.dimensions import SignalRow
from backtest_pipeline.storage.provenance import code_version

_Made = TypeVar("_Made")
_NAMESPACE = uuid.UUID("5f0b1a3e-6c3d-5d52-9d0e-0f6a5b1c7e11")
# Of its own: the first generation of a dataset is its first version.
_SERIES = uuid.UUID("c1f4b0de-0a83-5f0e-8a2d-64f3f1f7a9d2")
# The rooms whose code decides a run's numbers, from the bar to the metric.
RUN_CODE = ("market", "strategies", "simulation")
# All of a trade but the column that it is in.
_FINGERPRINTED = tuple(f.name for f in fields(Trades) if f.name != "column")


@dataclass(frozen=True)
class Window:
    """Half-open range of UTC dates that a run trades in; None is unbounded."""

    start: date | None = None
    end: date | None = None


@dataclass(frozen=True)
class Stretch(Window):
    """A window that begins or ends within a day: the bars from one stamp to another.

    Attributes:
        start, end: the days in which it lies, half-open.
        first_us, last_us: stamps of its first and last bar, microseconds since 1970 UTC.
    """

    first_us: int = 0
    last_us: int = 0


@dataclass(frozen=True)
class Asked:
    """What runs were asked to assume, beside their signals, assets and timeframe.

    Attributes:
        config: costs, sizing, stops, direction.
        window: dates that are traded.
        benchmark: name of what they are compared with, see `pipeline.comparison`.
        funding: rates by symbol, in place of the flat rate.
        walk_forward: how the parameters of each stretch of bars are chosen, as JSON values; None
            where they are the signal's.
    """

    config: SimulationConfig
    window: Window = field(default_factory=Window)
    benchmark: str = "asset"
    funding: FundingRates | None = None
    walk_forward: Mapping[str, Any] | None = None

    @property
    def split(self) -> str:
        """The kind of bars that are traded, as `backtest_runs.split` has it."""
        return "full" if self.walk_forward is None else "walk_forward"

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms whose code decides the numbers."""
        return RUN_CODE if self.walk_forward is None else (*RUN_CODE, "research")


def run_config(
    signal: SignalRow, asset: str, timeframe: str, asked: Asked, simulation: Mapping[str, Any]
) -> dict[str, Any]:
    """All that was asked for, as it is stored in `backtest_runs.config`.

    `simulation` is what `simulation_config` gives for the config that was asked.
    """
    window = asked.window
    return {
        "signal": {"name": signal.name, "type": signal.signal_type, "params": signal.params},
        "asset": asset,
        "timeframe": timeframe,
        "window": [d.isoformat() if d else None for d in (window.start, window.end)],
        "split": asked.split,
        **({"walk_forward": asked.walk_forward} if asked.walk_forward is not None else {}),
        "simulation": simulation,
        "benchmark": asked.benchmark,
        "benchmark_code": None
        if asked.benchmark in BENCHMARKS
        else code_version("pipeline", "research"),
        "funding": asked.funding.version(asset) if asked.funding else None,
        "metrics_version": METRICS_VERSION,
        "seed": 0,
    }


def simulation_config(config: SimulationConfig) -> dict[str, Any]:
    """Costs, sizing, direction and cash as JSON values."""
    return {
        **asdict(config),
        "sizing": {"mode": type(config.sizing).__name__, **asdict(config.sizing)},
    }


def config_of(simulation: Mapping[str, Any]) -> SimulationConfig:
    """The configuration that `simulation_config` gave.

    Raises:
        InvalidInput: where it holds what this code does not know, of a later or earlier code.
    """
    sizing = dict(simulation["sizing"])
    kinds = {kind.__name__: kind for kind in get_args(Sizing)}
    mode = sizing.pop("mode")
    if mode not in kinds:
        raise InvalidInput(f"this code does not know the sizing {mode!r}")
    parts = {"costs": CostModel, "stops": StopRules, "sizing": kinds[mode]}
    given = {**simulation, "sizing": sizing}
    made = {name: _made(kind, given[name]) for name, kind in parts.items()}
    return _made(SimulationConfig, {**given, **made})


def _made(kind: type[_Made], values: Mapping[str, Any]) -> _Made:
    known = {f.name for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    strange = sorted(set(values) - known)
    if strange:
        raise InvalidInput(f"this code's {kind.__name__} does not know {', '.join(strange)}")
    return kind(**values)


def canonical_json(value: Any) -> str:
    """JSON that is the same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def hash_of(value: Any) -> str:
    """Hash of a JSON value."""
    return hash_of_text(canonical_json(value))


def hash_of_text(text: str) -> str:
    """Hash of a JSON value that is canonical text already."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def run_id_of(config: str, snapshot_id: str, rooms: tuple[str, ...] = RUN_CODE) -> uuid.UUID:
    """The id that follows from all that can change the result; the config as canonical JSON."""
    code = [snapshot_id, code_version(*rooms), *engine_identity()]
    return uuid.uuid5(_NAMESPACE, f"{config}\0" + "\0".join(code))


def series_id_of(
    config: str, generations: Mapping[str, str], rooms: tuple[str, ...] = RUN_CODE
) -> uuid.UUID:
    """The id that runs of one configuration share while their bars are only appended to.

    It follows from all that `run_id_of` follows from, with the generation of each dataset in the
    place of its version.

    Args:
        config: as canonical JSON.
        generations: of the datasets that are read, by partition.
        rooms: whose code decides the numbers.
    """
    return uuid.uuid5(_SERIES, str(run_id_of(config, snapshot_id_of(generations), rooms)))


def snapshot_id_of(dataset_versions: Mapping[str, str]) -> str:
    """Hash of the sorted dataset versions."""
    return hash_of(sorted(dataset_versions.items()))


def fingerprints(batch: BatchResult) -> list[str]:
    """For each column the sha256 over all that it came to, in canonical bytes.

    That is its trades with every number of them (prices, sizes, costs, funding, excursions, why
    they ended), its equity and its benchmark's at each bar, the order that is pending, whether it
    was liquidated, and how many entries were refused. Numbers are little-endian float64, with one
    NaN and one zero.
    """
    trades = batch.trades
    log = np.column_stack([np.asarray(getattr(trades, name), "<f8") for name in _FINGERPRINTED])
    log = _canonical(log)
    panel = batch.panel
    n_assets = len(panel.assets)
    bounds = np.searchsorted(trades.column, np.arange(len(batch.pending) + 1))
    ends = _canonical(np.column_stack([batch.pending, batch.liquidated, batch.refused]))
    held = _canonical(batch.benchmark)
    prints = []
    for column in range(len(batch.pending)):
        run, asset = divmod(column, n_assets)
        rows = slice(panel.offsets[asset], panel.offsets[asset + 1])
        digest = hashlib.sha256(log[bounds[column] : bounds[column + 1]].data)
        digest.update(_canonical(batch.equity[run, rows]).data)
        digest.update(held[rows].data)
        digest.update(ends[column].data)
        prints.append(digest.hexdigest())
    return prints


def _canonical(values: np.ndarray) -> np.ndarray:
    """Little-endian float64 with one NaN and one zero."""
    numbers = np.ascontiguousarray(values, "<f8") + 0.0  # -0.0 becomes 0.0
    np.copyto(numbers, np.nan, where=np.isnan(numbers))
    return numbers
