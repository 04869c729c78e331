"""What two processes must have in common for one to do the work of the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from backtest_pipeline.market.symbols import symbol_keys
from backtest_pipeline.storage.artifacts.code_archive import code_on_disk
from backtest_pipeline.storage.settings import Settings
from backtest_pipeline.storage.tables.environment import environment

ANNOUNCED = "backtest_pipeline"
"""Under this name a worker of a cluster tells what it is."""
PRELOAD = "backtest_pipeline.pipeline.pools.dask_worker"
"""The module that a worker of a cluster is started with."""


def code_and_packages() -> dict[str, str]:
    """The code of this process, its interpreter and the packages that affect numbers, by name."""
    known = environment()
    return {
        "code": code_on_disk().uri,
        "python": known["python"],
        "machine": known["machine"],
        **known["versions"],
    }


def surroundings(settings: Settings, store_id: str | None) -> dict[str, str]:
    """`code_and_packages`, the store, and the settings that decide what is computed from it."""
    names = settings.external
    return {
        **code_and_packages(),
        "store": str(store_id),
        "BACKTEST_FEATURES_TABLE": "" if names is None else _hash(asdict(names)),
        "BACKTEST_SYMBOL_KEYS": _hash(dict(symbol_keys())),
    }


def name_of(known: Mapping[str, str]) -> str:
    """A name for such surroundings, which only equal ones have."""
    return f"{ANNOUNCED}-{_hash(dict(known))}"


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """What of ours is other there, such as `numba 0.66.0 here, 0.67.1 there`."""
    return [
        f"{name} is {_short(value)} here and {_short(theirs.get(name, 'unknown'))} there"
        for name, value in ours.items()
        if theirs.get(name) != value
    ]


def _short(value: str) -> str:
    return value if len(value) <= 40 else f"{value[:16]}..."


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
