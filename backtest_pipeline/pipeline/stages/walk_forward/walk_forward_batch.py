"""Out-of-sample runs of strategies on a batch of assets, computed fold by fold and published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from backtest_pipeline.pipeline.look_ahead_guard import require_choices_probed
from backtest_pipeline.pipeline.ranking.deflation import deflate_runs
from backtest_pipeline.pipeline.ranking.ledger import trials_of
from backtest_pipeline.pipeline.runs.identity import (
    RunTerms,
)
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.pipeline.runs.publish import (
    Publication,
    identify_runs,
    publication_of,
)
from backtest_pipeline.pipeline.runs.run_files import keep_files
from backtest_pipeline.pipeline.stages.batch_files import BatchFiles
from backtest_pipeline.pipeline.stages.benchmark_assets import rows_in
from backtest_pipeline.pipeline.stages.features import load_daily
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.stages.walk_forward.fold_rows import Destination
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan, folds_of
from backtest_pipeline.pipeline.stages.walk_forward.folds_again import (
    FoldsWanted,
    bars_of,
    folds_again,
)
from backtest_pipeline.pipeline.stages.walk_forward.verdicts import (
    efficiency_row,
    efficiency_table,
    judge,
    judge_again,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.schedule import Task, untested_bars
from backtest_pipeline.research.validation.walk_forward import (
    Chosen,
    Stitched,
    stitched,
    trade_stitched,
)
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.trials import record_trials
from backtest_pipeline.storage.run_tables.walk_forward import (
    publish_walk_forwards,
)
from backtest_pipeline.storage.tables.dimensions import SignalRow, asset_ids
from backtest_pipeline.strategies.grid import ParameterSpace, parameter_space
from backtest_pipeline.strategies.registry import strategy_of

if TYPE_CHECKING:
    from backtest_pipeline.storage.postgres.copy import Cursor


@dataclass(frozen=True)
class StrategySearch:
    """One registered strategy, and the parameters that it chooses from.

    Attributes:
        signal: what its out-of-sample runs are stored under: the first registered signal of the
            strategy, with the name of the strategy and the values of its space as parameters.
        space: what is chosen from.
    """

    signal: SignalRow
    space: ParameterSpace


def strategy_searches(
    signals: Sequence[SignalRow], values: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[StrategySearch, ...]:
    """One for each strategy among the signals; `values` by strategy and parameter where given."""
    first = {signal.strategy: signal for signal in reversed(signals)}
    found = []
    for signal in sorted(first.values(), key=lambda s: s.signal_id):
        name = signal.strategy
        space = space_of(name, (values or {}).get(name, {}))
        axes = {parameter: list(axis) for parameter, axis in space.axes.items()}
        found.append(StrategySearch(replace(signal, name=name, params=axes), space))
    return tuple(found)


def space_of(strategy: str, values: Mapping[str, Any]) -> ParameterSpace:
    """What a strategy chooses from; its parameters in their own order, however they were given.

    Their order decides which of equally good combinations is chosen, and where a search goes.
    """
    space = parameter_space(strategy_of(strategy), values)
    order = [name for name in space.strategy.params_type.model_fields if name in space.axes]
    return ParameterSpace(space.strategy, {name: space.axes[name] for name in order})


@dataclass(frozen=True)
class WalkForwardBatch:
    """Out-of-sample runs of a batch, ready to be published.

    Attributes:
        publication: of every strategy on every asset, strategy by strategy.
        efficiencies: rows of `walk_forward_runs`.
    """

    publication: Publication
    efficiencies: pa.Table


def walk_forward_batch(
    workspace: Workspace,
    batch: PanelBatch,
    tasks: Sequence[Task],
    searches: Sequence[StrategySearch],
    plan: WalkForwardPlan,
    terms: RunTerms,
    *,
    left_out: Mapping[str, int],
    rebuild: bool = False,
) -> WalkForwardBatch:
    """Choose and test all folds of some assets; each is stored when it is done.

    The runs are not published by that. `left_out` counts, by asset, the windows
    that have too few bars for a fold.

    Raises:
        LooksAhead: for a strategy whose signals use later bars.
        InvalidInput: for a space that cannot be searched.
    """
    started_at = datetime.now(UTC)
    told = replace(terms, walk_forward=plan.as_json())
    assets = list(dict.fromkeys(task.asset for task in tasks))
    tf = batch.panel.timeframe.name
    panel = bars_of(batch, assets, terms.config)
    with workspace.database.begin() as connection:
        ids = asset_ids(connection, assets)
    signals = [searched.signal for searched in searches]
    daily = load_daily(workspace, panel.take(rows_in(panel, terms.window)))
    identities = identify_runs(signals, assets, tf, batch.inputs, told, daily, batch.own, {})
    untested = {a: untested_bars([t for t in tasks if t.asset == a]) for a in assets}
    versions = {asset: batch.inputs[asset].version for asset in assets}
    files = BatchFiles.of(batch)
    told_of: list[Mapping[str, str]] = []
    traded: list[Stitched] = []
    folds: list[list[Chosen]] = []
    for w, searched in enumerate(searches):
        read = own_columns_read(searched.space.strategy, searched.signal.params, terms.config)
        known = batch.own.on(panel, read)
        own = identities[w * len(assets) : (w + 1) * len(assets)]
        told_of.append(batch.own.versions_with(versions, read))
        places = {
            asset: Destination(one.run_id, ids[asset], told_of[-1][asset])
            for asset, one in zip(assets, own, strict=True)
        }
        question = plan.question(searched.space, terms.config, terms.funding)
        wanted = FoldsWanted(
            files,
            tuple(assets),
            tuple(read),
            searched.space.strategy.name,
            searched.space.axes,
            plan,
            told,
            places,
            rebuild,
        )
        again = partial(folds_again, wanted)
        keyed = folds_of(
            workspace, known, tasks, question, told, places, elsewhere=again, rebuild=rebuild
        )
        chosen = [choice for _, choice in keyed]
        require_choices_probed(workspace, known, tasks, chosen, searched.space)
        traded.append(stitched(known, tasks, chosen, question))
        folds += [
            [c for t, c in zip(tasks, chosen, strict=True) if t.asset == asset] for asset in assets
        ]
    simulated = trade_stitched(traded, terms.config, terms.funding, daily.days)
    rows = [
        {
            # Judged where it is published: by how many walk-forwards there are then.
            **efficiency_row(one.run_id, judge(own, psr, 1, plan.threshold), plan.threshold),
            "n_folds": len(own),
            "n_left_out": left_out[asset],
            "n_untested": untested[asset],
        }
        for one, asset, own, psr in zip(
            identities,
            assets * len(searches),
            folds,
            simulated.metrics["psr"].tolist(),
            strict=True,
        )
    ]
    trials = trials_of(
        simulated,
        [signal.params for signal in signals],
        strategy=[signal.strategy for signal in signals],
        dataset_versions=told_of,
        terms=terms,
        source="walk_forward",
        chosen_by=plan.as_json(),
    )
    published = publication_of(simulated, signals, identities, ids, told, started_at, trials)
    return WalkForwardBatch(published, efficiency_table(rows))


def publish_walk_forward(
    artifacts: ArtifactStore, cursor: Cursor, walk_forwards: WalkForwardBatch
) -> None:
    """Write the files, enter the stitched runs in the ledger, put them in their place, deflate."""
    published = walk_forwards.publication
    (tf,) = published.runs["tf"].unique().to_pylist()
    copy.lock_cells(cursor, "backtests", tf, published.runs["id"].unique().to_pylist())
    keep_files(artifacts, published)
    record_trials(cursor, published.trials)
    publish_walk_forwards(
        cursor,
        published.runs,
        published.trades,
        published.metrics,
        published.blocks,
        walk_forwards.efficiencies,
    )
    symbols = published.runs["symbol"].unique().to_pylist()
    judge_again(cursor, tf, symbols)
    deflate_runs(cursor, tf, symbols, published.trials["trial_id"].to_pylist())
