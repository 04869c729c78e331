"""`bars`: what is kept of exchanges' bars; and a refresh from an exchange."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import tenacity

from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.cli.files import daily_bars, write
from backtest_pipeline_tests.sources.fake_binance import FakeBinance, generated

DAY_MS = 86_400_000
NOW_MS = 1_717_241_400_000  # 2024-06-01 11:30
CLOCK = "backtest_pipeline.sources.binance.source._now_us"


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBinance]:
    """An exchange at the address that the settings name, whose clock is ours and stands still."""
    bars = generated("1d", 120, first_ms=NOW_MS - 119 * DAY_MS)
    other = generated("1d", 100, first_ms=NOW_MS - 99 * DAY_MS, seed=1).drop(
        index=NOW_MS // DAY_MS * DAY_MS - 50 * DAY_MS
    )
    fake = FakeBinance({("BTCUSDT", "1d"): bars, ("ETHUSDT", "1d"): other}, NOW_MS)
    with fake.serving():
        monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=lambda _: None))
        monkeypatch.setenv("BACKTEST_BINANCE_URL", fake.url)
        monkeypatch.setattr(CLOCK, lambda: NOW_MS * 1000)
        yield fake


def test_pulled_bars_are_listed_and_verified(cli: CommandLine, exchange: FakeBinance) -> None:
    pulled = cli("bars", "pull", "BTCUSDT", "ETHUSDT", "--json")
    assert pulled.code == 0, pulled.err
    assert [row["fetched"] for row in pulled.json["series"]] == [119, 98]
    assert "BTCUSDT 1D: 1 of 1 done" in pulled.err

    listed = cli.json("bars", "list")
    assert listed["folder"] == str(cli.folder / "home" / "cache" / "bars")
    assert [(row["symbol"], row["bars"], row["holes"]) for row in listed["series"]] == [
        ("BTCUSDT", 119, 0),
        ("ETHUSDT", 98, 1),
    ]
    shown = cli("bars", "list")
    assert "ETHUSDT" in shown.out
    assert "holes" in shown.out

    assert cli("bars", "verify", "--source").code == 0
    (file,) = Path(listed["folder"]).glob("binance/1D/BTCUSDT/*.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    damaged = cli("bars", "verify")
    assert damaged.code == 1
    assert "1 cached files are damaged and were renamed to *.damaged" in damaged.message
    assert cli.json("bars", "pull", "BTCUSDT")["series"][0]["fetched"] == 119
    assert cli("bars", "verify").code == 0


def test_bars_that_the_exchange_has_revised_are_found_and_taken(
    cli: CommandLine, exchange: FakeBinance
) -> None:
    cli("bars", "pull", "BTCUSDT")
    revised = exchange.bars["BTCUSDT", "1d"].copy()
    revised.iloc[5, 3] += 0.25
    exchange.bars = {**exchange.bars, ("BTCUSDT", "1d"): revised}
    found = cli("bars", "verify", "BTCUSDT", "--source", "--json")
    assert found.code == 1
    assert found.json["series"][0]["changed"] == 1
    assert "`backtest-pipeline bars pull SYMBOL --again` replaces them" in found.message
    assert cli("bars", "pull", "BTCUSDT", "--again").code == 0
    assert cli("bars", "verify", "BTCUSDT", "--source").code == 0


def test_a_window_is_pulled_and_no_more(cli: CommandLine, exchange: FakeBinance) -> None:
    days = [time.strftime("%Y-%m-%d", time.gmtime(NOW_MS / 1000 - n * 86_400)) for n in (30, 20)]
    pulled = cli("bars", "pull", "BTCUSDT", "--start", days[0], "--end", days[1], "--json")
    (row,) = pulled.json["series"]
    assert (row["from"], row["until"], row["bars"]) == (f"{days[0]} 00:00", f"{days[1]} 00:00", 10)


def test_an_imported_file_keeps_its_holes_unknown_and_never_replaces_what_is_kept(
    cli: CommandLine, tmp_path: Path
) -> None:
    bars = daily_bars(60, symbol="AAAUSDT")
    file = write(bars.drop(index=[20, 21]), tmp_path / "aaa.csv")
    imported = cli("bars", "import", file, "--json")
    assert imported.code == 0, imported.err
    (row,) = imported.json["series"]
    assert (row["bars"], row["added"], row["holes"], row["unknown"]) == (58, 58, 0, 2)

    other = write(bars.assign(close=100.5), tmp_path / "other.csv")
    again = cli("bars", "import", other)
    assert "AAAUSDT 1D of binance: 58 bars differ from the cached ones" in again.out
    (row,) = cli.json("bars", "list")["series"]
    assert (row["bars"], row["unknown"]) == (60, 0)
    assert "differ from" not in cli("bars", "import", file).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", "BTCUSD"), "unknown symbol of binance 'BTCUSD'; did you mean BTCUSDT"),
        (("pull", "BTCUSDT", "--interval", "1hr"), "unknown interval '1hr'; did you mean 1h"),
        (("pull", "BTCUSDT", "--start", "2999-01-01"), "--start 2999-01-01 is in the future; it"),
        (
            ("pull", "BTCUSDT", "--start", "2024-02-01", "--end", "2024-01-01"),
            "--end 2024-01-01 is not after --start 2024-02-01",
        ),
        (("pull", "BTCUSDT", "--start", "soon"), "--start: 'soon' is not a date; write it as"),
        (("import", "nothing.csv"), "nothing.csv: no such file or folder; check the path"),
        (("verify", "BTCUSDT"), "unknown asset 'BTCUSDT'; there are none yet"),
    ],
)
def test_what_makes_no_sense_is_told(
    cli: CommandLine, exchange: FakeBinance, arguments: tuple[str, ...], message: str
) -> None:
    answer = cli("bars", *arguments)
    assert (answer.code, answer.out) == (1, "")
    assert message in answer.message
    assert "Traceback" not in answer.err


def test_a_ban_a_dead_network_and_a_cache_that_is_off_are_told_with_what_to_do(
    cli: CommandLine, exchange: FakeBinance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "the cache is empty; `backtest-pipeline bars pull" in cli("bars", "list").out
    exchange.faults = lambda number: "banned"
    banned = cli("bars", "pull", "BTCUSDT")
    assert banned.code == 1
    assert "binance has banned this address until 20" in banned.message
    assert "ask nothing before then" in banned.message

    monkeypatch.setenv("BACKTEST_BINANCE_URL", "http://127.0.0.1:9")
    dead = cli("bars", "pull", "BTCUSDT")
    assert dead.code == 1
    assert "binance cannot be used at http://127.0.0.1:9 (ConnectError" in dead.message
    assert "or set BACKTEST_BINANCE_URL to another address" in dead.message

    monkeypatch.setenv("BACKTEST_BINANCE_URL", "binance.com")
    assert "BACKTEST_BINANCE_URL: must be an address like" in cli("bars", "list").message
    monkeypatch.delenv("BACKTEST_BINANCE_URL")
    monkeypatch.setenv("BACKTEST_USE_CACHE", "false")
    assert "BACKTEST_USE_CACHE is off, so no bars are cached" in cli("bars", "list").message


def test_a_refresh_and_a_run_take_bars_from_the_exchange_and_from_the_cache_without_it(
    cli: CommandLine, exchange: FakeBinance, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh = ("refresh", "--bars", "binance", "--timeframes", "1D")
    nobody = cli(*refresh)
    assert nobody.code == 1
    assert "name some with --assets BTCUSDT,ETHUSDT" in nobody.message
    unknown = cli(*refresh, "--assets", "BTCUSD")
    assert "unknown symbol of binance 'BTCUSD'; did you mean BTCUSDT" in unknown.message

    first = cli(*refresh, "--assets", "BTCUSDT,ETHUSDT", "--json")
    assert first.code == 0, first.err
    found = first.json
    assert {run["asset"] for run in found["runs"]} == {"BTCUSDT", "ETHUSDT"}
    assert found["rows_by_reason"] == [{"reason": "gap", "rows": 1, "assets": 1}]

    # Two days later the exchange is away.
    monkeypatch.setattr(CLOCK, lambda: (NOW_MS + 2 * DAY_MS) * 1000)
    monkeypatch.setenv("BACKTEST_BINANCE_URL", "http://127.0.0.1:9")
    offline = cli(*refresh, "--json")
    assert offline.code == 0, offline.err
    since = time.strftime("%Y-%m-%dT23:59:59.999000+00:00", time.gmtime(NOW_MS / 1000))
    again = offline.json
    assert again["runs"] == found["runs"]
    assert {"reason": "not_fetched", "rows": 4, "assets": 2} in again["rows_by_reason"]
    assert again["not_fetched_since"] == {"BTCUSDT": since, "ETHUSDT": since}

    run = cli("run", "--signal", "ema_9_21", "--asset", "BTCUSDT", "--bars", "binance")
    assert run.code == 0, run.err
    assert "119 bars, closing from" in run.out
    day = since.partition("T")[0]
    assert (
        "BTCUSDT: the exchange did not answer, so cached bars were used; the bar closing at "
        f"{day} 23:59:59 UTC and all later ones are missing"
    ) in run.out
