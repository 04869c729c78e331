"""A Dagster engineer at work, with Dagster's own commands and GraphQL alone.

After each step, what Dagster shows of every partition is what the tables hold: materialized with
the version of its rows, or not.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from click.testing import CliRunner
from dagster._cli import cli
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration

from backtest_pipeline.defs.instance import workspace_file
from backtest_pipeline.storage import PRIVATE
from backtest_pipeline.storage.dagster_log import trim_log
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.cli.files import PRICES, daily_bars, put, write
from backtest_pipeline_tests.sql import rows

MODULE, LOCATION = "backtest_pipeline.definitions", "backtest_pipeline"
REPOSITORY = "__repository__"
DATASETS = {
    "bars": "bars",
    "cmc_features": "features",
    "signals": "signals",
    "backtests": "backtests",
}
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
KEYS = tuple(f"{symbol}|{tf}" for symbol in SYMBOLS for tf in ("1D", "2D"))
STORAGE = "backtest_pipeline.defs.dagster_storage"
# The storage of the project, as docs/operations.md has it for an instance of one's own.
DAGSTER_YAML = f"""\
instance_class: {{ module: {STORAGE}, class: BatchingInstance }}
run_storage: {{ module: {STORAGE}, class: KeptRunStorage }}
event_log_storage: {{ module: {STORAGE}, class: BatchingEventLogStorage }}
schedule_storage: {{ module: {STORAGE}, class: KeptScheduleStorage }}
run_launcher:
  module: dagster._core.launcher.sync_in_memory_run_launcher
  class: SyncInMemoryRunLauncher
run_coordinator: {{ module: dagster._core.run_coordinator, class: DefaultRunCoordinator }}
telemetry: {{ enabled: false }}
"""


def bars_of(symbol: str, factor: float = 1.0) -> pd.DataFrame:
    bars = daily_bars(symbol=symbol)
    bars[PRICES] *= factor * (1 + SYMBOLS.index(symbol) / 7)
    return bars


class Engineer:
    """Works on one instance, by commands in a fresh shell and by GraphQL."""

    def __init__(self, workspace: WorkspaceProcessContext, folder: Path, store: Database) -> None:
        self.workspace, self.folder, self.database = workspace, folder, store
        self.instance = workspace.instance

    def command_in_shell(self, *command: str) -> None:
        """Dagster's command in a fresh shell, which must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "dagster", *command],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self, *command: str) -> str:
        """Dagster's command, which must succeed, as a shell that has started Python already."""
        # Its command of validation tells the process that it validates, and never takes it back.
        done = CliRunner(env={"DAGSTER_IS_DEFS_VALIDATION_CLI": None}).invoke(cli, command)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    def ask(self, query: str, **variables: Any) -> Any:
        from dagster_graphql.test.utils import execute_dagster_graphql

        context = self.workspace.create_request_context()
        answer = execute_dagster_graphql(context, query, variables)
        assert not answer.errors, answer.errors
        return answer.data

    def launch(self, keys: Sequence[str], assets: Sequence[str] = (), job: str = "") -> str:
        """Launch a backfill from the assets' pages, or from a job's page; its status in the end."""
        wanted: dict[str, Any] = {"partitionNames": list(keys)}
        if job:
            wanted["selector"] = {
                "repositorySelector": {
                    "repositoryLocationName": LOCATION,
                    "repositoryName": REPOSITORY,
                },
                "partitionSetName": f"{job}_partition_set",
            }
        else:
            wanted["assetSelection"] = [{"path": [asset]} for asset in assets]
        launched = self.ask(
            """mutation ($wanted: LaunchBackfillParams!) {
                launchPartitionBackfill(backfillParams: $wanted) {
                    __typename
                    ... on LaunchBackfillSuccess { backfillId }
                    ... on PythonError { message }
                }
            }""",
            wanted=wanted,
        )["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        for _ in range(20):
            list(execute_backfill_iteration(self.workspace, logging.getLogger("backfills")))
            backfill = self.instance.get_backfill(launched["backfillId"])
            assert backfill is not None
            if backfill.status.value not in ("REQUESTED", "CANCELING", "COMPLETING"):
                return backfill.status.value
        raise AssertionError(f"{launched['backfillId']} did not end")

    def statuses(self, asset: str) -> dict[str, str]:
        """What the grid shows of each partition."""
        node = self.ask(
            """query ($key: AssetKeyInput!) {
                assetNodeOrError(assetKey: $key) { ... on AssetNode { assetPartitionStatuses {
                    ... on MultiPartitionStatuses { ranges {
                        primaryDimStartKey primaryDimEndKey
                        secondaryDim { ... on DefaultPartitionStatuses {
                            materializedPartitions failedPartitions unmaterializedPartitions
                        } }
                    } }
                } } }
            }""",
            key={"path": [asset]},
        )["assetNodeOrError"]
        found = dict.fromkeys(KEYS, "missing")
        for span in node["assetPartitionStatuses"]["ranges"]:
            first, last = (SYMBOLS.index(span[f"primaryDim{end}Key"]) for end in ("Start", "End"))
            for symbol in SYMBOLS[first : last + 1]:
                for name in ("materialized", "failed"):
                    for tf in span["secondaryDim"][f"{name}Partitions"]:
                        if f"{symbol}|{tf}" in found:
                            found[f"{symbol}|{tf}"] = name
        return found

    def seen(self, asset: str) -> dict[str, tuple[str | None, str]]:
        """Data version and staleness of each partition, as the asset's page shows them."""
        fields = "\n".join(
            f'v{i}: dataVersion(partition: "{key}") s{i}: staleStatus(partition: "{key}")'
            for i, key in enumerate(KEYS)
        )
        query = (
            "query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {"
            " ... on AssetNode {" + fields + "} } }"
        )
        node = self.ask(query, key={"path": [asset]})["assetNodeOrError"]
        return {key: (node[f"v{i}"], node[f"s{i}"]) for i, key in enumerate(KEYS)}

    def stored(self, asset: str) -> dict[str, str]:
        """The version of the stored rows of each partition."""
        stored = rows(
            self.database,
            "SELECT a.symbol || '|' || v.tf AS key, v.version FROM dataset_versions v"
            " JOIN dim_assets a USING (id) WHERE v.dataset = :dataset",
            dataset=DATASETS[asset],
        )
        return {row["key"]: row["version"] for row in stored}

    def compare(self, *, failed: Sequence[str] = (), stale: Sequence[str] = ()) -> None:
        """All that Dagster shows against all that is stored.

        `failed` is what is red, and `stale` what is to be computed anew, as `asset BTC|1D`.
        """
        found_stale = set()
        for asset in DATASETS:
            stored, status, seen = self.stored(asset), self.statuses(asset), self.seen(asset)
            for key in KEYS:
                version, staleness = seen[key]
                expected = "materialized" if key in stored else "missing"
                expected = "failed" if f"{asset} {key}" in failed else expected
                assert status[key] == expected, (asset, key)
                assert version == (None if expected == "failed" else stored.get(key)), (asset, key)
                if staleness == "STALE":
                    found_stale.add(f"{asset} {key}")
        assert found_stale == set(stale)

    def prune(self) -> None:
        """Trim Dagster's log, and forget what it remembers of the assets besides."""
        with self.database.begin() as connection:
            assert sum(trim_log(connection, datetime.now(UTC) + timedelta(days=1)).values()) > 0
        for asset in DATASETS:
            self.instance.event_log_storage.wipe_asset_cached_status(dg.AssetKey(asset))


@pytest.fixture
def engineer(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engineer]:
    home, folder = tmp_path / "dagster", tmp_path / "bars"
    home.mkdir()
    folder.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    for symbol in SYMBOLS:
        write(bars_of(symbol), folder / f"{symbol}.csv")
    for name, value in {
        "BACKTEST_RUN_STORE_MODE": "postgres",
        "BACKTEST_POSTGRES_DSN": database.conninfo,
        "BACKTEST_ARTIFACTS_URL": str(tmp_path / "artifacts"),
        "BACKTEST_BARS": str(folder),
        "DAGSTER_HOME": str(home),
    }.items():
        monkeypatch.setenv(name, value)
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(executable_path=sys.executable, module_name=MODULE),
        location_name=LOCATION,
    )
    target = InProcessWorkspaceLoadTarget(origin)
    umask = os.umask(PRIVATE)  # as the code location does in the process that loads it
    try:
        with (
            dg.DagsterInstance.from_config(str(home)) as instance,
            WorkspaceProcessContext(instance, target) as workspace,
        ):
            yield Engineer(workspace, folder, database)
    finally:
        os.umask(umask)


# Dagster uses old names of its own, and leaves an event loop behind for each question.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::dagster.SupersessionWarning")  # of `dagster` by `dg`
@pytest.mark.filterwarnings("ignore:coroutine 'BaseEventLoop.shutdown_asyncgens':RuntimeWarning")
def test_what_dagster_shows_is_what_is_stored(engineer: Engineer) -> None:
    # Not the backtests: their checks replay runs in fresh processes, which takes minutes here.
    everything = ("bars", "cmc_features", "signals")
    # By command: does it load, what is there, the assets of the source, and a range.
    engineer.command("definitions", "validate", "-w", str(workspace_file()))
    assert set(everything) <= set(engineer.command("asset", "list", "-m", MODULE).split())
    engineer.command("job", "execute", "-m", MODULE, "-j", "add_assets")
    select = ("--select", ",".join(everything), "--partition-range", "AAA|1D...AAA|2D")
    engineer.command_in_shell("asset", "materialize", "-m", MODULE, *select)
    engineer.compare()
    # From the assets' pages: one partition, one with a hole beside it, then what is missing.
    assert engineer.launch(["BBB|1D"], everything) == "COMPLETED_SUCCESS"
    assert engineer.launch(["BBB|2D", "DDD|1D"], everything) == "COMPLETED_SUCCESS"
    engineer.compare()
    missing = [key for key, state in engineer.statuses("signals").items() if state == "missing"]
    assert missing == ["CCC|1D", "CCC|2D", "DDD|2D"]
    # One asset of them cannot be used: its partitions fail, and the others are there.
    write(put(bars_of("CCC"), "low", -1.0, slice(None)), engineer.folder / "CCC.csv")
    assert engineer.launch(missing, everything) == "COMPLETED_FAILED"
    red = [f"{asset} CCC|{tf}" for asset in everything for tf in ("1D", "2D")]
    engineer.compare(failed=red)
    engineer.prune()
    engineer.compare(failed=red)
    failed = [key for key, state in engineer.statuses("signals").items() if state == "failed"]
    write(bars_of("CCC"), engineer.folder / "CCC.csv")
    assert engineer.launch(failed, everything) == "COMPLETED_SUCCESS"
    engineer.compare()
    # Other prices: what is downstream of them is stale, and can be launched alone.
    write(bars_of("DDD", 1.37), engineer.folder / "DDD.csv")
    assert engineer.launch(["DDD|1D", "DDD|2D"], ["bars"]) == "COMPLETED_SUCCESS"
    engineer.prune()
    engineer.compare(stale=["cmc_features DDD|1D", "cmc_features DDD|2D"])
    assert engineer.launch(["DDD|1D", "DDD|2D"], everything[1:]) == "COMPLETED_SUCCESS"
    engineer.compare()
    # From the job's page: one partition is computed, several are refused and stay as they are.
    assert engineer.launch(["AAA|1D"], job="refresh") == "COMPLETED_SUCCESS"
    assert engineer.statuses("backtests")["AAA|1D"] == "materialized"
    assert engineer.launch(["AAA|1D", "BBB|1D", "CCC|1D"], job="refresh") == "COMPLETED_FAILED"
    engineer.compare()
    engineer.prune()
    engineer.compare()
