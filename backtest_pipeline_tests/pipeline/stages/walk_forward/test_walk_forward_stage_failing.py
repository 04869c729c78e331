"""A strategy that fails on one asset has no walk-forward there alone, is named, and tried again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.strategies.known_strategies import look_again
from backtest_pipeline_tests.own_strategies import DIP, own_strategies
from backtest_pipeline_tests.pipeline.markets import outcome, refresh
from backtest_pipeline_tests.pipeline.walking_process import (
    MARKET,
    PARTITIONS,
    WITHOUT_LAST_WEEK,
    walk,
)
from backtest_pipeline_tests.sql import distinct, rows

A, B = PARTITIONS
RUNS = """
    SELECT symbol || ' ' || strategy FROM backtest_runs
    WHERE is_current AND split = 'walk_forward' AND strategy IN ('dip', 'ema_crossover')
"""
ALL = {"A dip", "A ema_crossover", "B dip", "B ema_crossover"}
FOLDS = "SELECT fold_key, computed_at FROM walk_forward_folds WHERE symbol = 'B'"


@pytest.fixture
def flag(tmp_path: Path) -> Iterator[Path]:
    """A file without which the strategy fails on B, known by its first close, and on no other."""
    first = float(MARKET.panels["1D"]["close"][MARKET.panels["1D"].rows_of("B").start])
    close, flag = '    close = features["close"]\n', tmp_path / "flag"
    check = f"    if abs(close.iloc[0] - {first!r}) < 1e-9:\n        open({str(flag)!r}).close()\n"
    flag.touch()
    with own_strategies(tmp_path / "strategies", {"dip.py": DIP.replace(close, close + check)}):
        look_again()
        yield flag


def test_a_strategy_that_fails_on_one_asset_is_missing_there_alone(
    workspace: Workspace, flag: Path
) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    flag.unlink()
    for status in ("stored", "unchanged"):  # it is tried again, and fails again
        report = walk(workspace)
        assert outcome(report, A) == (status, "")
        found, detail = outcome(report, B)
        assert (found, detail.startswith("strategy dip fails: dip")) == ("partial", True)
        assert "FileNotFoundError" in detail
        assert [one.partition for one in report.incomplete] == [B]
        assert distinct(workspace, RUNS) == ALL - {"B dip"}
    folds = {row["fold_key"]: row["computed_at"] for row in rows(workspace, FOLDS)}
    flag.touch()
    assert outcome(walk(workspace), B) == ("stored", "")
    assert distinct(workspace, RUNS) == ALL
    after = {row["fold_key"]: row["computed_at"] for row in rows(workspace, FOLDS)}
    assert {key: after[key] for key in folds} == folds, "of the others nothing is computed again"
    assert walk(workspace).counts == {"unchanged": 2}


def test_an_earlier_walk_forward_of_it_is_not_current_any_more(
    workspace: Workspace, flag: Path
) -> None:
    refresh(workspace, WITHOUT_LAST_WEEK, PARTITIONS)
    walk(workspace)
    assert distinct(workspace, RUNS) == ALL
    refresh(workspace, MARKET, PARTITIONS)
    flag.unlink()
    report = walk(workspace)
    assert (outcome(report, A), outcome(report, B)[0]) == (("stored", ""), "partial")
    assert distinct(workspace, RUNS) == ALL - {"B dip"}


def test_one_that_fails_everywhere_leaves_the_others(workspace: Workspace, flag: Path) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    flag.unlink()
    report = walk(workspace, [Partition("B", "1D")])
    assert outcome(report, B)[0] == "partial"
    assert distinct(workspace, RUNS) == {"B ema_crossover"}
