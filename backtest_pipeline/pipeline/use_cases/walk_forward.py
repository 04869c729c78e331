"""One walk-forward on demand: on stored features, or on plain pandas objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa

from backtest_pipeline.market.errors import NoFeatures, UnknownName
from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe as named_timeframe
from backtest_pipeline.pipeline.look_ahead_guard import (
    ends_of,
    require_choices_probed,
    require_probed,
)
from backtest_pipeline.pipeline.presets import active_presets
from backtest_pipeline.pipeline.ranking.ledger import enter_in_ledger, trials_of
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.pipeline.stage import Progress, silent
from backtest_pipeline.pipeline.stages.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.stages.benchmark_assets import rows_in
from backtest_pipeline.pipeline.stages.columns.columns_stage import with_fresh_columns
from backtest_pipeline.pipeline.stages.external.external_reader import ExternalReader
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS, load_batch
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan, enter_trials
from backtest_pipeline.pipeline.stages.walk_forward.verdicts import judge
from backtest_pipeline.pipeline.stages.walk_forward.walk_forward_batch import (
    publish_walk_forward,
    space_of,
    strategy_searches,
    walk_forward_batch,
)
from backtest_pipeline.pipeline.use_cases.refresh import refresh_to_trade
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.research.validation.efficiency import WFO_THRESHOLD, Efficiency
from backtest_pipeline.research.validation.optimizer import Objective, Search
from backtest_pipeline.research.validation.schedule import FixedDates, Schedule, Task, tasks_of
from backtest_pipeline.research.validation.splits import Fold, LeftOut
from backtest_pipeline.research.validation.walk_forward import (
    FOLD_METRICS,
    Chosen,
    batches_of_tasks,
    choose,
    stitched,
    trade_stitched,
    unheard,
)
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.pandas_objects.frames import bars_panel, daily_panel
from backtest_pipeline.simulation.pandas_objects.single import defined, trade_frame
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.storage.provenance import content_versions
from backtest_pipeline.storage.run_tables.walk_forward import (
    current_walk_forwards,
    judged_as_one_of,
    stored_folds,
)
from backtest_pipeline.storage.tables.datasets import mark_stale
from backtest_pipeline.storage.tables.dimensions import (
    SignalRow,
    known_symbols,
    signal_with,
)
from backtest_pipeline.strategies.grid import ParameterSpace, parameter_space
from backtest_pipeline.strategies.registry import DEFAULT_STRATEGY, strategy_of
from backtest_pipeline.strategies.strategy import Strategy


@dataclass(frozen=True)
class WalkForward:
    """The result of a walk-forward.

    Attributes:
        folds: one row per fold: bounds (closes of first and last bar), chosen parameters, score,
            metrics in training and test; NaN where undefined.
        equity: equity on the stitched out-of-sample bars, by the timestamp of each mark.
        trades: trades on those bars, as `simulate` returns them.
        metrics: metrics on those bars, None where undefined.
        efficiency: share of the training Sharpe kept out of sample, and whether it may be luck.
        left_out: windows with too few bars for a fold.
    """

    folds: pd.DataFrame
    equity: pd.Series
    trades: pd.DataFrame
    metrics: dict[str, float | None]
    efficiency: Efficiency
    left_out: tuple[LeftOut, ...]


def walk_forward(
    bars: pd.DataFrame,
    strategy: str,
    params: Mapping[str, Any] | None = None,
    *,
    schedule: Schedule | FixedDates | None = None,
    objective: str = "sharpe",
    search: Search | None = None,
    threshold: float = WFO_THRESHOLD,
    flat_starts: bool = False,
    direction: str = "both",
    funding: pd.Series | None = None,
    daily: pd.DataFrame | None = None,
    timeframe: str | None = None,
    asset: str = "asset",
    workspace: Workspace | None = None,
    progress: Progress = silent,
    **assumptions: Any,
) -> WalkForward:
    """Choose parameters on each training window, and trade the bars after it with them.

    Args:
        bars: columns open, high, low, close, volume; tz-aware, strictly increasing index.
        strategy: name of the strategy; its first word is enough.
        params: a number or a sequence of numbers by parameter; by default the strategy's own
            search range.
        schedule: windows; by default 365 days of training and 90 of test.
        objective: what to maximize, see `research.validation.optimizer.Objective.of`.
        search: how the parameters are searched.
        threshold: efficiency below which the result is flagged.
        flat_starts: test windows start flat, not with the position that the chosen parameters,
            traded since the first bar, hold by then.
        direction: `long`, `short` or `both`.
        funding: rates by timestamp, in place of the flat rate.
        daily: daily bars to mark the stitched run by, as in `simulate`.
        timeframe: name of the bars' timeframe; by default inferred from their spacing.
        asset: its name, in the ledger and in errors.
        workspace: an open store; every combination of every training window and the stitched run
            are entered in its trial ledger, and it is judged by the walk-forwards there. Without
            one no trial is recorded, later runs are deflated by too few, and it is judged as if it
            were the only one.
        progress: called with the number of folds done.
        assumptions: costs, sizing, stops and other fields of `SimulationConfig`.

    Raises:
        UnknownName: for an unknown strategy, parameter, objective, mode or direction.
        InvalidInput: for too few bars for one fold, or a space that cannot be searched.
        LooksAhead: for a strategy whose signals use later bars.

    Examples:
        >>> from backtest_pipeline import load_bars, walk_forward
        >>> bars = load_bars(asset="S-ALPHA")
        >>> walk = walk_forward(bars, "ema_crossover", {"fast": [5, 10], "slow": [20, 50]})
        >>> len(walk.folds) > 0
        True
    """
    config = SimulationConfig(direction=Direction.of(direction), **assumptions)
    rates = None if funding is None else FundingRates.of({asset: funding})
    space = parameter_space(strategy_of(strategy), params or {})
    plan = WalkForwardPlan(
        schedule or Schedule(),
        search or Search(),
        Objective.of(objective),
        threshold,
        flat_starts,
    )
    question = plan.question(space, config, rates)
    panel = with_config_columns(build_features(bars_panel(bars, timeframe, asset)), config)
    days = daily_panel(daily, asset)
    require_probed(workspace, space.strategy, ends_of(space.strategy, space.axes), panel)
    tasks, left_out = tasks_of(panel, asset, plan.schedule)
    terms = RunTerms(config, funding=rates)
    versions = content_versions(panel, [n for n in BAR_COLUMNS if n in panel.columns]).whole
    trials: list[pa.Table] = []
    heard = unheard
    if workspace:
        heard = partial(enter_trials, trials, panel, question, terms, versions)
    chosen = []
    progress("walk_forward", 0, len(tasks))
    for batch in batches_of_tasks(tasks, question):
        chosen += choose(panel, batch, question, heard)
        progress("walk_forward", len(chosen), len(tasks))
    require_choices_probed(workspace, panel, tasks, chosen, space)
    tested = stitched(panel, tasks, chosen, question)
    simulated = trade_stitched([tested], config, rates, days)
    n_walk_forwards = 1
    if workspace:
        own = trials_of(
            simulated,
            [{name: list(axis) for name, axis in space.axes.items()}],
            strategy=space.strategy.name,
            dataset_versions=versions,
            terms=terms,
            source="walk_forward",
            chosen_by=plan.as_json(),
        )
        enter_in_ledger(workspace, [*trials, own])
        (made,) = own["configuration_id"].to_pylist()
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            n_walk_forwards = judged_as_one_of(cursor, panel.timeframe.name, asset, made)
    return WalkForward(
        folds=_fold_frame(panel, tasks, chosen, space),
        equity=pd.Series(simulated.equity[0], utc_index(simulated.marks.ts), name="equity"),
        trades=trade_frame(simulated.trades),
        metrics=defined({name: float(values[0]) for name, values in simulated.metrics.items()}),
        efficiency=judge(chosen, float(simulated.metrics["psr"][0]), n_walk_forwards, threshold),
        left_out=left_out,
    )


def _fold_frame(
    panel: Panel, tasks: Sequence[Task], chosen: Sequence[Chosen], space: ParameterSpace
) -> pd.DataFrame:
    stamps = utc_index(panel.ts)
    rows = []
    for task, choice in zip(tasks, chosen, strict=True):
        train, test = task.windows(panel)
        bounds = (train.start, train.stop - 1, test.start, test.stop - 1)
        names = ("train_start", "train_end", "test_start", "test_end")
        picked = choice.combination
        rows.append(
            {
                **dict(zip(names, stamps[list(bounds)], strict=True)),
                **(dict.fromkeys(space.names) if picked is None else space.params(picked)),
                "score": choice.score,
                "n_combinations": choice.n_combinations,
                **{f"train_{name}": choice.train[name] for name in FOLD_METRICS},
                **{f"test_{name}": choice.test[name] for name in FOLD_METRICS},
            }
        )
    return pd.DataFrame(rows).rename_axis("fold")


@dataclass(frozen=True)
class Prepared:
    """The inputs of a walk-forward: its bars, their folds, and the windows left out."""

    batch: PanelBatch
    folds: tuple[Fold, ...]
    left_out: tuple[LeftOut, ...]


@retried
def prepare_walk_forward(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    *,
    asset: str,
    tf: str,
    terms: RunTerms,
    schedule: Schedule | FixedDates,
    rebuild: bool = False,
) -> Prepared:
    """Bring the partition's features up to date, and lay out the folds in the window.

    Raises:
        UnknownName: for an unknown asset or timeframe.
        InvalidInput: for too few bars for one fold, with the number missing.
        BacktestError: where no features are available, with the reason.
    """
    partition = Partition(asset, named_timeframe(tf).name)
    with workspace.database.begin() as connection:
        known = known_symbols(connection)
    offered = source.symbols()
    if asset not in offered and asset not in known:
        raise UnknownName("asset", asset, (*offered, *known))
    if asset in offered:
        refresh_to_trade(workspace, source, [asset], partition.timeframe, rebuild=rebuild)
    batch = load_batch(workspace, "features", partition.timeframe, [asset], SNAPSHOT_COLUMNS)
    if asset not in batch.inputs:
        raise NoFeatures(f"{partition}: no features are stored; refresh cmc_features first")
    tasks, left_out = tasks_of(batch.panel, asset, schedule, rows_in(batch.panel, terms.window))
    if terms.funding:
        terms.funding.require_cover(batch.panel)
    return Prepared(batch, tuple(task.fold for task in tasks), left_out)


@retried
def run_walk_forward(
    workspace: Workspace,
    prepared: Prepared,
    *,
    strategy: str | None,
    params: Mapping[str, Any],
    terms: RunTerms,
    plan: WalkForwardPlan,
    rebuild: bool = False,
) -> Mapping[str, Any]:
    """Run a prepared walk-forward, and store it like any other run.

    Args:
        strategy: strategy whose parameters are chosen; the default strategy where None.
        params: values to choose from, by parameter.

    Returns:
        The stitched run's row with metrics and efficiency, and its `folds`.

    Raises:
        UnknownName: for an unknown preset or parameter.
        InvalidInput: for a space that cannot be searched.
        LooksAhead: for a strategy whose signals use later bars.
    """
    definition = strategy_of(strategy or DEFAULT_STRATEGY)
    space = space_of(definition.name, params)
    read = own_columns_read(definition, space.axes, terms.config)
    batch = with_fresh_columns(workspace, prepared.batch, read, rebuild=rebuild)
    (asset,) = batch.panel.assets
    probed = batch.own.on(batch.panel)
    require_probed(workspace, definition, ends_of(definition, space.axes), probed)
    chosen = _signal_of(workspace, definition, params)
    searches = strategy_searches([chosen], {chosen.strategy: params})
    keep = rows_in(batch.panel, terms.window)
    tasks, left_out = tasks_of(batch.panel, asset, plan.schedule, keep)
    walk_forwards = walk_forward_batch(
        workspace,
        batch,
        tasks,
        searches,
        plan,
        terms,
        left_out={asset: len(left_out)},
        rebuild=rebuild,
    )
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        published = walk_forwards.publication
        publish_walk_forward(workspace.artifacts, cursor, walk_forwards)
        if terms.window == Window():
            # It may have replaced a run that the Dagster asset had published.
            mark_stale(
                cursor, "walk_forward", published.runs["id"][0].as_py(), batch.panel.timeframe.name
            )
    (run_id,) = published.runs["run_id"].to_pylist()
    with workspace.database.begin() as connection:
        (row,) = current_walk_forwards(connection, run_ids=[run_id])
        return {**row, "folds": stored_folds(connection, row["run_id"])}


def _signal_of(
    workspace: Workspace, strategy: Strategy[Any], params: Mapping[str, Any]
) -> SignalRow:
    """The first preset of the strategy; without one, a signal that stands for the search range."""
    for signal in active_presets(workspace):
        if signal.strategy == strategy.name:
            return signal
    with workspace.database.begin() as connection:
        space = space_of(strategy.name, params)
        axes = {parameter: list(axis) for parameter, axis in space.axes.items()}
        return signal_with(connection, strategy.name, axes)
