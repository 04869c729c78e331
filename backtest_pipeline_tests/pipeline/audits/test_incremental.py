"""The check that refreshes leave what a whole computation gives sees what does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backtest_pipeline.pipeline.audits.incremental import (
    Recomputed,
    recomputed_features,
    recomputed_signals,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.conftest import copied
from backtest_pipeline_tests.pipeline.markets import (
    PARTITIONS,
    changed,
    refresh,
    until,
    us,
    whole,
)
from backtest_pipeline_tests.sql import execute_sql

ALL = len(PARTITIONS)


def tamper(workspace: Workspace, statement: str) -> None:
    assert execute_sql(workspace, statement)


@pytest.fixture(scope="module")
def grown_once(
    template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Name of a database and artifacts that two refreshes leave."""
    root = tmp_path_factory.mktemp("grown")
    for database in database_like(template, "backtest"):
        workspace = Workspace(database, ArtifactStore(root))
        refresh(workspace, until("2025-12-20"))
        refresh(workspace, whole())
        database.close()
        yield database.where.rpartition("/")[2], root


@pytest.fixture
def grown(template: Database, grown_once: tuple[str, Path], tmp_path: Path) -> Iterator[Workspace]:
    """That store, with a database and a folder of its own."""
    yield from copied(template, *grown_once, tmp_path / "artifacts")


def test_what_grew_is_what_a_whole_computation_gives(grown: Workspace) -> None:
    for found in (recomputed_features(grown, ALL), recomputed_signals(grown, ALL)):
        assert set(found.partitions) <= set(PARTITIONS)
        assert len(found.partitions) == ALL
        assert found.rows > 1000
        assert found.differing == ()


OF_ALPHA = "id = (SELECT id FROM dim_assets WHERE symbol = 'S-ALPHA') AND tf = '1D'"

LAST_ROW = "ts = (SELECT max(ts) FROM cmc_features WHERE tf = '1D')"
LAST_EVENT = f"ts = (SELECT max(ts) FROM signals WHERE {OF_ALPHA})"


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            f"UPDATE cmc_features SET rsi_7 = rsi_7 + 1e-12 WHERE {OF_ALPHA} AND {LAST_ROW}",
            "rsi_7 of a row",
        ),
        (
            f"UPDATE cmc_ema_multi_tf_u SET ema = 1 WHERE {OF_ALPHA} AND period = 9",
            "ema_9 of a row",
        ),
        (f"DELETE FROM cmc_features WHERE {OF_ALPHA} AND ts < '2025-01-01'", "stamps of rows"),
        (
            f"UPDATE dataset_versions SET version = 'x' WHERE dataset = 'features' AND {OF_ALPHA}",
            "version",
        ),
    ],
)
def test_features_that_were_tampered_with_are_named(
    grown: Workspace, statement: str, named: str
) -> None:
    tamper(grown, statement)
    found = recomputed_features(grown, ALL)
    assert [of.split(": ")[0] for of in found.differing] == ["S-ALPHA|1D"]
    assert named in found.differing[0]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            f"DELETE FROM signals WHERE {OF_ALPHA} AND {LAST_EVENT}",
            "events",
        ),
        (f"UPDATE signal_state SET long_since = last_ts WHERE {OF_ALPHA}", "state of signal"),
    ],
)
def test_signals_that_were_tampered_with_are_named(
    grown: Workspace, statement: str, named: str
) -> None:
    tamper(grown, statement)
    found = recomputed_signals(grown, ALL)
    assert [of.split(": ")[0] for of in found.differing] == ["S-ALPHA|1D"]
    assert named in found.differing[0]


def test_what_a_resumed_recursion_goes_on_from_matters(workspace: Workspace) -> None:
    """New rows are computed from what is stored, not from the first bar on."""
    refresh(workspace, until("2025-12-20"))
    tamper(
        workspace,
        "UPDATE feature_checkpoints SET standing = array_fill(7.0, ARRAY[cardinality(standing)])"
        f" WHERE {OF_ALPHA}",
    )
    refresh(workspace, whole())
    found = recomputed_features(workspace, ALL)
    assert _names(found) == set()  # it is seen that the rows do not go on from those stored
    tamper(workspace, f"DELETE FROM feature_checkpoints WHERE {OF_ALPHA}")
    refresh(workspace, whole(), rebuild=True)
    assert _names(recomputed_features(workspace, ALL)) == set()


def test_a_partition_that_waits_for_its_refresh_is_not_looked_at(workspace: Workspace) -> None:
    from backtest_pipeline.pipeline.pools.staged_batches import run_stage
    from backtest_pipeline.pipeline.stages.bars import BarsStage, bar_batches
    from backtest_pipeline.pipeline.stages.source_reader import SourceReader

    refresh(workspace, until("2025-12-20"))
    source = changed(lambda panel: panel.take(panel.ts < us("2025-12-24")))
    reader = SourceReader(source, ["S-ALPHA"])
    waiting = [p for p in PARTITIONS if p.asset == "S-ALPHA" and p.timeframe == "1D"]
    run_stage(bar_batches(reader, waiting), BarsStage(workspace, reader))
    for found in (recomputed_features(workspace, ALL), recomputed_signals(workspace, ALL)):
        assert waiting[0] not in found.partitions
        assert len(found.partitions) == ALL - 1


def _names(found: Recomputed) -> set[str]:
    return {of.split(":")[0] for of in found.differing}
