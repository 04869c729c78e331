"""How many files of the package one backtest runs through: from Python, command line and service.

`python -m bench.files_entered` counts the files in which a function is called (importing a module
is no call) by `run_backtest` on bars in Python, by `backtest-pipeline run`, and by
`POST /backtest/run` in the service and in its worker; and lists those of the command line.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd

import backtest_pipeline
from bench.store import fresh_store

PACKAGE = Path(backtest_pipeline.__file__).parent
SPEC: dict[str, Any] = {
    "symbol": "S-ALPHA",
    "strategy": "ema_crossover",
    "params": {"fast": 9, "slow": 21},
}


def main() -> None:
    """Print the counts."""
    python = entered(_python)
    with fresh_store():
        command = entered(_command)
    with fresh_store():
        service = entered(_service)
    print(f"Python {len(python)}, command line {len(command)}, service {len(service)}")
    print(*sorted(command), sep="\n")


def entered(work: Callable[[], object]) -> set[str]:
    """The files of the package in which a function is called while `work` runs, in any thread."""
    with contextlib.redirect_stdout(io.StringIO()):
        work()  # imports and compiles
        with _calls() as found:
            work()
    return found


@contextmanager
def _calls() -> Iterator[set[str]]:
    found: set[str] = set()

    def listen(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>" and code.co_filename.startswith(_ROOT):
            found.add(code.co_filename.removeprefix(_ROOT))

    threading.setprofile(listen)
    sys.setprofile(listen)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # pyright: ignore[reportArgumentType]


_ROOT = f"{PACKAGE}/"


def _python() -> None:
    backtest_pipeline.run_backtest(_bars(), SPEC["strategy"], SPEC["params"])


@cache
def _bars() -> pd.DataFrame:
    return backtest_pipeline.load_bars(asset="S-ALPHA")


def _command() -> None:
    from backtest_pipeline.cli.main import app

    words = ["run", "--signal", "ema_9_21", "--asset", "S-ALPHA", "--full-rebuild", "--json"]
    app(words, standalone_mode=False)


def _service() -> None:
    from starlette.testclient import TestClient

    from backtest_pipeline.pipeline.pools.pool_process import begin
    from backtest_pipeline.service import pool_worker as worker
    from backtest_pipeline.service.app import build_app
    from backtest_pipeline.service.settings import load_service_settings
    from backtest_pipeline.storage.settings import load_settings

    fee = {"costs": {"fee_bps": 10 + len(_asked)}}
    _asked.append(fee)
    settings = load_settings()
    service = load_service_settings(optimizer_max_concurrency=1, service_auth="off")
    with TestClient(build_app(settings, service), base_url="http://localhost") as client:
        response = client.post("/backtest/run", json={**SPEC, **fee})
        assert response.status_code == 200, response.text
    begin(settings)
    spec = json.dumps({"kind": "run", **SPEC, **fee})
    worker.execute_json(worker.WorkerTask.EXECUTE, spec, "nobody", "1")


_asked: list[object] = []

if __name__ == "__main__":
    main()
