"""What identifies a run under plans: the book and its configuration, plans, data and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.planning.planned_account import label_of
from backtest_pipeline.pipeline.runs.identity import (
    canonical_json,
    hash_of,
    run_id_of,
    series_id_of,
    simulation_config,
    without_defaults,
)
from backtest_pipeline.pipeline.runs.publish import RunIdentity, made_from
from backtest_pipeline.pipeline.runs.read_rows import Read
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.versions import PLANNED, planned_code
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline.storage.plan_tables.plan_history import LoggedPlan
from backtest_pipeline.strategist.llm.training import within_training

_FOLLOWING = ("strategies", "models", "within_training")
"""Fields of a run's configuration that follow from its plans."""


def strategy_name(strategist: str) -> str:
    """What stands in place of a strategy's name in runs and trials of a strategist."""
    return f"strategist:{strategist}"


def run_config(
    book: PlanBook, tf: str, plans: Sequence[Plan], config: SimulationConfig
) -> dict[str, Any]:
    """The configuration of a run under plans, as stored in `backtest_runs.config`."""
    followed = {t.strategy for plan in plans for t in plan.triggers if t.strategy is not None}
    return {
        "kind": PLANNED,
        "book": book.name,
        "strategy": strategy_name(book.strategist),
        "params": dict(book.config),
        "symbols": list(book.symbols),
        "symbol": label_of(book.symbols),
        "timeframe": tf,
        "start": None,
        "end": None,
        "benchmark": "asset",
        "funding": None,
        "strategies": sorted(followed),
        **simulation_config(config),
    }


def plan_key(plans: Sequence[tuple[str, Sequence[str], int]]) -> str:
    """Hash of plans and of what a run's results say of them.

    Args:
        plans: the id of each, which follows from its content, its reasons, and how many replans
            after it were suppressed.
    """
    return hash_of([[plan_id, list(reasons), suppressed] for plan_id, reasons, suppressed in plans])


def key_of_plans(logged: Sequence[LoggedPlan]) -> str:
    """As `plan_key`, of the plans of a book."""
    return plan_key([(row.plan_id, row.replan_reasons, row.suppressed) for row in logged])


def models_asked(logged: Sequence[LoggedPlan]) -> dict[str, Any]:
    """Which language models were asked, and whether one may have read in training what it planned.

    It is decided when the run is published and kept in its configuration: what is known of a
    model's training may change later.
    """
    first: dict[str, datetime] = {}
    for row in logged:
        if row.model is not None:
            first.setdefault(row.model, row.effective_ts)
    flagged = any(within_training(model, at) for model, at in first.items())
    return {"models": sorted(first), "within_training": flagged}


def identity_of(config: Mapping[str, Any], plans: str, batch: PanelBatch) -> RunIdentity:
    """What identifies a run under plans.

    Args:
        config: from `run_config`.
        plans: from `plan_key`.
        batch: the features of its symbols, and the columns beside them that its triggers read.
    """
    tf = config["timeframe"]
    read = {str(Partition(asset, tf)): Read.whole(one) for asset, one in batch.inputs.items()}
    for of_asset in batch.own.read_by(batch.own.names).values():
        read |= of_asset
    versions, snapshot_id, grown = made_from(read)
    config_hash, code = config_key(config), planned_code(config["strategies"])
    return RunIdentity(
        planned_run_id(config, plans, snapshot_id, code),
        series_id_of(config_hash, grown, code),
        canonical_json(dict(config)),
        config_hash,
        versions,
        snapshot_id,
        code,
    )


def planned_run_id(config: Mapping[str, Any], plans: str, snapshot_id: str, code: str) -> UUID:
    """The id of a run under plans: a hash of all that can change the result."""
    return run_id_of(f"{config_key(config)}\0{plans}", snapshot_id, code)


def config_key(config: Mapping[str, Any]) -> str:
    """Hash of the configuration without plans; the newest run with it is the current one."""
    return hash_of(without_defaults({n: v for n, v in config.items() if n not in _FOLLOWING}))
