"""Which of data, code and configuration moved a result is found by swapping one at a time."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.replay.explain import Explanation, explain_runs
from backtest_pipeline.pipeline.runs.identity import RunTerms
from backtest_pipeline.pipeline.versions import run_code
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.strategies.registry import strategy_hash
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.pipeline.on_demand import backtest_once
from backtest_pipeline_tests.pipeline.replay.runs_of_one_asset import BARS, restated, run
from backtest_pipeline_tests.pipeline.versions import EMA, NO_LONGS, REWORDED, other_version
from backtest_pipeline_tests.sql import execute_sql

DEAR = SimulationConfig(CostModel(fee_bps=80, slippage_bps=20))
PLAIN = SimulationConfig()


def factor(found: Explanation, name: str) -> Any:
    return next(one for one in found.factors if one.name == name)


def test_data_and_costs_are_told_apart_and_what_they_do_together(workspace: Workspace) -> None:
    first = run(workspace, BARS, PLAIN)
    second = run(workspace, restated(BARS), DEAR)
    found = explain_runs(workspace, first["run_id"], second["run_id"])
    assert found.movers == ("data", "config")
    assert factor(found, "code").is_equal
    assert factor(found, "environment").is_equal
    assert found.remainder == ()
    data, config = factor(found, "data"), factor(found, "config")
    assert "1 bar restated, " in data.differences[0]
    assert any("2 bars removed" in line for line in data.differences)
    assert config.differences == (
        "costs.fee_bps: 10.0 -> 80.0",
        "costs.slippage_bps: 5.0 -> 20.0",
    )
    assert found.total.total_return == pytest.approx(
        second["total_return"] - first["total_return"], abs=1e-15
    )
    dearer = run(workspace, BARS, DEAR)  # A with the costs of B
    assert config.forward.total_return == dearer["total_return"] - first["total_return"]
    assert data.backward.total_return == second["total_return"] - dearer["total_return"]
    together = found.total.total_return - data.forward.total_return - config.forward.total_return
    assert found.interaction["total_return"] == pytest.approx(together, abs=1e-15)
    assert found.interacts
    assert config.forward.first_trade.startswith("trade 1, entered ")


def test_code_that_moves_a_result_is_told_from_code_that_does_not(workspace: Workspace) -> None:
    todays = run(workspace, BARS, PLAIN)["run_id"]
    changed = other_version(workspace.artifacts, NO_LONGS).run(workspace)
    found = explain_runs(workspace, todays, changed)
    declared, files = factor(found, "code").differences
    assert declared.startswith(f"ema_crossover {strategy_hash('ema_crossover')} -> ")
    assert files == f"changed {EMA}"
    assert factor(found, "data").is_equal
    assert factor(found, "config").is_equal
    assert found.movers == ("code",)
    assert found.total == factor(found, "code").forward
    assert found.remainder == ()

    reworded = other_version(workspace.artifacts, REWORDED)
    execute_sql(
        workspace,
        "UPDATE backtest_runs SET code_archive = :uri WHERE run_id = :run_id",
        uri=reworded.uri,
        run_id=todays,
    )
    same = explain_runs(workspace, todays, todays)
    assert same.movers == ()

    # Sources that declare the same versions are the same code, until their results say otherwise.
    execute_sql(
        workspace, "UPDATE backtest_runs SET code_version = :code", code=run_code("ema_crossover")
    )
    undeclared = explain_runs(workspace, todays, changed)
    assert factor(undeclared, "code").is_equal
    assert undeclared.remainder[0].startswith("the stored result of B differs")
    assert "an undeclared change of the code" in undeclared.remainder[1]
    execute_sql(workspace, "UPDATE backtest_runs SET code_archive = NULL")
    unknown = explain_runs(workspace, todays, changed)
    assert "the code cannot be swapped" in unknown.remainder[0]
    assert "the stored result of B differs" in unknown.remainder[1]


def test_a_run_differs_from_itself_in_nothing(workspace: Workspace) -> None:
    (run_id,) = {run(workspace, BARS, PLAIN)["run_id"] for _ in range(2)}
    found = explain_runs(workspace, run_id, run_id)
    assert found.movers == ()
    assert all(one.is_equal and one.forward is None for one in found.factors)
    assert not found.total.moved
    assert found.total.total_return == 0.0


def test_what_changes_no_trade_moves_nothing(workspace: Workspace) -> None:
    first = run(workspace, BARS, SimulationConfig(min_notional=1.0))
    second = run(workspace, BARS, SimulationConfig(min_notional=2.0))
    found = explain_runs(workspace, str(first["run_id"])[:8], second["run_id"])
    assert factor(found, "config").differences == ("min_notional: 1.0 -> 2.0",)
    assert found.movers == ()
    assert found.interaction == {}
    assert found.remainder == ()


def test_another_signal_on_another_asset_is_data_and_configuration(workspace: Workspace) -> None:
    both = daily_panel({"A": 250, "B": 200}, seed=11)
    first = run(workspace, both, PLAIN)
    second = run(workspace, both, PLAIN, asset="B", signal="rsi_14_30_70")
    found = explain_runs(workspace, first["run_id"], second["run_id"])
    assert factor(found, "data").differences == ("different bars: A|1D -> B|1D",)
    assert any(line.startswith("strategy: ") for line in factor(found, "config").differences)
    assert set(found.movers) == {"data", "config"}


def test_another_environment_is_named_as_what_cannot_be_swapped(workspace: Workspace) -> None:
    first = run(workspace, BARS, PLAIN)
    second = run(workspace, BARS, DEAR)
    with workspace.database.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO environments SELECT 'older', python, machine,"
                ' versions || \'{"numba": "0.1"}\' FROM environments'
            )
        )
        connection.execute(
            sa.text(
                "UPDATE backtest_runs SET environment_hash = 'older', engine_version = 'numba.0.1',"
                " result_fingerprint = 'x' WHERE run_id = :id"
            ),
            {"id": first["run_id"]},
        )
    found = explain_runs(workspace, first["run_id"], second["run_id"])
    environment = factor(found, "environment")
    assert not environment.is_equal
    assert any(line.startswith("numba 0.1 -> ") for line in environment.differences)
    assert found.remainder[0].startswith("the stored result of A differs")
    assert "cannot be swapped here" in found.remainder[-1]


def test_daily_marks_are_told_as_data(workspace: Workspace) -> None:
    source = StaticSource({"1D": BARS})
    weekly: dict[str, Any] = {
        "signal": "ema_9_21",
        "asset": "A",
        "tf": "1W",
        "terms": RunTerms(PLAIN),
    }
    of_bars = backtest_once(workspace, source, **weekly)["run_id"]
    refresh(workspace, source, [Partition("A", "1D")])
    of_days = backtest_once(workspace, source, **weekly)["run_id"]
    found = explain_runs(workspace, of_bars, of_days)
    assert factor(found, "data").differences == ("A|1D marks only one of the runs",)
    assert found.movers == ("data",)
    assert found.total.total_return == 0.0
    assert found.total.sharpe != 0.0
    assert found.remainder == ()
    lower = BARS["close"].copy()
    row = next(i for i in range(200, 207) if BARS.ts[i] // DAY_US % 7 == 5)  # a Tuesday
    lower[row] = BARS["low"][row]
    changed = StaticSource({"1D": BARS.with_columns({"close": lower})})
    third = backtest_once(workspace, changed, **weekly)["run_id"]
    (line,) = factor(explain_runs(workspace, of_days, third), "data").differences
    assert line.startswith("A|1D: 1 bar restated, ")
