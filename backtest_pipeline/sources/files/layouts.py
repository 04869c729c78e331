"""The layouts of files that people have: how each is told, and what its columns mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backtest_pipeline.market.panel import OHLCV

# Spellings in letters and digits only, the better ones first. `open_time` beats a plain stamp,
# whose convention has to be told from the grid; a close time comes last, for exchanges cut it
# short at a halt. An index that pandas wrote without a name is a stamp where nothing else is.
STAMPS = ("open_time", "stamp", "close_time", "index")
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "symbol": ("symbol", "ticker", "pair", "instrument"),
    "name": ("name",),
    "timeframe": ("timeframe", "tf", "interval"),
    "open_time": ("opentime", "timeopen", "starttime", "startat"),
    "stamp": ("ts", "timestamp", "unix", "unixtimestamp", "datetime", "date", "time", "t"),
    "close_time": ("closetime", "timeclose", "endtime"),
    "index": ("", "indexlevel0", "unnamed0", "index"),
    "open": ("open", "openprice", "priceopen", "o"),
    "high": ("high", "highprice", "pricehigh", "h"),
    "low": ("low", "lowprice", "pricelow", "l"),
    "close": ("close", "closeprice", "priceclose", "c"),
    "volume": ("volume", "vol", "basevolume", "volumebase", "volumefrom", "tickvol", "v"),
}
_PRICE_WORDS = {
    *("open", "high", "low", "close", "adjclose", "volume", "dividends", "stocksplits"),
    *("capitalgains", "repaired"),
}
LEVEL_NAMES = ("", "price", "ticker")
"""What pandas writes before the names of a level of columns; nothing where the level has none."""
_OHLCV_ROW = ("stamp", *OHLCV)


@dataclass(frozen=True)
class FileLayout:
    """One way in which bars are exported.

    Attributes:
        name: for messages and the documentation.
        about: what such files are, one line.
        told_by: how they are told, one line.
        file: pattern of a name without endings; groups `symbol`, `interval` or `minutes`, `kind`.
        header: spellings that the header has to have, all of them.
        rows: columns of a file without a header, by their number; empty where it has one.
        stamp: `open` or `close` where the layout's own stamp is that of one; else told by grid.
        tz: zone of stamps that carry none, where the exporter says so.
    """

    name: str
    about: str
    told_by: str
    file: re.Pattern[str] | None = None
    header: frozenset[str] = frozenset()
    rows: Mapping[int, tuple[str, ...]] = field(default_factory=dict[int, tuple[str, ...]])
    stamp: str | None = None
    tz: str | None = None
    symbol: str = "a column, else the file's name"
    volume: str = "`volume`"


BINANCE_VISION = FileLayout(
    name="Binance Vision",
    about="dumps of data.binance.vision: spot and futures, milliseconds and microseconds",
    told_by="the name, `BTCUSDT-1h-2024-01.zip`",
    file=re.compile(r"(?P<symbol>\w+)-(?P<interval>\d+(?:s|m|h|d|w|mo|M))-\d{4}(?:-\d{2}){1,2}"),
    rows={12: ("open_time", *OHLCV, "close_time")},
    stamp="open",
    tz="UTC",
    symbol="the file's name",
)
FREQTRADE = FileLayout(
    name="freqtrade",
    about="freqtrade's data folder: feather, Parquet, JSON, `-futures` too",
    told_by="the name, `BTC_USDT-1h.feather`",
    file=re.compile(
        r"(?P<symbol>\w+_\w+(?:-\d{6})?)-(?P<interval>\d+(?:s|m|h|d|w|M|Mo|y))(?:-(?P<kind>\w+))?"
    ),
    rows={6: _OHLCV_ROW},
    stamp="open",
    tz="UTC",
    symbol="the file's name",
)
TRADINGVIEW = FileLayout(
    name="TradingView",
    about="`Export chart data` of a chart, under the name that it was saved by",
    told_by="the name, `BINANCE_BTCUSDT, 60.csv`",
    file=re.compile(r"(?P<symbol>[^,]+), ?(?P<interval>\d+[SDWM]?|[DWM])(?:[_ (].*)?"),
    header=frozenset({"time"}),
    stamp="open",
    symbol="the file's name",
    volume="`Volume`, where the chart showed it",
)
KRAKEN = FileLayout(
    name="Kraken",
    about="OHLCVT archives of Kraken, which leave out bars without a trade",
    told_by="the name, `XBTUSD_60.csv`, and 7 columns without a header",
    file=re.compile(r"(?P<symbol>[\w.]+)_(?P<minutes>1|5|15|30|60|240|720|1440|10080)"),
    rows={7: _OHLCV_ROW, 8: ("stamp", "open", "high", "low", "close", "", "volume")},
    stamp="open",
    tz="UTC",
    symbol="the file's name",
)
CRYPTODATADOWNLOAD = FileLayout(
    name="CryptoDataDownload",
    about="downloads of cryptodatadownload.com, with the line of its address or without",
    told_by="columns `Symbol`, `Date` and a `Volume` with the coin's name",
    header=frozenset({"symbol", "date", "open", "volume*"}),
    stamp="open",
    tz="UTC",
    symbol="`Symbol`",
    volume="`Volume BTC`: the one in the coin that is traded",
)
YFINANCE = FileLayout(
    name="yfinance",
    about="frames of `yf.download`, of one ticker or several, CSV and Parquet",
    told_by="a header of two or three lines, `Price` and `Ticker`",
    symbol="the line `Ticker`",
)
YAHOO = FileLayout(
    name="Yahoo Finance",
    about="history downloads; `Adj Close` is not read",
    told_by="columns `Date` and `Adj Close`",
    header=frozenset({"date", "open", "adjclose"}),
    symbol="the file's name",
)
COINMARKETCAP = FileLayout(
    name="CoinMarketCap",
    about="history downloads, and the Kaggle set made of them",
    told_by="a column `marketcap`",
    header=frozenset({"open", "marketcap"}),
    symbol="`Symbol`, `Name`, else the file's name",
)
ROWS_OF_CCXT = FileLayout(
    name="ccxt rows",
    about="what `fetch_ohlcv` gives, as CSV or JSON",
    told_by="6 columns without a header, the first of them numbers",
    rows={6: _OHLCV_ROW, 12: ("open_time", *OHLCV, "close_time"), 7: _OHLCV_ROW},
    stamp="open",
    tz="UTC",
    symbol="the file's name",
)
GENERIC = FileLayout(
    name="columns by name",
    about="pandas, Polars and database exports, and all else with a header",
    told_by="columns of the names below",
)
LAYOUTS = (
    *(BINANCE_VISION, FREQTRADE, TRADINGVIEW, KRAKEN, CRYPTODATADOWNLOAD, YFINANCE, YAHOO),
    *(COINMARKETCAP, ROWS_OF_CCXT, GENERIC),
)
NO_BARS_OF_TRADES = re.compile(
    r".+-(?:trades|aggTrades|bookDepth|bookTicker|metrics|fundingRate|liquidationSnapshot)"
    r"(?:-\d{4}(?:-\d{2}){1,2})?"
    r"|.+-\d+\w{1,2}-(?:mark|index|premiumIndex|funding_rate)"
)
"""Names of what Binance and freqtrade lay beside bars and what are none of traded prices."""


def layout_of(stem: str, header: Sequence[str], n_columns: int, levels: int) -> FileLayout | None:
    """The layout of a file; None where it has no header and no layout is known for its columns.

    Args:
        stem: the file's name without endings.
        header: its columns, none where it has no header.
        n_columns: how many columns there are.
        levels: further lines of the header.
    """
    if levels:
        return YFINANCE
    named = _by_name(stem, header, n_columns)
    if named is not None:
        return named
    if not header:
        return ROWS_OF_CCXT if n_columns in ROWS_OF_CCXT.rows else None
    words = {bare(cell) for cell in header}
    words |= {"volume*" for cell in header if coin_of_volume(cell)}
    told = [x for x in LAYOUTS if x.header and x.file is None and x.header <= words]
    return max(told, key=lambda layout: len(layout.header), default=GENERIC)


def _by_name(stem: str, header: Sequence[str], n_columns: int) -> FileLayout | None:
    words = {bare(cell) for cell in header}
    for layout in LAYOUTS:
        if layout.file is None or not layout.file.fullmatch(stem):
            continue
        if (header and layout is not KRAKEN and layout.header <= words) or (
            not header and n_columns in layout.rows
        ):
            return layout
    return None


def bare(cell: str) -> str:
    """A name of a column in small letters and digits."""
    return re.sub(r"[\W_]", "", cell.lower())


def is_header(cells: Sequence[str]) -> bool:
    """Whether a line names the columns of bars: a stamp and prices."""
    words = {bare(cell) for cell in cells}
    prices = sum(any(s in words for s in SPELLINGS[name]) for name in ("open", "high", "low"))
    stamps = any(s in words for name in STAMPS for s in SPELLINGS[name])
    return prices >= 2 and stamps


def price_words(levels: Sequence[Sequence[str]]) -> int | None:
    """Of two lines of a header, the number of that which says open, high, low and close.

    None where they are no two lines of a header: the other one has to name tickers.
    """
    words = [[bare(cell) for cell in line[1:]] for line in levels]
    for i, other in ((0, 1), (1, 0)):
        if len(words[i]) < 4 or not set(words[i]) <= _PRICE_WORDS:
            continue
        if all(bare(line[0]) in LEVEL_NAMES for line in levels) and all(levels[other][1:]):
            return i
    return None


def coin_of_volume(cell: str) -> str | None:
    """The coin of a column such as `Volume BTC`."""
    match = re.fullmatch(r"volume[ _]?\(?(?P<coin>[a-z0-9]{2,12})\)?", cell.strip().lower())
    return match["coin"] if match and match["coin"] not in ("ma", "usdvalue") else None


def layouts_table() -> str:
    """The layouts as a Markdown table, as docs/bars.md shows it."""
    rows = [
        f"| {x.name} | {x.about} | {x.told_by} | {x.symbol} | "
        f"{x.stamp or 'by the grid'}{', ' + x.tz if x.tz else ''} | {x.volume} |"
        for x in LAYOUTS
    ]
    head = "| layout | files | told by | symbol | stamp, zone | volume |"
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- |", *rows]) + "\n"
