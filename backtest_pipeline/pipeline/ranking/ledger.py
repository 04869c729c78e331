"""Entries of the trial ledger, made from simulated batches.

An entry stores weekly returns, from which correlated trials are recognized: 417 numbers for eight
years take 1.7 kB, daily returns would take 12 kB. Weekly returns show as well as daily ones whether
two configurations are the same bet, and three months of them suffice.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.runs.identity import (
    RunTerms,
    Stretch,
    Window,
    canonical_json,
    hash_of,
    simulation_config,
    without_defaults,
)
from backtest_pipeline.pipeline.versions import RUNS_CODE, run_code
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.marks import MARK_COLUMNS, Marks
from backtest_pipeline.simulation.metrics.daily import (
    daily_return_counts,
    daily_shapes,
    sampled_at_bars,
)
from backtest_pipeline.simulation.rules import config_for, config_of_all
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.provenance import combined, content_versions
from backtest_pipeline.storage.run_tables.trials import record_trials
from backtest_pipeline.strategies.registry import own_version, strategies

_NAMESPACE = uuid.UUID("0d0a3c9e-8a54-5b3f-9f0c-7f1f5f9c2b64")
_MONDAY = 4  # 1970-01-05, the first Monday, as a day number


@retried
def enter_in_ledger(workspace: Workspace, trials: Sequence[pa.Table]) -> None:
    """Record trials, as `trials_of` returns them, that are not published as runs."""
    with workspace.database.writing() as connection, connection.cursor() as cursor:
        record_trials(cursor, pa.concat_tables(trials))


def trials_of(
    batch: BatchResult,
    params: Sequence[Mapping[str, Any]],
    *,
    strategy: str | Sequence[str],
    dataset_versions: Mapping[str, str] | Sequence[Mapping[str, str]],
    terms: RunTerms,
    source: str,
    windows: Sequence[Window] | None = None,
    chosen_by: Mapping[str, Any] | None = None,
) -> pa.Table:
    """The runs of a batch as rows of `trials`, for `storage.run_tables.trials.record_trials`.

    The same configuration on the same rows by the same code is the same trial, whatever made it:
    omitted defaults count as given, and the benchmark is ignored.

    Args:
        batch: simulated batch, with at least one bar per asset.
        params: parameters of each run of the batch.
        strategy: strategy of all runs, or of each.
        dataset_versions: version of the bars by asset, of all runs or of each, with that of the
            user's own columns that they read; that of days that mark runs is added.
        terms: costs, sizing, stops, direction, funding and window.
        source: `run`, `refresh`, `sweep`, `walk_forward` or `strategist`.
        windows: window of each segment of the batch's panel, if not that of `terms`.
        chosen_by: for a walk-forward, how parameters were chosen; `params` are then the values to
            choose from.

    Raises:
        InvalidInput: for parameters that the strategy does not accept.
    """
    panel, marks, tf = batch.panel, batch.marks, batch.panel.timeframe.name
    n_runs = batch.equity.shape[0]
    types = [strategy] * n_runs if isinstance(strategy, str) else list(strategy)
    texts = [
        canonical_json(_chosen(given, chosen_by) if chosen_by else _with_defaults(name, given))
        for name, given in zip(types, params, strict=True)
    ]
    windows = windows or [terms.window] * len(panel.assets)
    starts = [window.start for window in windows]
    ends = [window.end for window in windows]
    assumed = [_assumed(terms.config, *one, chosen_by) for one in zip(types, params, strict=True)]
    # Only these differ between them, and hashing takes longer than all else.
    differing = [(config.stops, config.cooldown_bars, config.sizing) for config in assumed]
    hashes = {
        one: [_config_hash(terms, config, asset) for asset in panel.assets]
        for one, config in dict(zip(differing, assumed, strict=True)).items()
    }
    config_hashes = [hashes[one] for one in differing]
    by_run = (
        [dataset_versions] * n_runs
        if isinstance(dataset_versions, Mapping)
        else list(dataset_versions)
    )
    versions = _versions(batch, by_run)
    engine, known = terms.config.engine, strategies()
    codes = [run_code(name, engine=engine) if name in known else RUNS_CODE for name in types]

    configurations = [
        _configuration_id(name, text, asset, tf, window, config)
        for name, text, own in zip(types, texts, config_hashes, strict=True)
        for asset, window, config in zip(panel.assets, windows, own, strict=True)
    ]
    measured_on = [
        f"{version}\0{code}" for code, own in zip(codes, versions, strict=True) for version in own
    ]
    first_week, weekly = _weekly_returns(marks, batch.equity)
    n_assets = len(panel.assets)
    n = n_runs * n_assets
    skew, kurtosis = batch.metrics["skew"], batch.metrics["kurtosis"]
    if sampled_at_bars(marks.offsets, marks.ts).any():
        skew, kurtosis = daily_shapes(batch.equity, marks.offsets, marks.ts)

    def of_run(values: Sequence[Any]) -> list[Any]:
        return [value for value in values for _ in range(n_assets)]

    return pa.table(
        {
            "trial_id": [
                str(uuid.uuid5(configuration, on))
                for configuration, on in zip(configurations, measured_on, strict=True)
            ],
            "configuration_id": [str(configuration) for configuration in configurations],
            "strategy": of_run(types),
            "params": of_run(texts),
            "symbol": list(panel.assets) * n_runs,
            "tf": [tf] * n,
            "window_start": pa.array(starts * n_runs, pa.date32()),
            "window_end": pa.array(ends * n_runs, pa.date32()),
            "config_hash": [config for own in config_hashes for config in own],
            "dataset_version": [version for own in versions for version in own],
            "code_version": of_run(codes),
            "strategy_version": pa.array(
                of_run([own_version(name) for name in types]), pa.string()
            ),
            "source": [source] * n,
            "sharpe": copy.floats(batch.metrics["sharpe"] / np.sqrt(365)),
            "n_obs": np.tile(daily_return_counts(marks.offsets, marks.ts // DAY_US), n_runs),
            "skew": copy.floats(skew),
            "kurtosis": copy.floats(kurtosis),
            "total_return": copy.floats(batch.metrics["total_return"]),
            "first_week": pa.array(np.tile(first_week, n_runs)),
            "weekly_returns": weekly,
        }
    )


def _versions(batch: BatchResult, by_run: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Version of the data of each run and asset: of its bars, and of the days that mark it."""
    marks = batch.marks
    of_days = content_versions(marks.days, MARK_COLUMNS).whole
    return [
        [
            combined(of_bars[asset], of_days[asset]) if is_daily else of_bars[asset]
            for asset, is_daily in zip(batch.panel.assets, marks.is_daily.tolist(), strict=True)
        ]
        for of_bars in by_run
    ]


def declaration_of(
    strategy: str,
    values: Mapping[str, Any],
    asset: str,
    tf: str,
    terms: RunTerms,
    chosen_by: Mapping[str, Any],
) -> dict[str, Any]:
    """What `trials_of` will say of a walk-forward's stitched run, whatever bars it will have.

    Args:
        strategy: name of the strategy.
        values: what it chooses from, by parameter.
        asset, tf: the partition.
        terms: costs, sizing, stops, direction, funding and window.
        chosen_by: how parameters are chosen.

    Returns:
        A row for `storage.run_tables.declarations.insert_declaration`.
    """
    text = canonical_json(_chosen(values, chosen_by))
    config = _config_hash(terms, _assumed(terms.config, strategy, values, chosen_by), asset)
    return {
        "configuration_id": str(_configuration_id(strategy, text, asset, tf, terms.window, config)),
        "strategy": strategy,
        "symbol": asset,
        "tf": tf,
        "params": text,
        "config_hash": config,
        "window_start": terms.window.start,
        "window_end": terms.window.end,
    }


def _chosen(values: Mapping[str, Any], chosen_by: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a walk-forward: what it chooses from, and how."""
    return {"from": values, "chosen_by": chosen_by}


def _assumed(
    config: SimulationConfig,
    strategy: str,
    params: Mapping[str, Any],
    chosen_by: Mapping[str, Any] | None,
) -> SimulationConfig:
    """What a trial assumes: stops, cooldown and sizing are the strategy's where the run names none.

    Of a walk-forward they are those that its choices share.
    """
    definition = strategies().get(strategy)
    if definition is None:
        return replace(config, sizing=config.rules.sizing)
    if chosen_by:
        return config_of_all(config, definition)
    return config_for(config, definition, definition.parse(params))


def _config_hash(terms: RunTerms, config: SimulationConfig, asset: str) -> str:
    simulation = without_defaults(simulation_config(config))
    return hash_of([simulation, terms.funding.version(asset) if terms.funding else None])


def _configuration_id(
    strategy: str, params: str, asset: str, tf: str, window: Window, config: str
) -> uuid.UUID:
    terms = canonical_json([asset, tf, *_bounds(window), config])
    return uuid.uuid5(_NAMESPACE, f"{strategy}\0{params}\0{terms}")


def window_of(panel: Panel, asset: str, first_us: int, last_us: int) -> Window:
    """The window of an asset's bars between two timestamps; whole days where they cover them."""
    ts = panel.ts[panel.rows_of(asset)]
    day = ts // DAY_US
    first, last = np.searchsorted(ts, [first_us, last_us])
    start, end = day[[first, last]].astype("M8[D]").tolist()
    end += timedelta(days=1)
    begins = first == 0 or day[first - 1] < day[first]
    ends = last + 1 == len(ts) or day[last] < day[last + 1]
    return Window(start, end) if begins and ends else Stretch(start, end, first_us, last_us)


def _bounds(window: Window) -> list[str | int]:
    """The values that identify a window."""
    days: list[str | int] = [str(window.start), str(window.end)]
    return [*days, window.first_us, window.last_us] if isinstance(window, Stretch) else days


def _with_defaults(strategy: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parameters with their strategy's defaults filled in; unchanged if it is not registered."""
    definition = strategies().get(strategy)
    return definition.parse(params).model_dump() if definition else params


def _weekly_returns(marks: Marks, equity: np.ndarray) -> tuple[np.ndarray, pa.ListArray]:
    """The Monday of each asset's first week, and the weekly simple returns of every column.

    The first return starts from the initial equity; a week without a mark has a return of 0.
    """
    week = (marks.ts // DAY_US - _MONDAY) // 7
    by_asset = []
    for start, end in pairwise(marks.offsets):
        weeks = np.arange(int(week[start]), int(week[end - 1]) + 1)
        last = start + np.searchsorted(week[start:end], weeks, side="right") - 1
        values = equity[:, np.concatenate(([start], last))]
        before, after = values[:, :-1], values[:, 1:]
        growth = np.divide(after, before, out=np.ones_like(after), where=before > 0)
        by_asset.append((growth - 1.0).astype(np.float32))
    n_runs = len(equity)
    lengths = np.tile([rows.shape[1] for rows in by_asset], n_runs)
    values = np.concatenate(by_asset, axis=1).ravel()
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    mondays = (week[marks.offsets[:-1]] * 7 + _MONDAY).astype("M8[D]")
    return mondays, pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
