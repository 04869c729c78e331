"""A preset that fails on one asset is missing there alone, named, and tried again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.incremental import recomputed_signals
from backtest_pipeline.pipeline.presets import failed_on_partitions
from backtest_pipeline.pipeline.stages.tradable_signals import stored_signals
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.strategies.known_strategies import look_again
from backtest_pipeline_tests.own_strategies import DIP, own_strategies, write
from backtest_pipeline_tests.pipeline.markets import (
    assert_same,
    contents,
    outcome,
    refresh,
    until,
)
from backtest_pipeline_tests.sql import distinct

ALPHA, MU = BOTH = [Partition("S-ALPHA", "1D"), Partition("S-MU", "1D")]
CLOSE = '    close = features["close"]\n'
RUNS = """
    SELECT a.symbol || ' ' || d.name FROM backtest_runs r
    JOIN dim_signals d USING (signal_id) JOIN dim_assets a ON a.id = r.id
    WHERE r.is_current AND d.name IN ('dip_2_20', 'ema_9_21')
"""
SIGNALS = """
    SELECT DISTINCT a.symbol FROM signals s
    JOIN dim_signals d USING (signal_id) JOIN dim_assets a USING (id) WHERE d.name = 'dip_2_20'
"""
ALL = {"S-ALPHA dip_2_20", "S-ALPHA ema_9_21", "S-MU dip_2_20", "S-MU ema_9_21"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with own_strategies(tmp_path / "strategies", {"dip.py": DIP}) as folder:
        yield folder


def _on_one_asset(folder: Path, what: str) -> None:
    """The strategy does something else on S-MU, known by its first close, and on no other asset."""
    first = "if abs(close.iloc[0] - 0.41546443) < 1e-9:"
    write(folder, "dip.py", DIP.replace(CLOSE, f"{CLOSE}    {first}\n        {what}\n"))
    look_again()


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("raise ValueError('no such level')", r"ValueError: no such level \(.*dip.py line 16\)"),
        ("return {'long_entry': (close > 0)[1:]}", "long_entry has another index than"),
        ("return {'long_entry': (close > 0).to_numpy()[1:]}", "long_entry has shape"),
        ("return {'long_entry': close.where(close > 9)}", "long_entry holds float64, perhaps NaN"),
    ],
)
def test_a_preset_that_fails_on_one_asset_is_missing_there_alone(
    workspace: Workspace, folder: Path, what: str, why: str
) -> None:
    _on_one_asset(folder, what)
    for _ in range(2):  # it is tried again, and fails again
        reports = refresh(workspace, until("2026-01-01"), BOTH)
        for stage in ("signals", "backtests"):
            assert outcome(reports[stage], ALPHA)[0] in ("stored", "unchanged")
        status, detail = outcome(reports["signals"], MU)
        assert (status, detail.startswith("preset dip_2_20 fails: dip")) == ("partial", True)
        assert [one.partition for one in reports["signals"].incomplete] == [MU]
        assert re.search(why, detail)
    assert distinct(workspace, RUNS) == ALL - {"S-MU dip_2_20"}
    assert distinct(workspace, SIGNALS) == {"S-ALPHA"}
    (failed,) = failed_on_partitions(workspace).items()
    assert failed[0] == "dip_2_20 on S-MU|1D"
    assert re.search(why, failed[1])
    checked = recomputed_signals(workspace)
    assert (set(checked.partitions), checked.differing) == ({*BOTH}, ())


def test_what_had_failed_is_computed_once_it_can_be_although_no_code_has_changed(
    workspace: Workspace, fresh_store: Callable[[], Workspace], folder: Path, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    _on_one_asset(folder, f"open({str(flag)!r}).close()")
    flag.touch()
    refresh(workspace, until("2025-03-01"), BOTH)
    assert distinct(workspace, RUNS) == ALL
    flag.unlink()
    refresh(workspace, until("2026-01-01"), BOTH)
    assert distinct(workspace, RUNS) == ALL - {"S-MU dip_2_20"}
    assert distinct(workspace, SIGNALS) == {"S-ALPHA"}
    flag.touch()
    reports = refresh(workspace, until("2026-01-01"), BOTH)
    assert outcome(reports["signals"], MU) == ("stored", "")
    assert outcome(reports["signals"], ALPHA) == ("unchanged", "")
    assert distinct(workspace, RUNS) == ALL
    assert failed_on_partitions(workspace) == {}
    store = fresh_store()
    refresh(store, until("2026-01-01"), BOTH)
    one, other = contents(workspace), contents(store)
    del one["benchmark.parquet"]  # once for each directory of runs
    assert_same(one, other)


def test_a_preset_that_fails_everywhere_leaves_partitions_without_it(
    workspace: Workspace, folder: Path
) -> None:
    _on_one_asset(folder, "raise ValueError")
    reports = refresh(workspace, until("2026-01-01"), [MU])
    assert reports["backtests"].incomplete[0].partition == MU
    batch = stored_signals(workspace, [MU]).load("1D", ["S-MU"])
    assert list(batch.stored.failed_on("S-MU")) == ["dip_2_20"]
    assert reports["backtests"].rows == len(batch.stored.signals) - 1
