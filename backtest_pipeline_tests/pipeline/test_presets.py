"""Presets: added by command, declared by files, and left out where they cannot be computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backtest_pipeline.market.errors import BacktestError, InvalidInput, UnknownName
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.presets import (
    active_presets,
    left_out_presets,
    presets_to_compute,
    register_preset,
    remove_preset,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.strategies.known_strategies import look_again
from backtest_pipeline_tests.own_strategies import DIP, own_strategies, write
from backtest_pipeline_tests.pipeline.markets import refresh, until
from backtest_pipeline_tests.sql import column

SHIPPED = {
    *("ema_9_21", "ema_21_50", "ema_50_200", "rsi_14_30_70", "rsi_14_25_75", "atr_20_14_2"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with own_strategies(tmp_path / "strategies", {"dip.py": DIP}) as folder:
        yield folder


def _names(workspace: Workspace) -> set[str]:
    return {preset.name for preset in active_presets(workspace)}


def test_a_declared_preset_follows_its_file(workspace: Workspace, folder: Path) -> None:
    assert _names(workspace) == {*SHIPPED, "dip_2_20"}
    (before,) = (p for p in active_presets(workspace) if p.name == "dip_2_20")
    write(folder, "dip.py", DIP.replace('"length": 20}}', '"length": 25}}'))
    look_again()
    (after,) = (p for p in active_presets(workspace) if p.name == "dip_2_20")
    assert after.params == {"z": 2.0, "length": 25}
    assert after.signal_id == before.signal_id
    write(folder, "dip.py", DIP.replace("dip_2_20", "dip_20"))
    look_again()
    assert _names(workspace) == {*SHIPPED, "dip_20"}


def test_a_preset_is_added_and_removed_by_name(workspace: Workspace) -> None:
    row = register_preset(workspace, "rsi_7", "rsi", {"period": 7})
    assert (row.strategy, row.params) == ("rsi_mean_revert", {"period": 7})
    assert register_preset(workspace, "rsi_7", "rsi", {"period": 7}) == row  # said twice
    remove_preset(workspace, "rsi_7")
    assert _names(workspace) == SHIPPED
    assert register_preset(workspace, "rsi_7", "rsi", {"period": 7}) == row  # taken up again


def test_what_cannot_be_a_preset_is_refused(workspace: Workspace, folder: Path) -> None:
    for name, strategy, params, why in (
        ("x", "rsi", {"period": 1}, "period: "),
        ("Rsi 7", "rsi", {"period": 7}, "'Rsi 7' cannot name a preset: use lower-case"),
        ("ema_9_21", "rsi", {"period": 7}, "a preset ema_9_21 is registered"),
        ("mine", "ema", {"fast": 9, "slow": 21}, "the strategy and parameters of ema_9_21"),
        ("dip", "rsi", {"period": 7}, "dip is the name of a strategy"),
    ):
        with pytest.raises(InvalidInput, match=why):
            register_preset(workspace, name, strategy, params)
    with pytest.raises(UnknownName, match="unknown preset 'ema_9_2'; did you mean ema_9_21"):
        remove_preset(workspace, "ema_9_2")
    with pytest.raises(BacktestError, match=r"dip_2_20 is declared by .*dip\.py; remove it there"):
        remove_preset(workspace, "dip_2_20")
    assert _names(workspace) == {*SHIPPED, "dip_2_20"}


def test_a_name_that_is_taken_is_said_and_the_first_one_stays(
    workspace: Workspace, folder: Path
) -> None:
    write(folder, "dip.py", DIP.replace("dip_2_20", "ema_9_21"))
    look_again()
    (kept,) = (p for p in active_presets(workspace) if p.name == "ema_9_21")
    assert kept.strategy == "ema_crossover"
    assert "dip.py, but a command has registered" in left_out_presets(workspace)["ema_9_21"]


def test_a_preset_whose_strategy_is_gone_is_left_out_and_the_others_are_refreshed(
    workspace: Workspace, folder: Path
) -> None:
    partitions = [Partition("S-ALPHA", "1D")]
    refresh(workspace, until("2026-01-01"), partitions)
    assert len(column(workspace, "SELECT run_id FROM backtest_runs WHERE is_current")) == 7
    (folder / "dip.py").unlink()
    look_again()
    assert left_out_presets(workspace).keys() == {"dip_2_20"}
    assert "unknown strategy 'dip'" in left_out_presets(workspace)["dip_2_20"]
    assert "run: presets remove dip_2_20" in left_out_presets(workspace)["dip_2_20"]
    assert {p.name for p in presets_to_compute(workspace)} == SHIPPED
    reports = refresh(workspace, until("2026-01-01"), partitions)
    assert not any(report.failed for report in reports.values())
    remove_preset(workspace, "dip_2_20")
    assert left_out_presets(workspace) == {}


def test_a_broken_file_leaves_its_preset_out_with_the_line(
    workspace: Workspace, folder: Path
) -> None:
    active_presets(workspace)
    write(folder, "dip.py", "1 / 0\n")
    look_again()
    assert "dip.py line 1: ZeroDivisionError" in left_out_presets(workspace)["dip_2_20"]


def test_a_preset_that_reads_what_is_not_stored_is_left_out_and_the_others_are_refreshed(
    workspace: Workspace, folder: Path
) -> None:
    write(folder, "dip.py", DIP.replace('("close",)', '("close", "rsi14")'))
    look_again()
    why = "dip: unknown column 'rsi14'; did you mean rsi_14"
    assert why in left_out_presets(workspace)["dip_2_20"]
    reports = refresh(workspace, until("2026-01-01"), [Partition("S-ALPHA", "1D")])
    assert not any(report.failed for report in reports.values())
    with pytest.raises(InvalidInput, match=why):
        register_preset(workspace, "dip_3", "dip", {"z": 3.0})


def test_editing_one_strategy_computes_its_runs_alone(workspace: Workspace, folder: Path) -> None:
    partitions = [Partition("S-ALPHA", "1D")]
    refresh(workspace, until("2026-01-01"), partitions)
    others = "SELECT completed_at FROM backtest_runs WHERE strategy <> 'dip' ORDER BY run_id"
    before = column(workspace, others)
    for length in (21, 22):
        write(folder, "dip.py", DIP.replace("- params.z", f"- {length} / 20 * params.z"))
        look_again()
        refresh(workspace, until("2026-01-01"), partitions)
    assert column(workspace, others) == before
    mine = "SELECT run_id FROM backtest_runs WHERE strategy = 'dip'"
    assert len(column(workspace, mine)) == 3
    assert len(column(workspace, f"{mine} AND is_current")) == 1
