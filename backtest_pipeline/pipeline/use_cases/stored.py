"""Results that are stored and current, found without reading a source or computing anything.

They are current where the source is as it was when the stored bars were read from it, and runs were
made from what is stored. Where only reading or computing tells, nothing is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.look_ahead_guard import ends_of, is_known_sound
from backtest_pipeline.pipeline.runs.identity import RunTerms, configurations
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.pipeline.specs import PortfolioSpec, RunSpec, WalkForwardSpec
from backtest_pipeline.pipeline.stages.benchmark_assets import UNIVERSE
from backtest_pipeline.pipeline.stages.external.external_features import ExternalFeaturesStage
from backtest_pipeline.pipeline.stages.external.external_reader import ExternalReader
from backtest_pipeline.pipeline.stages.panels import lost_artifacts
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig, planned
from backtest_pipeline.pipeline.stages.source_reader import states_of_bars
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.stages.walk_forward.walk_forward_batch import space_of
from backtest_pipeline.pipeline.use_cases.backtest import shared_by, strategy_of_spec
from backtest_pipeline.pipeline.versions import FEATURES_CODE, run_code
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.simulation.marks import DAILY
from backtest_pipeline.simulation.rules import config_for
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.storage.postgres.database import Connection
from backtest_pipeline.storage.run_tables.portfolios import stored_portfolio
from backtest_pipeline.storage.run_tables.runs import runs_configured
from backtest_pipeline.storage.run_tables.trials import deflated_before
from backtest_pipeline.storage.run_tables.walk_forward import current_walk_forwards, stored_folds
from backtest_pipeline.storage.source_states import read_states
from backtest_pipeline.storage.tables.datasets import DatasetVersion, dataset_of_key, read_versions
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.strategies.registry import DEFAULT_STRATEGY, strategy_of

Row = Mapping[str, Any]


@retried
def stored_runs(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    spec: RunSpec | PortfolioSpec,
    symbols: Sequence[str],
) -> Sequence[Row] | None:
    """The runs that `use_cases.backtest.backtest` would find stored; None where it has to look.

    It has to for runs that read columns of the user's own or ranks, for the benchmark
    `universe`, and for runs whose deflated metrics lack a trial.

    Raises:
        UnknownName, InvalidInput: as `backtest`, for an invalid strategy or invalid terms.
    """
    strategy, params = strategy_of_spec(workspace, spec)
    terms = shared_by(workspace, spec)
    terms = replace(terms, config=config_for(terms.config, strategy, params))
    own = own_columns_read(strategy, params.model_dump(), terms.config)
    if own or terms.benchmark == UNIVERSE:
        return None
    signal = SignalRow(0, strategy.name, strategy.name, strategy.telling(params))
    wanted = _Wanted.of(signal, symbols, spec.timeframe, terms)

    def read(connection: Connection) -> Sequence[Row] | None:
        is_sound = is_known_sound(connection, strategy, [params.model_dump()])
        return wanted.found(connection) if is_sound else None

    return _still_current(workspace, source, read)


@retried
def stored_walk_forward(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    spec: WalkForwardSpec,
    plan: WalkForwardPlan,
) -> Row | None:
    """What `run_walk_forward` would find stored, as it returns it; None where it has to look.

    It has to where `backtest` has to, and where the verdict had another threshold.

    Raises:
        UnknownName, InvalidInput: for an invalid strategy, parameter or terms.
    """
    strategy = strategy_of(spec.strategy or DEFAULT_STRATEGY)
    axes = {name: list(axis) for name, axis in space_of(strategy.name, spec.params).axes.items()}
    terms = replace(shared_by(workspace, spec), walk_forward=plan.as_json())
    if own_columns_read(strategy, axes, terms.config):
        return None
    signal = SignalRow(0, strategy.name, strategy.name, axes)
    wanted = _Wanted.of(signal, [spec.symbol], spec.timeframe, terms)

    def read(connection: Connection) -> Sequence[Row] | None:
        if not (found := wanted.found(connection)):
            return None
        run_id = found[0]["run_id"]
        (row,) = current_walk_forwards(connection, run_ids=[run_id])
        folds = stored_folds(connection, run_id)
        chosen = [fold["params"] for fold in folds if fold["params"] is not None]
        is_sound = is_known_sound(connection, strategy, [*ends_of(strategy, axes), *chosen])
        return (
            [{**row, "folds": folds}] if is_sound and row["threshold"] == plan.threshold else None
        )

    rows = _still_current(workspace, source, read)
    return rows[0] if rows else None


@dataclass(frozen=True)
class _Wanted:
    """One run of each symbol at a timeframe, by the hash of its configuration and its code."""

    symbols: Sequence[str]
    tf: str
    hashes: Sequence[str]
    code: str

    @staticmethod
    def of(signal: SignalRow, symbols: Sequence[str], tf: str, terms: RunTerms) -> _Wanted:
        tf = timeframe(tf).name
        walks = terms.walk_forward is not None
        code = run_code(
            signal.strategy,
            is_walk_forward=walks,
            benchmark=terms.benchmark,
            engine=terms.config.engine,
        )
        hashes = [one.hash for one in configurations((signal,), symbols, tf, terms)]
        return _Wanted(symbols, tf, hashes, code)

    def found(self, connection: Connection) -> Sequence[Row] | None:
        """The current ones, in the order of the symbols; None where one is missing."""
        found = runs_configured(connection, self.tf, self.hashes, self.code)
        if found.keys() != set(self.symbols):
            return None
        return [found[symbol] for symbol in self.symbols]


def _still_current(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    read: Callable[[Connection], Sequence[Row] | None],
) -> Sequence[Row] | None:
    """Stored runs, where computing them now would give the same and their files are intact."""
    # One transaction: of the time that this takes, most is waiting for the database to respond.
    with workspace.database.begin() as connection:
        rows = read(connection)
        if rows is None or deflated_before(connection, [row["run_id"] for row in rows]):
            return None
        datasets = _read_by(connection, rows)
        if datasets is None:
            return None
        is_same = not isinstance(source, ExternalReader) and _is_same(connection, source, datasets)
    if isinstance(source, ExternalReader):
        is_same = not ExternalFeaturesStage(workspace, source).stale(list(datasets))
    files = {row["artifact_uri"] for row in rows}
    intact = all(workspace.artifacts.is_intact(uri) for uri in files)
    return rows if is_same and intact and not lost_artifacts(workspace, datasets.values()) else None


@retried
def stored_portfolio_of(
    workspace: Workspace, runs: Sequence[Row], config: RollupConfig
) -> Row | None:
    """The portfolio that `use_cases.backtest.portfolio_on_demand` would find stored, or None."""
    plan = planned(runs[0]["tf"], runs, config)[0]
    with workspace.database.begin() as connection:
        stored = stored_portfolio(connection, plan.run_id)
    return stored if stored and workspace.artifacts.is_intact(stored["artifact_uri"]) else None


def _read_by(connection: Connection, rows: Sequence[Row]) -> dict[Partition, DatasetVersion] | None:
    """The features that runs were made from; None where they are not those that are stored.

    That is also where daily bars have been stored since, which would mark the runs.
    """
    versions: dict[Partition, str] = {}
    for row in rows:
        for key, version in row["dataset_version_ids"].items():
            partition, dataset = dataset_of_key(key)
            if dataset != "features":
                return None
            versions[partition] = version
    longer = [p for p in versions if timeframe(p.timeframe).days > 1]
    days = {Partition(p.asset, DAILY) for p in longer} - versions.keys()
    stored = read_versions(connection, "features", [*versions, *days])
    marking = [p for p in days if p in stored and stored[p].n_rows]
    read = {p: stored[p] for p in versions if p in stored and stored[p].version == versions[p]}
    return None if marking or len(read) < len(versions) else read


def _is_same(
    connection: Connection, source: BarSource, features: Mapping[Partition, DatasetVersion]
) -> bool:
    """Whether a refresh would find the source as it was, and no features to compute."""
    states = states_of_bars(source, sorted({p.asset for p in features}))
    known = read_states(connection, features)
    if any(p not in known or known[p] != states.get(p.asset) for p in features):
        return False
    bars = read_versions(connection, "bars", features)
    return all(
        p in bars and version.is_made_from(bars[p].version, FEATURES_CODE)
        for p, version in features.items()
    )
