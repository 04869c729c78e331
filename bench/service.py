"""The HTTP service under `wrk`: each kind of spec, new and repeated."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.harness import Report, Table
from bench.store import fresh_store

_SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
_SCRIPT = Path(__file__).with_name("service.lua")
_STRATEGY = {"strategy": "ema_crossover", "timeframe": "1D"}
_ONE = {**_STRATEGY, "symbol": "AAA"}
_GRID = {"fast": [*range(3, 28)], "slow": [*range(30, 130, 5)]}
_QUESTIONS: dict[str, tuple[dict[str, Any], float]] = {
    "run": ({**_ONE, "params": {"fast": 9, "slow": 21}}, 0.1),
    "walkforward": ({**_ONE, "params": {"fast": [5, 9, 15], "slow": [21, 50, 100]}}, 3),
    "portfolio": ({**_STRATEGY, "symbols": _SYMBOLS, "params": {"fast": 9, "slow": 21}}, 3),
    "optimize": ({**_ONE, "params": _GRID}, 5),
}
_COLUMNS = ["question", "clients", "answers", "failed", "a second", "P50 ms", "P95 ms", "goal ms"]


def run(*, quick: bool) -> Report:
    """Measure a server with as many workers as cores; a few bars for a quick run."""
    n_bars, seconds, crowds = (900, 1, (1,)) if quick else (5000, 10, (1, 8))
    kinds = ["run"] if quick else list(_QUESTIONS)
    about = (
        f"`backtest-pipeline serve` on an embedded store, {len(_SYMBOLS)} assets of {n_bars:,} "
        f"daily bars in Parquet; `wrk` on the same machine, {seconds} s for each row. A new "
        "question has costs that none before it had, so that it is computed, published and weighed "
        "against all that was tried; a repeated one finds its result stored. An optimize tries "
        f"{len(_GRID['fast']) * len(_GRID['slow'])} combinations."
    )
    if shutil.which("wrk") is None:
        return Report("The HTTP service", f"{about} Not measured: there is no `wrk` here.")
    with fresh_store() as settings:
        _write_bars(settings.home / "bars", n_bars)
        with _serving(settings.home) as url:
            for kind in kinds:  # features are stored once
                question, _ = _QUESTIONS[kind]
                httpx2.post(f"{url}/backtest/{kind}", json=question, timeout=120).raise_for_status()
            rows = [
                _measured(url, kind, new, clients, seconds)
                for kind in kinds
                for new in (True, False)
                for clients in crowds
            ]
            with _all_workers_computing(url, seconds):
                busy = _row(url, "run", False, 1, seconds)
    rows.append(["run, repeated, all workers computing", *busy[1:-1], "-"])
    return Report("The HTTP service", about, [Table("Answers", _COLUMNS, rows)])


def _measured(url: str, kind: str, new: bool, clients: int, seconds: int) -> list[Any]:
    while "backtest_pool_busy 0.0" not in httpx2.get(f"{url}/metrics").text:
        time.sleep(0.1)  # the last requests of the previous row are still running
    return _row(url, kind, new, clients, seconds)


@contextmanager
def _all_workers_computing(url: str, seconds: int) -> Iterator[None]:
    """Eight clients with new grids, for longer than the row inside takes.

    On another asset: each of their trials counts for the runs of the same one, which have to be
    weighed again then.
    """
    with ThreadPoolExecutor(1) as crowd:
        row = crowd.submit(_row, url, "optimize", True, 8, 2 * seconds, "BBB")
        while "backtest_pool_busy 0.0" in httpx2.get(f"{url}/metrics").text:
            time.sleep(0.05)
        yield
        row.result()


def _row(url: str, kind: str, new: bool, clients: int, seconds: int, symbol: str = "") -> list[Any]:
    question, goal_s = _QUESTIONS[kind]
    asked = {**question, "symbol": symbol} if symbol else question
    body = json.dumps({**asked, "costs": {"fee_bps": "{n}" if new else 10}})
    # One thread of wrk counts its own questions; each row begins where none has been.
    start = time.time_ns() // 1_000_000 % 900_000
    output = subprocess.run(
        [
            *("wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "120s"),
            *("-s", str(_SCRIPT), url, "--", f"/backtest/{kind}"),
            *(body.replace('"{n}"', "{n}"), str(start)),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (result,) = [line for line in output.splitlines() if line.startswith("RESULT ")]
    answers, failed, took_us, p50_us, p95_us, _ = map(int, result.split()[1:])
    name = f"{kind}, {'new' if new else 'repeated'}"
    rate = answers / took_us * 1e6
    goal: int | str = int(1e3 * goal_s) if clients == 1 else "-"
    return [name, clients, answers, failed, rate, p50_us / 1e3, p95_us / 1e3, goal]


def _write_bars(folder: Path, n_bars: int) -> None:
    folder.mkdir()
    ts = pa.array(np.datetime64("2010-01-01", "us") + np.arange(n_bars) * np.timedelta64(1, "D"))
    for seed, symbol in enumerate(_SYMBOLS):
        close = 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(3e-4, 0.02, n_bars)))
        opened = np.append(100.0, close[:-1])
        columns = {
            "ts": ts.cast(pa.timestamp("us", "UTC")),
            "open": opened,
            "high": np.maximum(opened, close) * 1.005,
            "low": np.minimum(opened, close) * 0.995,
            "close": close,
            "volume": np.full(n_bars, 1e6),
        }
        pq.write_table(pa.table(columns), folder / f"{symbol}.parquet")


@contextmanager
def _serving(home: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "BACKTEST_BARS": str(home / "bars"),
        "BACKTEST_TIMEFRAMES": "1D",
        "BACKTEST_SERVICE_RATE_PER_MINUTE": "1000000",
    }
    command = (sys.executable, "-m", "backtest_pipeline.cli.main", "serve", "--no-auth")
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=environment, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while not _is_ready(url):
            if process.poll() is not None:
                raise RuntimeError((home / "serve.log").read_text())
            time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False
