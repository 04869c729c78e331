"""Binance as a source: the cache where it suffices, the exchange where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from backtest_pipeline.market.errors import BarsError, SourceUnavailable, UnknownName
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.sources.base import BarSource, SourceBars
from backtest_pipeline.sources.binance.client import BinanceClient, RequestRetry
from backtest_pipeline.sources.binance.source import BinanceBars
from backtest_pipeline.sources.cache import BarCache
from backtest_pipeline.sources.choose import ExchangeAccess, choose_source
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline_tests.sources.fake_binance import FakeBinance, generated

DAY_MS = 86_400_000
NOW_MS = 1_717_241_400_000  # 2024-06-01 11:30
CLOCK = "backtest_pipeline.sources.binance.source._now_us"
BRISK = RequestRetry(attempts=2, first_wait_s=0.001)


def days(n: int, seed: int = 0) -> pd.DataFrame:
    """Bars of the last `n` UTC days, today's with them."""
    return generated("1d", n, first_ms=NOW_MS - (n - 1) * DAY_MS, seed=seed)


BTC, ETH = days(200), days(150, seed=1)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bar ends while a test goes on."""
    monkeypatch.setattr(CLOCK, lambda: NOW_MS * 1000)


@pytest.fixture
def exchange() -> Iterator[FakeBinance]:
    market = {("BTCUSDT", "1d"): BTC, ("ETHUSDT", "1d"): ETH, ("XRPUSDT", "1d"): days(9)}
    with FakeBinance(market, NOW_MS).serving() as serving:
        yield serving


def source(
    exchange: FakeBinance, folder: Path | None, tf: str = "1D", named: tuple[str, ...] = ()
) -> BinanceBars:
    cache = BarCache(folder) if folder else None
    return BinanceBars(BinanceClient(exchange.url, BRISK), cache, [timeframe(tf)], named)


def counts(read: SourceBars) -> dict[tuple[str, str], int]:
    return {(issue.asset, issue.reason.value): issue.rows for issue in read.issues}


def test_it_gives_the_finished_bars_with_close_stamps(
    exchange: FakeBinance, tmp_path: Path
) -> None:
    binance: BarSource = source(exchange, tmp_path)
    read = binance.read(["ETHUSDT", "BTCUSDT"])
    panel = read.panels["1D"]
    assert panel.assets == ("BTCUSDT", "ETHUSDT")
    assert [info.symbol for info in read.assets] == ["BTCUSDT", "ETHUSDT"]
    assert counts(read) == {}
    for symbol, bars in (("BTCUSDT", BTC), ("ETHUSDT", ETH)):
        rows = panel.rows_of(symbol)
        assert (panel.ts[rows] // 1000 - DAY_MS + 1).tolist() == bars.index.tolist()[:-1]
        assert panel["close"][rows].tolist() == bars["close"].tolist()[:-1]


def test_nothing_is_asked_where_nothing_is_missing(exchange: FakeBinance, tmp_path: Path) -> None:
    first = source(exchange, tmp_path).read(["BTCUSDT", "ETHUSDT"])
    exchange.seen.clear()
    again = source(exchange, tmp_path).read(["BTCUSDT", "ETHUSDT"])
    assert exchange.seen == []
    assert (again.panels["1D"].ts == first.panels["1D"].ts).all()


def test_it_offers_what_is_cached_or_named_and_not_the_whole_exchange(
    exchange: FakeBinance, tmp_path: Path
) -> None:
    assert source(exchange, tmp_path).symbols() == ()
    assert source(exchange, tmp_path).read().panels == {}
    source(exchange, tmp_path).read(["ETHUSDT"])
    assert source(exchange, tmp_path).symbols() == ("ETHUSDT",)
    assert source(exchange, tmp_path, tf="1H").symbols() == ()
    assert source(exchange, tmp_path, named=("BTCUSDT",)).symbols() == ("BTCUSDT", "ETHUSDT")
    with pytest.raises(UnknownName, match="'BTCUSD'; did you mean BTCUSDT"):
        source(exchange, tmp_path, named=("BTCUSD",)).symbols()
    with pytest.raises(UnknownName, match="'BTCUSD'; did you mean BTCUSDT"):
        source(exchange, tmp_path).read(["BTCUSD"])


def test_without_an_exchange_the_cache_is_used_and_what_is_missing_is_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    market = {("BTCUSDT", "1d"): BTC.iloc[:-4], ("ETHUSDT", "1d"): ETH}
    with FakeBinance(market, NOW_MS - 3 * DAY_MS).serving() as exchange:
        source(exchange, tmp_path).read(["BTCUSDT"])
        exchange.now_ms = NOW_MS
        source(exchange, tmp_path).read(["ETHUSDT"])
    read = source(exchange, tmp_path).read()
    assert read.panels["1D"].lengths.tolist() == [196, 149]
    assert counts(read) == {("BTCUSDT", "not_fetched"): 3}
    (warning,) = caplog.messages
    until = pd.Timestamp(int(BTC.index[-4]), unit="ms")
    assert f"BTCUSDT 1D of binance is taken from the cache, with bars until {until} UTC" in warning
    assert "set BACKTEST_BINANCE_URL to another address" in warning


def test_without_an_exchange_and_a_cache_there_is_nothing_and_it_is_asked_once(
    exchange: FakeBinance, tmp_path: Path
) -> None:
    exchange.faults = lambda number: "broken"
    exchange.bars = {(f"A{i}USDT", "1d"): BTC for i in range(30)}
    with pytest.raises(SourceUnavailable, match="USDT 1D of binance: nothing is cached; "):
        source(exchange, tmp_path).read([symbol for symbol, _ in exchange.bars])
    assert len(exchange.klines_asked) <= 4 * BRISK.attempts


def test_a_pull_that_breaks_off_leaves_its_pages_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bars = generated("1h", 2500, first_ms=NOW_MS - 2499 * 3_600_000)
    exchange = FakeBinance({("BTCUSDT", "1h"): bars}, NOW_MS)
    exchange.faults = lambda number: "broken" if number > 2 else None
    with exchange.serving():
        cut = source(exchange, tmp_path, tf="1H").read(["BTCUSDT"])
        assert len(cut.panels["1H"]) == 2000
        assert counts(cut) == {("BTCUSDT", "not_fetched"): 499}
        assert len(caplog.messages) == 1
        exchange.faults = lambda number: None
        exchange.seen.clear()
        assert len(source(exchange, tmp_path, tf="1H").read(["BTCUSDT"]).panels["1H"]) == 2499
    assert len(exchange.klines_asked) == 1


def test_without_a_cache_everything_is_asked_each_time_and_nothing_is_left(
    exchange: FakeBinance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cached = source(exchange, tmp_path / "cache").read(["BTCUSDT"])
    for _ in range(2):
        exchange.seen.clear()
        read = source(exchange, None).read(["BTCUSDT"])
        assert len(exchange.klines_asked) == 2
        assert read.panels["1D"].ts.tolist() == cached.panels["1D"].ts.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_bars_that_go_while_they_are_read_are_missed(exchange: FakeBinance, tmp_path: Path) -> None:
    def damage(number: int) -> str | None:
        if number:
            for file in tmp_path.glob("binance/1D/ETHUSDT/*.parquet"):
                file.write_bytes(b"")
        return None

    exchange.bars = {("ETHUSDT", "1d"): days(2500)}
    exchange.faults = damage
    with pytest.raises(BarsError, match=r"ETHUSDT 1D of binance: .* damaged or removed meanwhile"):
        source(exchange, tmp_path).read(["ETHUSDT"])
    exchange.faults = lambda number: None
    assert len(source(exchange, tmp_path).read(["ETHUSDT"]).panels["1D"]) == 2499


def test_what_a_path_means(tmp_path: Path) -> None:
    def access() -> ExchangeAccess:
        return ExchangeAccess("https://example.test", tmp_path / "cache")

    def never() -> ExchangeAccess:
        raise AssertionError("no exchange was asked for")

    assert isinstance(choose_source("", never), SampleMarket)
    assert isinstance(choose_source("binance_daily.parquet", never), FileBars)
    assert isinstance(choose_source("./binance", never), FileBars)
    for path in ("binance", "binance:1h", "binance:1h,1d"):
        assert isinstance(choose_source(path, access), BinanceBars)
    with pytest.raises(UnknownName, match="unknown interval '1x'"):
        choose_source("binance:1x", access)
    assert not (tmp_path / "cache").exists()


def test_its_state_is_known_while_the_cache_lacks_nothing(
    exchange: FakeBinance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = source(exchange, tmp_path)
    assert bars.states(["BTCUSDT"]) == {}
    bars.read(["BTCUSDT"])
    known = bars.states(["BTCUSDT", "ETHUSDT"])
    assert known.keys() == {"BTCUSDT"}
    bars.read(["BTCUSDT", "ETHUSDT"])
    assert bars.states(["BTCUSDT"]) == known
    assert source(exchange, None).states(["BTCUSDT"]) == {}
    # A bar has ended since, which has to be asked for.
    monkeypatch.setattr(CLOCK, lambda: (NOW_MS + DAY_MS) * 1000)
    assert bars.states(["BTCUSDT"]) == {}
