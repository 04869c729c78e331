"""The Python API beside the store."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

import backtest_pipeline as bp
from backtest_pipeline.market.errors import InvalidInput, SchemaNotMigrated, UnknownName
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.use_cases.refresh import refresh_signals
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline_tests.other_schemas import OtherSchema

ASSET = "S-ALPHA"


@pytest.fixture
def refreshed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A store with one partition, named by the environment."""
    for report in refresh_signals(workspace, SampleMarket(), [Partition(ASSET, "1D")]):
        assert not report.failed
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", workspace.database.conninfo)
    monkeypatch.setenv("BACKTEST_ARTIFACTS_URL", str(workspace.artifacts.root))
    return workspace


def test_stored_features_are_those_that_are_computed(refreshed: Workspace) -> None:
    columns = ["close", "rsi_14", "ema_21", "ret_is_outlier"]
    stored = bp.load_features(ASSET, "1D", columns)
    computed = bp.build_features(bp.load_bars(asset=ASSET, timeframe="1D"))
    pd.testing.assert_frame_equal(
        stored,
        pd.DataFrame(computed[columns]),
        check_exact=True,
        check_freq=False,
        check_dtype=False,
    )


def test_stored_signals_are_those_that_are_generated(refreshed: Workspace) -> None:
    stored = bp.load_signals(ASSET)
    features = bp.build_features(bp.load_bars(asset=ASSET))
    generated = bp.generate_signals(features, "ema", fast=9, slow=21)
    mine = pd.DataFrame(stored[stored["name"] == "ema_9_21"])
    for direction, action, column in (
        ("long", "entry", "entries"),
        ("long", "exit", "exits"),
        ("short", "entry", "short_entries"),
        ("short", "exit", "short_exits"),
    ):
        found = mine[(mine["direction"] == direction) & (mine["action"] == action)]
        assert list(found.index) == list(generated.index[generated[column].to_numpy(bool)])
    snapshot = mine["rsi_14"].to_numpy(float)
    assert np.allclose(snapshot, features["rsi_14"].reindex(mine.index), rtol=0, atol=1e-12)


def test_what_is_not_stored_is_named(refreshed: Workspace) -> None:
    with pytest.raises(UnknownName, match="did you mean S-ALPHA"):
        bp.load_features("S-ALPA")
    with pytest.raises(UnknownName, match="unknown feature"):
        bp.load_features(ASSET, "1D", ["rsi_99"])
    with pytest.raises(UnknownName, match="unknown timeframe"):
        bp.load_signals(ASSET, "1DD")


def test_a_store_of_another_schema_is_refused_and_left_alone(
    other_schema: OtherSchema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", other_schema.database.conninfo)
    monkeypatch.setenv("BACKTEST_ARTIFACTS_URL", str(tmp_path / "artifacts"))
    before = other_schema.contents()
    for call in (bp.list_runs, lambda: bp.load_features(ASSET), lambda: bp.replay(UUID(int=1))):
        with pytest.raises(SchemaNotMigrated) as refused:
            call()
        assert str(refused.value) == other_schema.sentence
    assert other_schema.contents() == before
    assert not (tmp_path / "artifacts").exists()


def test_bad_calls_are_explained() -> None:
    bars = bp.load_bars(asset=ASSET)
    with pytest.raises(UnknownName, match="unknown strategy 'supertrend'"):
        bp.run_backtest(bars, "supertrend", {})
    with pytest.raises(InvalidInput, match=r"fast \(30\) must be below slow \(21\)"):
        bp.run_backtest(bars, "ema", {"fast": 30})
    with pytest.raises(UnknownName, match="unknown direction"):
        bp.run_backtest(bars, "ema", {"fast": 9, "slow": 21}, direction="sideways")
    with pytest.raises(InvalidInput, match="no complete 4H bar"):
        bp.load_bars(asset="S-GAMMA", timeframe="4H")
    with pytest.raises(InvalidInput, match="time zone"):
        bp.build_features(bars.tz_localize(None))


def test_only_the_columns_that_a_strategy_reads_must_be_numbers() -> None:
    features = bp.build_features(bp.load_bars(asset=ASSET))
    plain = bp.generate_signals(features, "rsi")
    noted = bp.generate_signals(features.assign(note="a remark"), "rsi")
    pd.testing.assert_frame_equal(plain, noted)
    with pytest.raises(InvalidInput, match="column 'rsi_14' holds something else than numbers"):
        bp.generate_signals(features.assign(rsi_14="high"), "rsi")
