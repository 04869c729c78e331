"""Binance over HTTP: what is worth another try, how long to wait, and when to stop asking.

Source of limits and errors: rest-api.md and errors.md of
github.com/binance/binance-spot-api-docs.
"""

from __future__ import annotations

import json
import re
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar

import httpx2
import pyarrow as pa
import tenacity

from backtest_pipeline.market.errors import BarsError, SourceUnavailable, UnknownName
from backtest_pipeline.market.symbols import key_of, symbol_keys
from backtest_pipeline.market.timeframes import Timeframe
from backtest_pipeline.sources.binance.klines import PAGE, BadAnswer, interval_of, parse_page
from backtest_pipeline.sources.spans import Span

PUBLIC_URL = "https://api.binance.com"
MARKET_DATA_URL = "https://data-api.binance.vision"

_T = TypeVar("_T")
_LARGEST_ANSWER = 64 * 2**20  # all symbols of the exchange are 15 MB
_BANNED_UNTIL = re.compile(r"banned until (\d{13})")
# -1000 unknown, -1001 disconnected, -1006 and -1007 no answer in time, -1008 overloaded,
# -1016 shutting down: of the moment, whatever the status says.
_PASSING = {-1000, -1001, -1006, -1007, -1008, -1016}
_INVALID_SYMBOL, _ILLEGAL_CHARACTERS = -1121, -1100


@dataclass(frozen=True)
class RequestRetry:
    """How long one question is asked.

    Attributes:
        attempts: at most so many times.
        seconds: no further attempt begins after so long; a longer `Retry-After` ends it at once.
        silence_s: seconds that the exchange may be silent for in the middle of an answer.
        answer_s: seconds that one answer may take as a whole.
        first_wait_s, longest_wait_s: between attempts; doubled each time, with jitter.
        weight: request weight in a minute beyond which we wait for the next one. The exchange
            allows 6,000; the rest is left to other programs of the same address.
    """

    attempts: int = 5
    seconds: float = 120.0
    silence_s: float = 10.0
    answer_s: float = 30.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    weight: int = 4800


class _Again(Exception):
    """No answer that can be used; `wait_s` is what the exchange asks us to wait, if it does."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _RetryAfter(tenacity.wait.wait_base):
    """As long as the exchange asks us to wait, or else twice as long each time."""

    def __init__(self, retry: RequestRetry) -> None:
        self._usual = tenacity.wait_exponential_jitter(
            multiplier=retry.first_wait_s,
            max=retry.longest_wait_s,
            jitter=retry.first_wait_s,
        )

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        error = retry_state.outcome and retry_state.outcome.exception()
        if isinstance(error, _Again) and error.wait_s is not None:
            return error.wait_s
        return self._usual(retry_state)


class BinanceClient:
    """Questions to one address of the exchange; any number of threads may ask at once."""

    def __init__(
        self,
        url: str = PUBLIC_URL,
        retry: RequestRetry | None = None,
        wait: Callable[[float], None] = tenacity.nap.sleep,
    ) -> None:
        """Nothing is asked yet.

        Args:
            url: base address.
            retry: how long one question is asked.
            wait: called with the seconds to wait for another attempt, or for the request weight
                of the next minute.
        """
        self.url = url.rstrip("/")
        self._retry = retry or RequestRetry()
        self._wait = wait
        self._banned_until = 0.0
        self._rest_until = 0.0
        self._by_key: dict[str, str] = {}

    def now_us(self) -> int:
        """The exchange's clock: which bars are finished is its to say."""
        return (
            self._ask("/api/v3/time", {}, lambda answer: _field(answer, "serverTime", int)) * 1000
        )

    def symbols(self) -> tuple[str, ...]:
        """All symbols of the spot market, also those that are no longer traded, sorted."""
        answer = self._ask(
            "/api/v3/exchangeInfo",
            {"showPermissionSets": "false"},
            lambda found: [_field(s, "symbol", str) for s in _field(found, "symbols", list)],
        )
        return tuple(sorted(answer))

    def _as_listed(self, key: str) -> str:
        """The symbol that has a key; the exchange's list is asked only for one that is mapped."""
        chosen = next((symbol for symbol, own in symbol_keys().items() if own == key), None)
        if chosen is not None:
            return chosen
        if not re.search(r"-[0-9a-f]{8}$", key):
            return key
        if not self._by_key:
            self._by_key = {key_of(symbol): symbol for symbol in self.symbols()}
        return self._by_key.get(key, key)

    def require_listed(self, symbol: str) -> None:
        """Raises UnknownName, with the nearest symbols, where the exchange has no such symbol."""
        params = {"symbol": self._as_listed(symbol), "showPermissionSets": "false"}
        self._ask("/api/v3/exchangeInfo", params, lambda answer: _field(answer, "symbols", list))

    def klines(self, symbol: str, timeframe: Timeframe, span: Span) -> pa.Table:
        """The first bars, at most `PAGE`, that begin in a span (microseconds).

        Raises:
            UnknownName: where the exchange has no such symbol.
            SourceUnavailable: where it gives no usable answer in time.
        """
        params = {
            "symbol": self._as_listed(symbol),
            "interval": interval_of(timeframe),
            "startTime": str(-(-span.start // 1000)),
            "endTime": str((span.end - 1) // 1000),
            "limit": str(PAGE),
        }
        return self._ask("/api/v3/klines", params, lambda answer: parse_page(answer, span))

    @cached_property
    def _http(self) -> httpx2.Client:
        http = httpx2.Client(base_url=self.url, timeout=httpx2.Timeout(self._retry.silence_s))
        weakref.finalize(self, http.close)
        return http

    def _ask(self, path: str, params: dict[str, str], read: Callable[[Any], _T]) -> _T:
        """One question, asked until its answer can be read or the retries end."""
        retry, begin = self._retry, time.monotonic()

        def once() -> _T:
            try:
                return read(self._answer(path, params))
            except BadAnswer as error:
                raise _Again(str(error)) from error

        def is_worth_it(error: BaseException) -> bool:
            if not isinstance(error, _Again):
                return False
            left = retry.seconds - (time.monotonic() - begin)
            return error.wait_s is None or error.wait_s < left

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_worth_it),
            stop=tenacity.stop_after_attempt(retry.attempts)
            | tenacity.stop_after_delay(retry.seconds),
            wait=_RetryAfter(retry),
            sleep=self._wait,
            reraise=True,
        )
        try:
            return attempts(once)
        except _Again as error:
            raise SourceUnavailable(self._in_vain(error)) from error

    def _in_vain(self, error: _Again) -> str:
        if error.wait_s:
            until = _clock(time.time() + error.wait_s)
            return f"binance at {self.url} asks to wait until {until} ({error}); try again then"
        return (
            f"binance cannot be used at {self.url} ({error}); check the network, or the proxy in "
            f"HTTPS_PROXY, or set BACKTEST_BINANCE_URL to another address, such as "
            f"{MARKET_DATA_URL}; `backtest-pipeline bars list` shows what is cached"
        )

    def _answer(self, path: str, params: dict[str, str]) -> Any:
        """The decoded JSON of one answer with status 200."""
        if time.time() < self._banned_until:
            raise SourceUnavailable(self._ban())
        if time.monotonic() < self._rest_until:
            self._wait(self._rest_until - time.monotonic())
        try:
            with self._http.stream("GET", path, params=params) as response:
                self._mind_the_weight(response)
                body = self._body(response)
        except httpx2.TransportError as error:
            raise _Again(f"{type(error).__name__}: {error}") from error
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if response.status_code == httpx2.codes.OK:
            if answer is None:
                raise _Again("the answer is no JSON")
            return answer
        return self._refused(response, answer, params)

    def _body(self, response: httpx2.Response) -> bytes:
        """The whole body, or _Again where it drips or never ends."""
        deadline = time.monotonic() + self._retry.answer_s
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if time.monotonic() > deadline:
                raise _Again(f"the answer was not complete after {self._retry.answer_s:g} s")
            if len(body) > _LARGEST_ANSWER:
                raise _Again(f"the answer is larger than {_LARGEST_ANSWER:,} bytes")
        return bytes(body)

    def _mind_the_weight(self, response: httpx2.Response) -> None:
        """Rest until the next minute where this one's weight is nearly used up."""
        used = response.headers.get("x-mbx-used-weight-1m", "")
        if used.isdigit() and int(used) >= self._retry.weight:
            self._rest_until = time.monotonic() + 60 - time.time() % 60

    def _refused(self, response: httpx2.Response, answer: Any, params: dict[str, str]) -> Any:
        """Raises what an answer with another status than 200 means."""
        status = response.status_code
        known = answer if isinstance(answer, dict) else {}
        code, message = known.get("code"), str(known.get("msg", "")).strip()
        reason = f"status {status}" + (f": {message}" if message else "")
        asked_to_wait = response.headers.get("retry-after", "")
        wait_s = float(asked_to_wait) if asked_to_wait.isdigit() else None
        if status == 418:
            told = _BANNED_UNTIL.search(message)
            until = int(told[1]) / 1000 if told else time.time() + (wait_s or 120)
            self._banned_until = until
            raise SourceUnavailable(self._ban())
        if status == 429 or (status >= 500 and wait_s is not None):
            raise _Again(reason, wait_s)
        if status == 451:
            raise SourceUnavailable(
                f"binance refuses this location at {self.url}; set BACKTEST_BINANCE_URL to an "
                f"address that serves it, such as {MARKET_DATA_URL} or https://api.binance.us"
            )
        if code == _INVALID_SYMBOL or (code == _ILLEGAL_CHARACTERS and "'symbol'" in message):
            raise UnknownName("symbol of binance", params["symbol"], self.symbols())
        if status >= 500 or status == 403 or code is None or code in _PASSING:
            raise _Again(reason)
        raise BarsError(f"binance refuses {params} ({reason}, code {code})")

    def _ban(self) -> str:
        return (
            f"binance has banned this address until {_clock(self._banned_until)} for asking too "
            "much; ask nothing before then, also with other programs, or the ban grows"
        )


def _field(answer: Any, name: str, kind: type[_T]) -> _T:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind):
        raise BadAnswer(f"the answer has no {name}")
    return value


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
