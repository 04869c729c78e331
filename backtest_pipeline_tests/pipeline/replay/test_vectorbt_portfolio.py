"""A stored run as a Portfolio of vectorbt, and its plot as a file."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from backtest_pipeline.market.errors import CannotReplay, InvalidInput, RunNotFound
from backtest_pipeline.pipeline.replay.vectorbt_portfolio import vectorbt_portfolio, write_plot
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.run_tables.runs import current_runs
from backtest_pipeline_tests.sql import execute_sql


def test_every_run_of_a_refresh_has_the_return_that_is_stored(refreshed: Workspace) -> None:
    with refreshed.database.begin() as connection:
        runs = current_runs(connection)
    assert len(runs) > 50
    for run in runs:
        portfolio = vectorbt_portfolio(refreshed, run["run_id"])
        assert portfolio.total_return() == pytest.approx(run["total_return"], abs=1e-9)
        assert portfolio.wrapper.columns.tolist() == [run["symbol"]]
    one = next(run for run in runs if run["tf"] == "1D" and run["trade_count"] > 3)
    portfolio = vectorbt_portfolio(refreshed, one["run_id"])
    assert portfolio.max_drawdown() == pytest.approx(one["max_drawdown"], rel=0.05)
    assert np.isfinite(portfolio.sharpe_ratio())


def test_the_plot_is_one_file_that_needs_nothing_else(refreshed: Workspace, tmp_path: Path) -> None:
    with refreshed.database.begin() as connection:
        run = next(r for r in current_runs(connection) if r["tf"] == "1D" and r["trade_count"] > 3)
    page = write_plot(refreshed, run["run_id"], tmp_path / "run.html").read_text()
    assert f"{run['signal_name']} on {run['symbol']}|1D, run {run['run_id']}" in page
    assert "Plotly.newPlot" in page
    assert '<script src="http' not in page
    with pytest.raises(InvalidInput, match=r"cannot write .*no/run\.html"):
        write_plot(refreshed, run["run_id"], tmp_path / "no/run.html")


def test_runs_that_vectorbt_cannot_show_are_named(refreshed: Workspace) -> None:
    with pytest.raises(RunNotFound):
        vectorbt_portfolio(refreshed, uuid4())
    with refreshed.database.begin() as connection:
        run_id = current_runs(connection)[0]["run_id"]
    execute_sql(
        refreshed,
        "UPDATE backtest_runs SET config = config || '{\"max_leverage\": 2.0}'",
    )
    with pytest.raises(InvalidInput, match="max_leverage above 1"):
        vectorbt_portfolio(refreshed, run_id)
    execute_sql(refreshed, "UPDATE backtest_runs SET config = config || '{\"max_leverage\": 1.0}'")
    execute_sql(refreshed, "DELETE FROM dataset_snapshots")
    with pytest.raises(CannotReplay, match="bars that it was made from are not stored"):
        vectorbt_portfolio(refreshed, run_id)
