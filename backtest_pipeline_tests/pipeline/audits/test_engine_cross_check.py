"""The cross-check with vectorbt looks at what is up to date."""

from __future__ import annotations

from pathlib import Path

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.engine_cross_check import second_opinion
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline_tests.own_strategies import own_strategies, write
from backtest_pipeline_tests.pipeline.markets import refresh, until

ALPHA, MU = BOTH = [Partition("S-ALPHA", "1D"), Partition("S-MU", "1D")]


def test_partitions_that_wait_for_a_refresh_are_left_out(
    workspace: Workspace, tmp_path: Path
) -> None:
    refresh(workspace, until("2025-03-01"), BOTH)
    assert second_opinion(workspace, SimulationConfig()).partitions == 2
    write(tmp_path / "strategies", "dip.py")  # declares a preset, which all signals are to have
    with own_strategies(tmp_path / "strategies"):
        refresh(workspace, until("2025-03-01"), [MU])
        found = second_opinion(workspace, SimulationConfig())
    assert (found.partitions, found.disagreeing) == (1, ())
    assert found.runs > 3
