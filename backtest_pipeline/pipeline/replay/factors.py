"""How the inputs of two recorded runs differ, in words: configuration, data, code, environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.pipeline.replay.recorded_rows import recorded_rows
from backtest_pipeline.pipeline.replay.worker_process import ReplayRequest
from backtest_pipeline.pipeline.runs.differences import (
    code_differences,
    config_differences,
    row_differences,
)
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.marks import DAILY
from backtest_pipeline.storage.artifacts.code_archive import code_on_disk, read_code
from backtest_pipeline.storage.run_tables.recorded_runs import RecordedRun
from backtest_pipeline.storage.tables.datasets import dataset_of_key
from backtest_pipeline.storage.tables.environment import differences

OF_DATA = ("symbol", "symbols", "timeframe", "funding")
"""The fields of a configuration that concern the data."""


def config_words(one: RecordedRun, other: RecordedRun) -> list[str]:
    """The settings that differ, key by key."""
    plans = [[(plan["plan_id"], plan["replan_reasons"]) for plan in r.plans] for r in (one, other)]
    words = config_differences(_assumed(one), _assumed(other))
    if plans[0] != plans[1]:
        pairs = enumerate(zip_longest(*plans), 1)
        first = next(number for number, (a, b) in pairs if a != b)
        counts = " -> ".join(str(len(own)) for own in plans)
        words.append(f"plans: {counts} in number, the first that differs is plan {first}")
    return words


def _assumed(run: RecordedRun) -> dict[str, Any]:
    """A run's configuration without the fields that concern its data."""
    return {n: v for n, v in run.config.items() if n not in OF_DATA}


def data_words(workspace: Workspace, one: RecordedRun, other: RecordedRun) -> list[str]:
    """The bars, indicators and funding rates that differ.

    Raises:
        CannotReplay, ArtifactCorrupt: for rows that are missing or damaged.
    """
    words = []
    if (one.asset, one.timeframe) != (other.asset, other.timeframe):
        words.append(
            f"different bars: {one.asset}|{one.timeframe} -> {other.asset}|{other.timeframe}"
        )
    funding = [run.config["funding"] for run in (one, other)]
    if funding[0] != funding[1]:
        words.append(f"funding rates: {funding[0] or 'flat rate'} -> {funding[1] or 'flat rate'}")
    of_benchmark = one.config["benchmark"] == other.config["benchmark"]
    own = [f"{run.asset}|{run.timeframe}" for run in (one, other)]
    for key in sorted({*one.dataset_versions, *other.dataset_versions}):
        partition, dataset = dataset_of_key(key)
        is_days = str(partition) == f"{one.asset}|{DAILY}" != own[0]
        is_own = own[0] == own[1] and (str(partition) == own[0] or is_days or bool(one.plans))
        if not is_own and (own[0] != own[1] or not of_benchmark):
            continue
        versions = [run.dataset_versions.get(key) for run in (one, other)]
        if versions[0] == versions[1]:
            continue
        if None in versions:
            which = "marks only one of the runs" if is_own else "is in only one of the benchmarks"
            if dataset != "features":
                which = "is read by only one of the runs"
            words.append(f"{key} {which}")
            continue
        rows = [_rows(workspace, run, key) for run in (one, other)]
        if is_days:
            rows = [
                _between_closes(workspace, run, of)
                for run, of in zip((one, other), rows, strict=True)
            ]
        words += [f"{key}: {line}" for line in row_differences(*rows)]
    return words


def code_words(
    workspace: Workspace, runs: Sequence[RecordedRun], codes: tuple[str, str]
) -> list[str]:
    """The versions and source files that differ; empty where the declared versions are equal.

    Args:
        workspace: an open store.
        runs: the two runs.
        codes: uris of their source archives.

    Raises:
        ArtifactCorrupt: for a damaged archive.
    """
    one, other = codes
    if one == other or runs[0].code_version == runs[1].code_version:
        return []
    installed = code_on_disk()
    files = [
        (installed if uri == installed.uri else read_code(workspace.artifacts, uri)).files()
        for uri in (one, other)
    ]
    versions = [dict(part.split(" ") for part in run.code_version.split(", ")) for run in runs]
    declared = [
        f"{name} {version} -> {versions[1][name]}"
        for name, version in versions[0].items()
        if versions[1].get(name, version) != version
    ]
    return declared + code_differences(files[0], files[1])


def environment_words(
    runs: Sequence[RecordedRun], known: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """The engine, the interpreter and the packages that differ.

    Args:
        runs: the two runs.
        known: recorded environments, by hash.
    """
    one, other = (run.environment_hash for run in runs)
    engines = (
        []
        if runs[0].engine == runs[1].engine
        else [f"engine {' '.join(runs[0].engine)} -> {' '.join(runs[1].engine)}"]
    )
    if one == other:
        return engines
    if one in known and other in known:
        return engines + differences(known[one], known[other])
    return [*engines, f"environment {one} -> {other}; they were not both recorded"]


def _between_closes(workspace: Workspace, run: RecordedRun, days: Panel) -> Panel:
    """The prices of the days after the close of the run's first bar, and before that of its last.

    Indicators of days mark nothing.
    """
    closes = _rows(workspace, run, f"{run.asset}|{run.timeframe}").ts
    days = replace(days, columns={name: days[name] for name in OHLCV})
    return days.take((days.ts > closes[0]) & (days.ts < closes[-1]))


def _rows(workspace: Workspace, run: RecordedRun, key: str) -> Panel:
    (asset, tf), dataset = dataset_of_key(key)
    snapshots = {name: vars(snapshot) for name, snapshot in ReplayRequest.of(run).snapshots.items()}
    columns = SNAPSHOT_COLUMNS
    if dataset != "features":
        there = workspace.artifacts.columns_of(snapshots[key]["uris"][0])
        columns = tuple(name for name in there if name not in ("asset", "ts"))
    return recorded_rows(workspace.artifacts, tf, asset, snapshots, columns, dataset)
