"""What identifies a run that ranks a universe: its strategy and configuration, data and code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.planning.planned_account import label_of
from backtest_pipeline.pipeline.runs.identity import (
    Window,
    canonical_json,
    hash_of,
    run_id_of,
    series_id_of,
    simulation_config,
    snapshot_id_of,
    without_defaults,
)
from backtest_pipeline.pipeline.runs.publish import RunIdentity
from backtest_pipeline.pipeline.versions import CROSS_SECTION_CODE
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.tables.datasets import DatasetVersion
from backtest_pipeline.strategies.cross_section.definition import KIND, CrossSection

UNIVERSE = "universe"
"""`symbol` of its trials: one family at a timeframe, whichever assets there are or are chosen."""
_TERMS = {"symbol"}
"""What follows from the data: the assets that there are."""


@dataclass(frozen=True)
class RankedTerms:
    """The terms of a run besides its strategy and timeframe.

    Attributes:
        config: costs, starting cash and risk-free return.
        window: dates to trade.
        symbols: the universe; empty for all assets of the store.
    """

    config: SimulationConfig = field(default_factory=SimulationConfig)
    window: Window = field(default_factory=Window)
    symbols: tuple[str, ...] = ()


def strategy_name(rule: CrossSection) -> str:
    """What stands in place of a strategy's name in runs and trials of a cross-section."""
    return f"{KIND}:{rule.name}"


def tried_params(rule: CrossSection, terms: RankedTerms) -> dict[str, Any]:
    """`params` of its trial: a universe that was chosen is one more set that was tried.

    All assets of the store are one set, however many there are by then.
    """
    chosen = {"symbols": sorted(terms.symbols)} if terms.symbols else {}
    return {**rule.differing(), **chosen}


def run_config(
    rule: CrossSection, tf: str, terms: RankedTerms, universe: Sequence[str]
) -> dict[str, Any]:
    """The configuration of a run, as stored in `backtest_runs.config`."""
    return {
        "kind": KIND,
        "strategy": strategy_name(rule),
        "params": rule.document(),
        "symbols": sorted(terms.symbols),
        "symbol": label_of(universe),
        "timeframe": tf,
        "start": None if terms.window.start is None else terms.window.start.isoformat(),
        "end": None if terms.window.end is None else terms.window.end.isoformat(),
        "benchmark": "universe",
        "funding": None,
        **json.loads(canonical_json(simulation_config(terms.config))),
    }


def rule_of_config(config: Mapping[str, Any]) -> CrossSection:
    """The strategy of a stored configuration."""
    name = str(config["strategy"]).removeprefix(f"{KIND}:")
    return CrossSection.of_document(name, dict(config["params"]))


def window_of(config: Mapping[str, Any]) -> Window:
    """The window of a stored configuration, of any run."""
    start, end = (date.fromisoformat(d) if (d := config[n]) else None for n in ("start", "end"))
    return Window(start, end)


def config_key(config: Mapping[str, Any]) -> str:
    """Hash of the configuration, without what follows from the data."""
    own = {n: v for n, v in config.items() if n not in _TERMS}
    return hash_of(without_defaults({**own, "params": rule_of_config(config).differing()}))


def identity_of(config: Mapping[str, Any], inputs: Mapping[str, DatasetVersion]) -> RunIdentity:
    """What identifies a run.

    Args:
        config: from `run_config`.
        inputs: versions of the features, by symbol.
    """
    tf = config["timeframe"]
    versions = {str(Partition(a, tf)): version.version for a, version in inputs.items()}
    grown = {str(Partition(a, tf)): version.generation for a, version in inputs.items()}
    config_hash, snapshot_id = config_key(config), snapshot_id_of(versions)
    return RunIdentity(
        ranked_run_id(config, snapshot_id),
        series_id_of(config_hash, grown, CROSS_SECTION_CODE),
        canonical_json(dict(config)),
        config_hash,
        versions,
        snapshot_id,
        CROSS_SECTION_CODE,
    )


def ranked_run_id(config: Mapping[str, Any], snapshot_id: str) -> UUID:
    """The id of a run that ranks a universe: a hash of all that can change the result."""
    return run_id_of(config_key(config), snapshot_id, CROSS_SECTION_CODE)
