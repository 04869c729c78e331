"""A run that is cancelled in the UI ends what its workers do, and leaves none of them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.storage.postgres.database import open_database
from backtest_pipeline.storage.postgres.embedded import embedded_server
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.running_up import CODE_SERVER, arguments, running_up
from backtest_pipeline_tests.waiting import LIMIT_S, gate_after


@pytest.mark.chaos
def test_a_cancelled_run_leaves_no_worker_process(open_folder: Path) -> None:
    symbols = SampleMarket().symbols()
    pool = {"BACKTEST_POOL": "processes", "BACKTEST_POOL_WORKERS": "2"}
    folder = open_folder / "cancelled"
    folder.mkdir()
    with running_up(folder, pool) as up:
        database = open_database(load_settings(run_store_mode="embedded", home=up.home))
        with gate_after(database, "cmc_features", 0) as gate:
            run_id = up.launch_refresh(f"{symbols[0]}|1D", f"{symbols[-1]}|3D")
            gate.hold_up(2)
            family = [
                process
                for run in up.child(CODE_SERVER).children()
                if "resource_tracker" not in arguments(run)  # stays with the code server
                for process in (run, *run.children(recursive=True))
            ]
            assert sum("forkserver" in arguments(process) for process in family) == 3
            up.terminate(run_id)
            gate.be_left()
            up.wait_for(run_id, "CANCELED")
            _, alive = psutil.wait_procs(family, timeout=LIMIT_S)
            assert not alive
        database.close()
        embedded_server(up.home).release()
