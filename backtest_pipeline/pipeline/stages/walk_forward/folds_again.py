"""Folds done by a worker, which reads the bars and lays the folds out as its parent did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.runs.identity import RunTerms
from backtest_pipeline.pipeline.runs.own_columns import own_columns_of
from backtest_pipeline.pipeline.stages.batch_files import BatchFiles
from backtest_pipeline.pipeline.stages.benchmark_assets import rows_in
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.stages.walk_forward.fold_rows import Destination
from backtest_pipeline.pipeline.stages.walk_forward.folds import Keyed, WalkForwardPlan, folds_of
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.schedule import tasks_of
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.postgres.writer_slots import waiting_until
from backtest_pipeline.strategies.grid import Number, ParameterSpace
from backtest_pipeline.strategies.registry import strategy_of


@dataclass(frozen=True)
class FoldsWanted:
    """All folds of a strategy on some assets, as they are asked for in another process.

    Attributes:
        files: of the bars.
        assets: in the order of the tasks.
        columns: columns of the user's own that the strategy reads.
        strategy: its name.
        axes: the values that it chooses from, by parameter.
        plan: how the walk-forward is done.
        terms: what the runs assume, with the window that folds are laid out in.
        destinations: by asset.
        rebuild: compute also what is stored.
    """

    files: BatchFiles
    assets: tuple[str, ...]
    columns: tuple[str, ...]
    strategy: str
    axes: Mapping[str, tuple[Number, ...]]
    plan: WalkForwardPlan
    terms: RunTerms
    destinations: Mapping[str, Destination]
    rebuild: bool


def bars_of(batch: PanelBatch, assets: Sequence[str], config: SimulationConfig) -> Panel:
    """The features of these assets, with what stops and sizing read."""
    bars = batch.own.on(batch.panel.select(assets), own_columns_of(config))
    return with_config_columns(bars, config)


def folds_again(wanted: FoldsWanted, workspace: Workspace, positions: Sequence[int]) -> list[Keyed]:
    """Do the folds at these positions of all that are wanted, and store them.

    Raises:
        InvalidInput, LooksAhead, StoreError: as `folds_of` in the process that wants them.
    """

    def compute() -> list[Keyed]:
        assets, terms = wanted.assets, wanted.terms
        batch = wanted.files.read(workspace)
        keep = rows_in(batch.panel, terms.window)
        schedule = wanted.plan.schedule
        tasks = [t for asset in assets for t in tasks_of(batch.panel, asset, schedule, keep)[0]]
        space = ParameterSpace(strategy_of(wanted.strategy), wanted.axes)
        return folds_of(
            workspace,
            batch.own.on(bars_of(batch, assets, terms.config), wanted.columns),
            tasks,
            wanted.plan.question(space, terms.config, terms.funding),
            terms,
            wanted.destinations,
            only=positions,
            rebuild=wanted.rebuild,
        )

    name = f"folds {wanted.strategy}"
    with waiting_until(workspace.given_up):
        return workspace.database.retrying(name, compute, workspace.given_up)
