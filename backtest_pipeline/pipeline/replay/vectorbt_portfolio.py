"""A stored run as a `vectorbt.Portfolio`, on the bars that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from backtest_pipeline.market.errors import CannotReplay, InvalidInput
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.replay.recorded_rows import recorded_rows
from backtest_pipeline.pipeline.runs.query import run_summary
from backtest_pipeline.pipeline.versions import PLANNED
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.simulation.vectorbt_engine.portfolio_of_trades import portfolio_of_trades
from backtest_pipeline.storage.run_tables.recorded_runs import recorded_runs, stored_trades
from backtest_pipeline.storage.tables.datasets import input_key
from backtest_pipeline.strategies.cross_section.definition import KIND

_OF_SEVERAL = {PLANNED: "follows plans", KIND: "ranks a universe, so that it holds several assets"}
_NUMBERS = ("size", "entry_price", "exit_price", "fees", "funding")


def write_plot(workspace: Workspace, run_id: UUID, path: Path) -> Path:
    """Write vectorbt's plot of a stored run as one HTML file that needs nothing else.

    Raises:
        InvalidInput: where the file cannot be written; and as `vectorbt_portfolio` raises.
    """
    figure = vectorbt_portfolio(workspace, run_id).plot()
    name = run_summary(workspace, run_id).name
    title = {"text": f"{name}, run {run_id}", "x": 0.02, "y": 0.98}
    # The legend stands above the plots: the title needs room over it.
    figure.update_layout(title=title, margin={"t": 110}, autosize=True, width=None, height=900)
    try:
        figure.write_html(path, include_plotlyjs=True, default_width="100%")
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error
    return path


@retried
def vectorbt_portfolio(workspace: Workspace, run_id: UUID) -> Any:
    """The Portfolio of a stored run; see `portfolio_of_trades` for what its rows are.

    Raises:
        RunNotFound: where it is not stored.
        InvalidInput: for a run of a plan book or of a cross-section, or with leverage: vectorbt
            holds one asset, and no more than its cash buys.
        CannotReplay: where its bars are not stored any more.
        ConfigurationError: where vectorbt is missing or of another version.
    """
    run = run_summary(workspace, run_id)
    what = _OF_SEVERAL.get(run.split)
    if what is None and run.config["max_leverage"] > 1:
        what = "has max_leverage above 1"
    if what is not None:
        raise InvalidInput(
            f"run {run_id} {what}, which a Portfolio of vectorbt cannot show; choose another run, "
            "or see its equity in the report"
        )
    with workspace.database.begin() as connection:
        (recorded,) = recorded_runs(connection, [run_id])
        stored = stored_trades(connection, run_id)
    snapshots = {key: vars(one) for key, one in recorded.snapshots.items()}
    if input_key(Partition(run.symbol, run.timeframe)) not in snapshots:
        raise CannotReplay(
            f"run {run_id}: the bars that it was made from are not stored any more; run the "
            "backtest again, and load the new run"
        )
    panel = recorded_rows(
        workspace.artifacts, run.timeframe, run.symbol, snapshots, ("open", "close")
    )
    first, last = (
        int(np.datetime64(at.replace(tzinfo=None), "us").astype(np.int64))
        for at in (run.first_ts, run.last_ts)
    )
    trades = {name: np.array([t[name] for t in stored], np.float64) for name in _NUMBERS} | {
        "entry_ts": np.array([t["entry_ts"] for t in stored], np.int64),
        "exit_ts": np.array([t["exit_ts"] for t in stored], np.int64),
        "side": np.array([1 if t["direction"] == "long" else -1 for t in stored], np.int64),
        "is_open": np.array([t["is_open"] for t in stored], bool),
    }
    return portfolio_of_trades(
        panel.take((panel.ts >= first) & (panel.ts <= last)),
        trades,
        fee=run.config["costs"]["fee_bps"] / 1e4,
        initial_cash=run.config["initial_cash"],
    )
