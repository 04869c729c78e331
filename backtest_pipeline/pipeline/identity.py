"""What a run is: its configuration, its inputs, and the id and hashes that follow from them."""

from __future__ import annotations

import hashlib
import json
import platform
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from backtest_pipeline.simulation.account import engine_identity
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.benchmarks import BENCHMARKS
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.metrics import METRICS_VERSION
from backtest_pipeline.storage.dimensions import SignalRow
from backtest_pipeline.storage.provenance import code_version

_NAMESPACE = uuid.UUID("5f0b1a3e-6c3d-5d52-9d0e-0f6a5b1c7e11")
# The rooms whose code decides a run's numbers, from the bar to the metric.
RUN_CODE = ("market", "strategies", "simulation")
_ENVIRONMENT = ("numba", "numpy", "pandas", "pyarrow")


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


def snapshot_id_of(dataset_versions: Mapping[str, str]) -> str:
    """Hash of the sorted dataset versions."""
    return hash_of(sorted(dataset_versions.items()))


@cache
def environment_hash() -> str:
    """Hash of the interpreter, the machine's kind and the packages that compute."""
    packages = {name: version(name) for name in _ENVIRONMENT}
    return hash_of([platform.python_version(), platform.machine(), packages])


def fingerprints(batch: BatchResult) -> list[str]:
    """For each column the sha256 over its trades and its equity, in canonical bytes."""
    trades = batch.trades
    log = np.column_stack(
        [
            np.asarray(values, dtype="<f8")
            for values in (
                trades.entry_ts,
                trades.exit_ts,
                trades.entry_price,
                trades.exit_price,
                trades.side,
                trades.size,
                trades.fees,
                trades.pnl,
                trades.exit_reason,
            )
        ]
    )
    n_assets = len(batch.panel.assets)
    bounds = np.searchsorted(trades.column, np.arange(len(batch.pending) + 1))
    prints = []
    for column in range(len(batch.pending)):
        run, asset = divmod(column, n_assets)
        digest = hashlib.sha256(log[bounds[column] : bounds[column + 1]].tobytes())
        rows = slice(batch.panel.offsets[asset], batch.panel.offsets[asset + 1])
        digest.update(np.ascontiguousarray(batch.equity[run, rows], dtype="<f8").tobytes())
        prints.append(digest.hexdigest())
    return prints
