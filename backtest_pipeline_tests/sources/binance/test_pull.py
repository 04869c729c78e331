"""Pulling: whatever happens on the way, what is kept is what the exchange has."""

from __future__ import annotations

import os
import random
import time
from itertools import cycle
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backtest_pipeline.market.errors import SourceUnavailable
from backtest_pipeline.sources.cache import BarCache
from backtest_pipeline.sources.segments import BARS
from backtest_pipeline.sources.spans import Span
from backtest_pipeline_tests.sources.fake_binance import (
    FAULTS,
    PASSING_FAULTS,
    FakeBinance,
    generated,
    real,
)
from backtest_pipeline_tests.sources.pulling import BRISK, FAR, pull_all, pulling, series_of

SCRIPTS = int(os.environ.get("BACKTEST_FAULT_SCRIPTS", "10"))
"""How many seeded fault scripts are played; 200 take some minutes."""

KILLED_AT = int(os.environ.get("BACKTEST_KILLED_AT", "5"))
"""The request at which a pull is killed."""

HOURLY = series_of("BTCUSDT", "1H")
MINUTES = series_of("BTCUSDT", "1m")
HOUR_MS = 3_600_000


def of_market(bars: pd.DataFrame, interval: str = "1h", after_ms: int = 1) -> FakeBinance:
    """An exchange with one symbol, so long after the last bar began."""
    return FakeBinance({("BTCUSDT", interval): bars}, int(bars.index[-1]) + after_ms)


def table(bars: pd.DataFrame) -> pa.Table:
    """The bars of an exchange as the cache would hold them."""
    opens = bars.index.to_numpy() * 1000
    return pa.table([opens, *(bars[name].to_numpy() for name in BARS.names[1:])], schema=BARS)


def file_of(bars: pa.Table, path: Path) -> bytes:
    pq.write_table(bars, path)
    return path.read_bytes()


def with_holes(bars: pd.DataFrame, *holes: int) -> pd.DataFrame:
    return bars.drop(bars.index[list(holes)])


def opens_asked(exchange: FakeBinance) -> list[int]:
    return [int(params["startTime"]) for params in exchange.klines_asked]


def test_a_month_of_minutes_equals_its_file_byte_for_byte_with_a_fault_at_every_page(
    tmp_path: Path,
) -> None:
    month = generated("1m", 31 * 1440)
    exchange = of_market(month, "1m", after_ms=60_000)
    faults = cycle(PASSING_FAULTS)
    exchange.faults = lambda number: next(faults) if number % 2 == 0 else None
    cache = BarCache(tmp_path / "cache")
    with exchange.serving():
        pull_all(exchange.url, cache, MINUTES, retry=BRISK)
    assert len(exchange.klines_asked) > 2 * 44
    pulled = cache.read(MINUTES)
    assert file_of(pulled.bars, tmp_path / "a") == file_of(table(month), tmp_path / "b")
    assert pulled.covered == [Span(0, exchange.now_ms * 1000)]


@pytest.mark.parametrize("symbol", ["BTCUSDT", "USDCUSDT"])
def test_real_years_with_their_holes_equal_their_file_byte_for_byte_under_faults(
    test_data: Path, tmp_path: Path, symbol: str
) -> None:
    bars = real(test_data / "binance_hourly.parquet", symbol).iloc[:12_000]
    exchange = FakeBinance({(symbol, "1h"): bars}, int(bars.index[-1]) + HOUR_MS)
    faults = cycle(PASSING_FAULTS)
    exchange.faults = lambda number: next(faults) if number % 3 == 0 else None
    cache, series = BarCache(tmp_path / "cache"), series_of(symbol, "1H")
    with exchange.serving():
        pull_all(exchange.url, cache, series, retry=BRISK)
        exchange.seen.clear()
        assert pull_all(exchange.url, cache, series).pages == 0
        assert exchange.klines_asked == []
    held = cache.read(series)
    assert file_of(held.bars, tmp_path / "a") == file_of(table(bars), tmp_path / "b")
    spanned = (bars.index[-1] - bars.index[0]) // HOUR_MS + 1
    assert held.holes(series.length_us) == spanned - len(bars) > 0


@pytest.mark.parametrize("seed", range(SCRIPTS))
def test_a_script_of_faults_ends_in_time_without_a_wrong_bar(seed: int, tmp_path: Path) -> None:
    script = random.Random(seed)  # noqa: S311
    bars = with_holes(generated("1h", 2600, seed=seed), *script.sample(range(1, 2600), 5))
    exchange = of_market(bars, after_ms=HOUR_MS)
    likely = script.choice([0.2, 0.5, 0.8])
    kinds = [*PASSING_FAULTS, "banned"] if script.random() < 0.2 else PASSING_FAULTS
    exchange.faults = lambda number: script.choice(kinds) if script.random() < likely else None
    cache, truth = BarCache(tmp_path), table(bars)
    begin = time.monotonic()
    with exchange.serving():
        try:
            pull_all(exchange.url, cache, HOURLY, retry=BRISK)
        except SourceUnavailable:
            kept = cache.read(HOURLY)
            until = kept.covered[-1].end if kept.covered else 0
            complete = [at for at in truth["open_time"].to_pylist() if at < until]
            assert kept.bars.equals(truth.slice(0, len(complete)))
            exchange.faults = lambda number: None
            pull_all(exchange.url, cache, HOURLY, retry=BRISK)
    # No question takes longer than its patience and one more answer.
    longest = BRISK.seconds + BRISK.answer_s
    assert time.monotonic() - begin < longest * (1 + len(exchange.seen))
    assert cache.read(HOURLY).bars.equals(truth)


def test_a_pull_that_is_killed_goes_on_and_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    bars = with_holes(generated("1m", 12_000), 500, 5_500, 5_501)
    exchange = of_market(bars, "1m", after_ms=60_000)
    with exchange.serving():
        pull_all(exchange.url, BarCache(tmp_path / "undisturbed"), MINUTES)
        undisturbed = BarCache(tmp_path / "undisturbed").read(MINUTES)
        pages = len(exchange.klines_asked)

        exchange.seen.clear()
        exchange.faults = lambda number: (
            process.kill() if len(exchange.klines_asked) > KILLED_AT else None
        )
        process = pulling(exchange.url, tmp_path / "killed", MINUTES)
        assert process.wait() == -9
        exchange.faults = lambda number: None
        exchange.seen.clear()
        pull_all(exchange.url, BarCache(tmp_path / "killed"), MINUTES)
        assert len(exchange.klines_asked) < pages
    assert BarCache(tmp_path / "killed").read(MINUTES) == undisturbed
    assert undisturbed.bars.equals(table(bars))


def test_two_processes_pull_one_series_at_once(tmp_path: Path) -> None:
    bars = with_holes(generated("1m", 9_000), 700, 4_000)
    exchange = of_market(bars, "1m", after_ms=60_000)
    with exchange.serving():
        both = [pulling(exchange.url, tmp_path, MINUTES) for _ in range(2)]
        assert [process.wait() for process in both] == [0, 0]
    held = BarCache(tmp_path).read(MINUTES)
    assert held.bars.equals(table(bars))
    assert held.covered == [Span(0, exchange.now_ms * 1000)]


def test_the_unfinished_bar_is_left_out_until_it_is_finished(tmp_path: Path) -> None:
    bars = generated("1h", 30)
    exchange = of_market(bars.iloc[:20], after_ms=HOUR_MS // 2)
    cache = BarCache(tmp_path)
    with exchange.serving():
        pull_all(exchange.url, cache, HOURLY)
        assert cache.read(HOURLY).bars.equals(table(bars.iloc[:19]))
        exchange.bars = {("BTCUSDT", "1h"): bars}
        exchange.now_ms += 2 * HOUR_MS
        pull_all(exchange.url, cache, HOURLY)
    assert cache.read(HOURLY).bars.equals(table(bars.iloc[:21]))


def test_new_bars_cost_one_page_and_the_last_ones_before_them_are_revised(tmp_path: Path) -> None:
    bars = generated("1h", 2500)
    exchange = of_market(bars.iloc[:2400], after_ms=HOUR_MS)
    cache = BarCache(tmp_path)
    with exchange.serving():
        pull_all(exchange.url, cache, HOURLY)
        revised = bars.copy()
        revised.loc[revised.index[[100, 2395]], "close"] += 0.5
        exchange.bars = {("BTCUSDT", "1h"): revised}
        exchange.now_ms += 5 * HOUR_MS
        exchange.seen.clear()
        pull_all(exchange.url, cache, HOURLY)
        assert opens_asked(exchange) == [bars.index[2390]]
        expected = revised.iloc[:2405].copy()
        expected.iloc[100] = bars.iloc[100]
        assert cache.read(HOURLY).bars.equals(table(expected))

        # An old revision is taken when all is asked for again.
        pull_all(exchange.url, cache, HOURLY, again=True)
    assert cache.read(HOURLY).bars.equals(table(revised.iloc[:2405]))


def test_a_bar_that_was_taken_back_goes(tmp_path: Path) -> None:
    bars = generated("1h", 50)
    exchange = of_market(bars, after_ms=HOUR_MS)
    cache = BarCache(tmp_path)
    with exchange.serving():
        pull_all(exchange.url, cache, HOURLY)
        exchange.bars = {("BTCUSDT", "1h"): with_holes(bars, 7)}
        pull_all(exchange.url, cache, HOURLY, again=True)
    assert cache.read(HOURLY).bars.equals(table(with_holes(bars, 7)))


def test_a_hole_is_asked_for_twice_and_never_again(tmp_path: Path) -> None:
    bars = with_holes(generated("1h", 1500), 700, 701)
    exchange = of_market(bars, after_ms=HOUR_MS)
    cache = BarCache(tmp_path)
    first = int(bars.index[0])
    with exchange.serving():
        pull_all(exchange.url, cache, HOURLY, start=first * 1000)
        second = int(bars.index[999]) + HOUR_MS
        assert opens_asked(exchange) == [first, first, second]
        exchange.seen.clear()
        assert pull_all(exchange.url, cache, HOURLY).pages == 1  # what was before the start
        assert pull_all(exchange.url, cache, HOURLY).pages == 0
    assert cache.read(HOURLY).holes(HOURLY.length_us) == 2


def test_a_page_with_a_hole_that_is_not_there_is_not_believed(tmp_path: Path) -> None:
    bars = generated("1h", 1500)
    exchange = of_market(bars, after_ms=HOUR_MS)
    exchange.faults = lambda number: "gap" if number in (1, 3) else None
    cache = BarCache(tmp_path)
    with exchange.serving():
        pull_all(exchange.url, cache, HOURLY)
    assert cache.read(HOURLY).bars.equals(table(bars))


def test_answers_that_never_agree_are_no_answer(tmp_path: Path) -> None:
    exchange = of_market(generated("1h", 900), after_ms=HOUR_MS)
    exchange.faults = lambda number: "gap"
    cache = BarCache(tmp_path)
    with exchange.serving(), pytest.raises(SourceUnavailable, match="another answer for BTCUSDT"):
        pull_all(exchange.url, cache, HOURLY)
    assert cache.read(HOURLY).covered == []


def test_a_bar_that_is_late_is_no_hole_until_a_day_has_passed(tmp_path: Path) -> None:
    bars = generated("1h", 100)
    exchange = of_market(bars.iloc[:98], after_ms=3 * HOUR_MS)
    cache = BarCache(tmp_path)
    with exchange.serving():
        pull_all(exchange.url, cache, HOURLY)
        assert cache.read(HOURLY).covered[-1].end == int(bars.index[98]) * 1000
        exchange.bars = {("BTCUSDT", "1h"): bars}
        pull_all(exchange.url, cache, HOURLY)
        assert cache.read(HOURLY).bars.equals(table(bars))

        exchange.now_ms += 240 * HOUR_MS  # delisted
        pull_all(exchange.url, cache, HOURLY)
        held = cache.read(HOURLY)
    assert held.missing(Span(0, (exchange.now_ms - 24 * HOUR_MS) * 1000)) == []
    assert held.holes(HOURLY.length_us) == 240 - 24


def test_pages_that_are_shorter_than_was_asked_for_lose_nothing(tmp_path: Path) -> None:
    bars = generated("1h", 950)
    exchange = of_market(bars, after_ms=100 * HOUR_MS)
    exchange.page_limit = 300
    cache = BarCache(tmp_path)
    with exchange.serving():
        pull_all(exchange.url, cache, HOURLY)
    assert cache.read(HOURLY).bars.equals(table(bars))


def test_a_span_before_the_listing_is_known_to_be_empty(tmp_path: Path) -> None:
    bars = generated("1h", 100)
    exchange = of_market(bars, after_ms=HOUR_MS)
    cache = BarCache(tmp_path)
    with exchange.serving():
        pull_all(exchange.url, cache, HOURLY)
    assert cache.read(HOURLY).missing(Span(0, exchange.now_ms * 1000)) == []
    assert len(cache.read(HOURLY, Span(0, int(bars.index[0]) * 1000)).bars) == 0
    assert exchange.now_ms * 1000 < FAR


def test_the_fake_can_do_every_fault_that_the_scripts_draw_from() -> None:
    assert {*PASSING_FAULTS, "banned"} <= set(FAULTS)
    assert len(PASSING_FAULTS) >= 14
