"""Binance's REST interface as a local HTTP server, with faults on demand.

It behaves as rest-api.md and errors.md of github.com/binance/binance-spot-api-docs say, and as
recorded answers show: klines by open time, the unfinished bar at the end, error bodies, request
weights, and what comes of breaking the limit.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd

MILLISECONDS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
INTERVALS = (
    *("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h"),
    *("1d", "3d", "1w", "1M"),
)
_GAPS = count(100, 37)
KNOWN = {"symbol", "interval", "startTime", "endTime", "timeZone", "limit"}
Row = list[Any]


class Refusal(Exception):
    """An answer with an error body."""

    def __init__(self, status: int, code: int, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after = retry_after


@dataclass
class FakeBinance:
    """A market and a clock, served at `url` while `serving` lasts.

    Attributes:
        bars: frames of open, high, low, close, volume by (symbol, interval), indexed by open time
            in milliseconds; may be changed at any time, as when bars are revised.
        now_ms: the exchange's clock.
        faults: called with the number of a klines request (from 0); what goes wrong with it.
        page_limit: klines in one answer, however many are asked for.
        weight_limit: request weight in a minute of the exchange's clock.
        seen: path and parameters of every request.
    """

    bars: Mapping[tuple[str, str], pd.DataFrame]
    now_ms: int
    faults: Callable[[int], str | None] = lambda number: None
    weight_limit: int = 6000
    page_limit: int = 1000
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    weight: int = 0
    banned_until_ms: int = 0
    _minute: int = 0
    _klines_seen: int = 0
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def serving(self) -> Iterator[FakeBinance]:
        """Answer on a free port of this machine while the block runs."""
        server = _Server(("127.0.0.1", 0), _Handler)
        server.exchange = self
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    @property
    def klines_asked(self) -> list[dict[str, str]]:
        return [params for path, params in self.seen if path == "/api/v3/klines"]

    def note(self, path: str, params: dict[str, str]) -> str | None:
        """Remember a request; the fault that it meets."""
        with self._lock:
            self.seen.append((path, params))
            if path != "/api/v3/klines":
                return None
            self._klines_seen += 1
            return self.faults(self._klines_seen - 1)

    def charge(self, weight: int) -> None:
        """Count a request's weight; refuse it beyond the limit, and ban who goes on."""
        with self._lock:
            minute = self.now_ms // 60_000
            if minute != self._minute:
                self._minute, self.weight = minute, 0
            self.weight += weight
            seconds = 60 - self.now_ms // 1000 % 60
            if self.now_ms < self.banned_until_ms or self.weight > 1.05 * self.weight_limit:
                self.banned_until_ms = self.banned_until_ms or self.now_ms + 120_000
                raise self.ban()
            if self.weight > self.weight_limit:
                raise self.too_many(seconds)

    def ban(self) -> Refusal:
        until = self.banned_until_ms or int(time.time() * 1000) + 120_000
        return Refusal(
            418,
            -1003,
            f"Way too much request weight used; IP banned until {until}. Please use WebSocket "
            "Streams for live updates to avoid bans.",
            retry_after=120,
        )

    def too_many(self, seconds: int) -> Refusal:
        return Refusal(
            429,
            -1003,
            f"Too much request weight used; current limit is {self.weight_limit} request weight "
            "per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API.",
            retry_after=seconds,
        )

    def answer(self, path: str, params: dict[str, str]) -> Any:
        """The body of an answer with status 200; raises Refusal."""
        if path == "/api/v3/time":
            self.charge(1)
            return {"serverTime": self.now_ms}
        if path == "/api/v3/exchangeInfo":
            self.charge(20)
            return self._exchange_info(params)
        if path == "/api/v3/klines":
            self.charge(2)
            return self._klines(params)
        raise Refusal(404, -1000, f"no {path}")

    def _exchange_info(self, params: dict[str, str]) -> Any:
        symbols = sorted({symbol for symbol, _ in self.bars})
        if "symbol" in params:
            self._require_symbol(params["symbol"])
            symbols = [params["symbol"]]
        limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1}
        return {
            "timezone": "UTC",
            "serverTime": self.now_ms,
            "rateLimits": [{**limit, "limit": self.weight_limit}],
            "symbols": [{"symbol": symbol, "status": "TRADING"} for symbol in symbols],
        }

    def _require_symbol(self, symbol: str) -> None:
        if not re.fullmatch(r"[^\Wa-z]{1,50}", symbol):
            raise _illegal("symbol", "^[\\w\\-._&&[^a-z]]{1,50}$")
        if symbol not in {known for known, _ in self.bars}:
            raise Refusal(400, -1121, "Invalid symbol.")

    def _klines(self, params: dict[str, str]) -> list[Row]:
        for name in ("symbol", "interval"):
            if not params.get(name):
                raise Refusal(
                    400,
                    -1102,
                    f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.",
                )
        if set(params) - KNOWN:
            raise Refusal(
                400,
                -1104,
                f"Not all sent parameters were read; read '{len(KNOWN & set(params))}' "
                f"parameter(s) but was sent '{len(params)}'.",
            )
        self._require_symbol(params["symbol"])
        if params["interval"] not in INTERVALS:
            raise Refusal(400, -1120, "Invalid interval.")
        for name in ("startTime", "endTime"):
            if name in params and not re.fullmatch(r"[0-9]{1,20}", params[name]):
                raise _illegal(name, "^[0-9]{1,20}$")
        limit = int(params.get("limit", "500"))
        if limit < 1:
            raise Refusal(400, -1130, "Data sent for parameter 'limit' is not valid.")
        bars = self.bars.get((params["symbol"], params["interval"]))
        if bars is None:
            return []
        opens = bars.index.to_numpy()
        first = np.searchsorted(opens, int(params.get("startTime", 0)))
        end = min(int(params.get("endTime", self.now_ms)), self.now_ms)
        last = np.searchsorted(opens, end, side="right")
        limit = min(limit, self.page_limit)
        if "startTime" not in params:
            first = max(first, last - limit)
        length = _length(params["interval"])
        chosen = bars.iloc[first : min(last, first + limit)]
        return [
            self._row(int(open_time), list(map(float, values)), length)
            for open_time, values in zip(chosen.index, chosen.to_numpy(), strict=True)
        ]

    def _row(self, open_time: int, values: list[float], length: int) -> Row:
        if open_time + length > self.now_ms:  # unfinished: a first trade, and little volume
            values = [values[0]] * 4 + [values[4] / 100]
        texts = [f"{value:.8f}" for value in values]
        close_time = open_time + length - 1
        return [open_time, *texts, close_time, "0.00000000", 7, "0.00000000", "0.00000000", "0"]


def _illegal(name: str, pattern: str) -> Refusal:
    message = f"Illegal characters found in parameter '{name}'; legal range is '{pattern}'."
    return Refusal(400, -1100, message)


def _length(interval: str) -> int:
    return int(interval[:-1]) * MILLISECONDS[interval[-1]]


class _Server(ThreadingHTTPServer):
    exchange: FakeBinance
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "nginx"
    sys_version = ""

    def do_GET(self) -> None:
        exchange = self.server.exchange  # pyright: ignore[reportAttributeAccessIssue]
        url = urlsplit(self.path)
        params = {name: values[-1] for name, values in parse_qs(url.query).items()}
        fault = exchange.note(url.path, params)
        try:
            answer = exchange.answer(url.path, params)
            if fault is None:
                self._send(200, json.dumps(answer).encode())
            else:
                FAULTS[fault](self, answer)
        except Refusal as refusal:
            self.refuse(refusal)

    def refuse(self, refusal: Refusal) -> None:
        body = json.dumps({"code": refusal.code, "msg": refusal.message}).encode()
        self._send(refusal.status, body, retry_after=refusal.retry_after)

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str = "application/json;charset=UTF-8",
        retry_after: int | None = None,
        length: int | None = None,
    ) -> None:
        exchange = self.server.exchange  # pyright: ignore[reportAttributeAccessIssue]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("x-mbx-uuid", str(uuid.uuid4()))
        self.send_header("x-mbx-used-weight", str(exchange.weight))
        self.send_header("x-mbx-used-weight-1m", str(exchange.weight))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Not on the console."""

    def too_many(self, answer: list[Row]) -> None:
        self.refuse(self.server.exchange.too_many(0))  # pyright: ignore[reportAttributeAccessIssue]

    def banned(self, answer: list[Row]) -> None:
        self.refuse(self.server.exchange.ban())  # pyright: ignore[reportAttributeAccessIssue]

    def broken(self, answer: list[Row]) -> None:
        self._send(502, b"<html><body>502 Bad Gateway</body></html>", "text/html")

    def overloaded(self, answer: list[Row]) -> None:
        self.refuse(
            Refusal(
                503,
                -1008,
                "Server is currently overloaded with other requests. Please try again in a few "
                "minutes.",
            )
        )

    def timed_out(self, answer: list[Row]) -> None:
        self.refuse(Refusal(400, -1007, "Timeout waiting for response from backend server."))

    def silent(self, answer: list[Row]) -> None:
        self.connection.recv(1)  # nothing more comes until the client hangs up
        self.close_connection = True

    def drip(self, answer: list[Row]) -> None:
        body = json.dumps(answer).encode()
        self._send(200, b"", length=len(body))
        for byte in body:
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def reset(self, answer: list[Row]) -> None:
        linger = struct.pack("ii", 1, 0)  # closing sends RST
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True

    def truncated(self, answer: list[Row]) -> None:
        body = json.dumps(answer).encode()
        self._send(200, body[: len(body) // 2], length=len(body))
        self.close_connection = True

    def cut_json(self, answer: list[Row]) -> None:
        body = json.dumps(answer).encode()
        self._send(200, body[: len(body) // 2])

    def html(self, answer: list[Row]) -> None:
        self._send(200, b"<html><body>Checking your browser</body></html>", "text/html")

    def duplicates(self, answer: list[Row]) -> None:
        self._send(200, json.dumps(answer + answer[-1:]).encode())

    def disorder(self, answer: list[Row]) -> None:
        self._send(200, json.dumps(answer[::-1]).encode())

    def gap(self, answer: list[Row]) -> None:
        left_out = next(_GAPS) % max(len(answer), 1)  # another one each time
        kept = [row for i, row in enumerate(answer) if i != left_out]
        self._send(200, json.dumps(kept).encode())

    def microseconds(self, answer: list[Row]) -> None:
        self._send(200, json.dumps([[row[0] * 1000, *row[1:]] for row in answer]).encode())

    def words(self, answer: list[Row]) -> None:
        self._send(200, json.dumps([[row[0], "n/a", *row[2:]] for row in answer]).encode())

    def not_a_number(self, answer: list[Row]) -> None:
        self._send(200, json.dumps([[*row[:4], "NaN", *row[5:]] for row in answer]).encode())


FAULTS: Mapping[str, Callable[[_Handler, list[Row]], None]] = {
    name: getattr(_Handler, name)
    for name in (
        *("too_many", "banned", "broken", "overloaded", "timed_out", "silent", "drip", "reset"),
        *("truncated", "cut_json", "html", "duplicates", "disorder", "gap", "microseconds"),
        *("words", "not_a_number"),
    )
}
"""What can go wrong with a page, by name."""

PASSING_FAULTS = tuple(name for name in FAULTS if name not in ("banned", "drip"))
"""Those after which the next attempt may succeed, without those that take long."""


def generated(
    interval: str, n: int, first_ms: int = 1_600_000_000_000, seed: int = 0
) -> pd.DataFrame:
    """`n` bars of a random walk on the grid of an interval, numbers of eight decimals."""
    length = _length(interval)
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, n))), 8)
    open_ = np.concatenate(([100.0], close[:-1]))
    frame = {
        "open": open_,
        "high": np.round(np.maximum(open_, close) * 1.01, 8),
        "low": np.round(np.minimum(open_, close) * 0.99, 8),
        "close": close,
        "volume": np.round(rng.uniform(1, 1000, n), 8),
    }
    first = first_ms // length * length
    return pd.DataFrame(frame, index=pd.Index(first + length * np.arange(n), name="open_time"))


def real(file: Path, symbol: str) -> pd.DataFrame:
    """The bars of one symbol of a Parquet file of open-stamped bars."""
    rows = pd.read_parquet(file, filters=[("symbol", "==", symbol)]).sort_values("ts")
    opens = rows["ts"].dt.tz_localize(None).to_numpy("M8[ms]").astype(np.int64)
    columns: Sequence[str] = ["open", "high", "low", "close", "volume"]
    return pd.DataFrame(rows[columns]).set_index(pd.Index(opens, name="open_time"))
