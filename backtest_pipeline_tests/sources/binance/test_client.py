"""Questions to a Binance that refuses, falters and talks nonsense."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from backtest_pipeline.market.errors import BarsError, SourceUnavailable, UnknownName
from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.sources.binance.client import BinanceClient, RequestRetry
from backtest_pipeline.sources.binance.klines import BadAnswer, parse_page, timeframe_of
from backtest_pipeline.sources.cache import open_times
from backtest_pipeline.sources.spans import Span
from backtest_pipeline_tests.sources.fake_binance import (
    PASSING_FAULTS,
    FakeBinance,
    Refusal,
    generated,
)

BARS = generated("1h", 40)
FIRST, LAST = int(BARS.index[0]) * 1000, int(BARS.index[-1]) * 1000
HOUR = timeframe("1H")
EVERYTHING = Span(0, LAST)
BRISK = RequestRetry(attempts=4, first_wait_s=0.001, silence_s=60, answer_s=60)


@pytest.fixture
def exchange() -> Iterator[FakeBinance]:
    market = {("BTCUSDT", "1h"): BARS, ("ETHUSDT", "1h"): BARS, ("BTCUSDC", "1h"): BARS}
    now_ms = int(BARS.index[-1]) + 60_000
    with FakeBinance(market, now_ms).serving() as serving:
        yield serving


def retries(fault: str) -> RequestRetry:
    """As `BRISK`, but an exchange that is silent for good is not waited for."""
    return replace(BRISK, silence_s=1.0) if fault == "silent" else BRISK


def test_a_symbol_that_cannot_be_a_key_is_asked_for_as_the_exchange_writes_it() -> None:
    market = {("BTCUSDT", "1h"): BARS, ("币安人生USDT", "1h"): BARS}
    with FakeBinance(market, int(BARS.index[-1]) + 60_000).serving() as exchange:
        client = BinanceClient(exchange.url)
        client.require_listed(key_of("币安人生USDT"))
        assert len(client.klines(key_of("币安人生USDT"), HOUR, EVERYTHING)) == len(BARS) - 1
        assert {asked["symbol"] for asked in exchange.klines_asked} == {"币安人生USDT"}
        with pytest.raises(UnknownName):
            client.require_listed(key_of("币安USDT"))


def asked(exchange: FakeBinance) -> int:
    return len(exchange.klines_asked)


def test_a_page_has_the_numbers_of_the_exchange_to_the_last_digit(exchange: FakeBinance) -> None:
    page = BinanceClient(exchange.url).klines("BTCUSDT", HOUR, EVERYTHING)
    assert (open_times(page) // 1000).tolist() == BARS.index.tolist()[:-1]
    for name in BARS.columns:
        assert page[name].to_pylist() == BARS[name].tolist()[:-1]
    assert exchange.klines_asked == [
        {
            "symbol": "BTCUSDT",
            "interval": "1h",
            "startTime": "0",
            "endTime": str(LAST // 1000 - 1),
            "limit": "1000",
        }
    ]


@pytest.mark.parametrize("fault", sorted(set(PASSING_FAULTS) - {"gap"}))
def test_a_fault_that_passes_costs_an_attempt_and_nothing_else(
    exchange: FakeBinance, fault: str
) -> None:
    sound = BinanceClient(exchange.url).klines("BTCUSDT", HOUR, EVERYTHING)
    exchange.faults = lambda number: fault if number < 3 else None
    client = BinanceClient(exchange.url, retries(fault))
    assert client.klines("BTCUSDT", HOUR, EVERYTHING).equals(sound)
    assert asked(exchange) == 4


@pytest.mark.parametrize("fault", sorted(set(PASSING_FAULTS) - {"gap", "too_many"}))
def test_a_fault_that_stays_ends_with_what_to_do(exchange: FakeBinance, fault: str) -> None:
    exchange.faults = lambda number: fault
    with pytest.raises(SourceUnavailable, match="check the network, or the proxy") as caught:
        BinanceClient(exchange.url, retries(fault)).klines("BTCUSDT", HOUR, EVERYTHING)
    assert asked(exchange) == 4
    assert exchange.url in str(caught.value)
    assert "set BACKTEST_BINANCE_URL" in str(caught.value)


def test_retry_after_is_obeyed(exchange: FakeBinance, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = iter([exchange.too_many(1)])

    def refuse_once(weight: int) -> None:
        for refusal in refusals:
            raise refusal

    monkeypatch.setattr(exchange, "charge", refuse_once)
    begin = time.monotonic()
    BinanceClient(exchange.url, BRISK).klines("BTCUSDT", HOUR, EVERYTHING)
    assert time.monotonic() - begin >= 1.0
    assert asked(exchange) == 2


def test_a_retry_after_beyond_the_retries_is_told_and_not_waited_for(
    exchange: FakeBinance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(weight: int) -> None:
        raise exchange.too_many(600)

    monkeypatch.setattr(exchange, "charge", refuse)
    with pytest.raises(SourceUnavailable, match=r"asks to wait until 20.* UTC .*try again then"):
        BinanceClient(exchange.url, BRISK).klines("BTCUSDT", HOUR, EVERYTHING)
    assert asked(exchange) == 1


def test_after_a_ban_nothing_more_is_asked(exchange: FakeBinance) -> None:
    exchange.faults = lambda number: "banned"
    client = BinanceClient(exchange.url, BRISK)
    for _ in range(3):
        with pytest.raises(SourceUnavailable, match=r"banned this address until 20.* UTC"):
            client.klines("BTCUSDT", HOUR, EVERYTHING)
    assert asked(exchange) == 1


def test_the_weight_of_a_minute_is_never_used_up(exchange: FakeBinance) -> None:
    exchange.weight_limit = 40
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        exchange.now_ms += 60_000

    client = BinanceClient(exchange.url, RequestRetry(attempts=1, weight=32), wait)
    for _ in range(100):
        client.klines("BTCUSDT", HOUR, EVERYTHING)
    assert waits
    assert all(0 < seconds <= 60 for seconds in waits)
    assert asked(exchange) == 100


def test_an_unknown_symbol_is_told_with_the_nearest_ones(exchange: FakeBinance) -> None:
    client = BinanceClient(exchange.url, BRISK)
    with pytest.raises(UnknownName, match=r"symbol of binance 'BTCUSTD'; did you mean BTCUSDT"):
        client.klines("BTCUSTD", HOUR, EVERYTHING)
    with pytest.raises(UnknownName, match=r"'btcusdt'; did you mean BTCUSDT"):
        client.require_listed("btcusdt")
    client.require_listed("ETHUSDT")
    assert client.symbols() == ("BTCUSDC", "BTCUSDT", "ETHUSDT")


def test_a_refused_location_and_a_refused_question_are_told_at_once(
    exchange: FakeBinance, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Refusal(451, 0, "Service unavailable from a restricted location.")

    def refuse(weight: int) -> None:
        raise refusal

    monkeypatch.setattr(exchange, "charge", refuse)
    client = BinanceClient(exchange.url, BRISK)
    with pytest.raises(SourceUnavailable, match=r"refuses this location .*BACKTEST_BINANCE_URL"):
        client.now_us()
    refusal = Refusal(400, -1130, "Data sent for parameter 'limit' is not valid.")
    with pytest.raises(BarsError, match=r"refuses .*'limit' is not valid"):
        client.klines("BTCUSDT", HOUR, EVERYTHING)
    assert len(exchange.seen) == 2


def test_an_address_where_nobody_answers_is_told_with_what_to_do() -> None:
    client = BinanceClient("http://127.0.0.1:9", BRISK)
    with pytest.raises(SourceUnavailable, match=r"ConnectError.*BACKTEST_BINANCE_URL.*bars list"):
        client.now_us()


def test_an_answer_that_drips_has_a_deadline(exchange: FakeBinance) -> None:
    slow = RequestRetry(attempts=1, silence_s=60, answer_s=0.5)
    exchange.faults = lambda number: "drip"
    begin = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"not complete after 0\.5 s"):
        BinanceClient(exchange.url, slow).klines("BTCUSDT", HOUR, EVERYTHING)
    assert time.monotonic() - begin < 60, "it is not read to its end, which takes minutes"


def test_waits_between_attempts_grow(exchange: FakeBinance) -> None:
    exchange.faults = lambda number: "broken"
    told: list[float] = []
    retry = RequestRetry(attempts=5, first_wait_s=0.02)
    with pytest.raises(SourceUnavailable):
        BinanceClient(exchange.url, retry, told.append).klines("BTCUSDT", HOUR, EVERYTHING)
    assert len(told) == 4
    for n, wait_s in enumerate(told):
        assert 0.02 * 2**n <= wait_s <= 0.02 * 2**n + 0.021


def test_many_threads_may_ask_at_once(exchange: FakeBinance) -> None:
    client, pages = BinanceClient(exchange.url), []
    threads = [
        threading.Thread(target=lambda: pages.append(client.klines("BTCUSDT", HOUR, EVERYTHING)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pages) == 8
    assert all(page.equals(pages[0]) for page in pages)


KLINE = [3_600_000, "1", "2", "0.5", "1.5", "10", 7_199_999, "0", 1, "0", "0", "83431971.04"]


def test_a_kline_is_its_open_time_and_five_numbers() -> None:
    (row,) = parse_page([KLINE], Span(0, 2 * 3_600_000_000)).to_pylist()
    assert row == {
        "open_time": 3_600_000_000,
        "open": 1.0,
        "high": 2.0,
        "low": 0.5,
        "close": 1.5,
        "volume": 10.0,
    }
    assert len(parse_page([], Span(0, 1))) == 0


@pytest.mark.parametrize(
    "answer",
    [
        {"code": 0},
        "text",
        None,
        [None],
        [[]],
        [KLINE[:6]],
        [[3_600_000.0, *KLINE[1:]]],
        [["3600000", *KLINE[1:]]],
        [[True, *KLINE[1:]]],
        [[3_600_000, None, *KLINE[2:]]],
        [[3_600_000, "1e999", *KLINE[2:]]],
        [[3_600_000, "-inf", *KLINE[2:]]],
        [[3_600, *KLINE[1:]], KLINE],
        [[10**30, *KLINE[1:]]],
        [KLINE, KLINE],
        [KLINE] * 1001,
    ],
)
def test_what_is_no_page_of_klines_is_never_taken_for_one(answer: object) -> None:
    with pytest.raises(BadAnswer):
        parse_page(answer, Span(3_600_000_000, 3 * 3_600_000_000))


def test_intervals_are_spelled_as_there_or_as_here() -> None:
    assert timeframe_of("1h") == timeframe_of("1H") == timeframe("1H")
    assert timeframe_of("1m") == timeframe("1m")
    with pytest.raises(UnknownName, match="unknown interval '1hr'; did you mean 1h"):
        timeframe_of("1hr")
    with pytest.raises(UnknownName, match="unknown interval '1M'"):
        timeframe_of("1M")
