"""Which asset, at which timeframe, each row of a file belongs to."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.market.timeframes import Timeframe, timeframe
from backtest_pipeline.sources.files.parts import Part
from backtest_pipeline.sources.files.settings_file import SETTINGS_NAME, FileSettings
from backtest_pipeline.sources.files.spacing import timeframe_of_interval

_HIVE_SYMBOL = ("symbol", "ticker", "pair", "instrument", "asset")
_HIVE_TIMEFRAME = ("timeframe", "tf", "interval", "freq")
_HIVE_DATES = ("year", "month", "day", "date", "hour", "dt", "y", "m", "d")


@dataclass(frozen=True)
class Owners:
    """Who the rows of a file belong to.

    Attributes:
        of_row: int64, position in `symbols`; -1 of a row that is left out.
        symbols: as written and trimmed; once for each timeframe that a column gives.
        declared: the timeframe of each where the settings, a column, the file's name or its
            folders say it.
        left_out: a sentence on the rows that are left out.
    """

    of_row: np.ndarray
    symbols: tuple[str, ...]
    declared: tuple[Timeframe | None, ...]
    left_out: tuple[str, ...] = ()


def owners_of(
    part: Part,
    settings: FileSettings,
    of_name: Mapping[str, str | None],
    fields: Mapping[str, pa.ChunkedArray],
    ticker: str | None,
) -> Owners:
    """The owner of each row.

    Args:
        part: the file.
        settings: what is stated of it.
        of_name: what the layout finds in the file's name: `symbol`, `interval` or `minutes`.
        fields: the columns of the file.
        ticker: the asset, where the header names it above the columns.

    Raises:
        BarsError: for a stated symbol of a file that has several, or a timeframe that bars cannot
            come in.
    """
    n_rows = len(next(iter(fields.values())))
    column = fields.get("symbol", fields.get("name"))
    if column is not None and "symbol" not in fields and is_numbers(column):
        column = None
    if column is None or ticker is not None:
        stated = settings.symbol or ticker or _first(part.hive, _HIVE_SYMBOL)
        symbol = as_written(stated or of_name.get("symbol") or part.stem)
        owner, symbols = np.zeros(n_rows, np.int64), (symbol,)
    else:
        owner, symbols = _encoded(column)
        if settings.symbol is not None:
            if len(symbols) > 1:
                raise BarsError(
                    f"{part.where}: {SETTINGS_NAME} says symbol = {settings.symbol!r}, and the "
                    f"file has {len(symbols)}, such as {symbols[0]!r} and {symbols[1]!r}"
                )
            symbols = (settings.symbol,)
    blank = int((owner < 0).sum())
    left_out = (f"{part.where}: {blank:,} rows name no asset",) if blank else ()
    stated_tf = _stated_timeframe(part, settings, of_name)
    found = Owners(owner, symbols, (stated_tf,) * len(symbols), left_out)
    if stated_tf is None and "timeframe" in fields:
        found = _by_column(part, found, fields["timeframe"])
    stated = [settings.of_symbol(symbol).timeframe for symbol in found.symbols]
    declared = [
        tf if name is None else timeframe(name)
        for name, tf in zip(stated, found.declared, strict=True)
    ]
    return replace(found, declared=tuple(declared))


def _by_column(part: Part, owners: Owners, column: pa.ChunkedArray) -> Owners:
    """The owners by the timeframe that a column gives, where it gives one that bars come in."""
    tf_of_row, written = _encoded(column)
    timeframes = [timeframe_of_interval(text) for text in written]
    if not any(timeframes):
        return owners
    left_out = list(owners.left_out)
    sound = np.append([tf is not None for tf in timeframes], False)[tf_of_row]
    if not sound.all():
        others = [text for text, tf in zip(written, timeframes, strict=True) if tf is None]
        named = f" ({', '.join(map(repr, others[:5]))})" if others else ""
        left_out.append(
            f"{part.where}: {int((~sound).sum()):,} rows are of no base timeframe{named}; "
            "take 1m, 1h or 1d"
        )
    sound &= owners.of_row >= 0
    pair, position = np.unique(
        (owners.of_row * len(written) + tf_of_row)[sound], return_inverse=True
    )
    of_row = np.full(len(sound), -1)
    of_row[sound] = position
    of_symbol, of_tf = np.divmod(pair, len(written))
    return Owners(
        of_row,
        tuple(owners.symbols[i] for i in of_symbol.tolist()),
        tuple(timeframes[i] for i in of_tf.tolist()),
        tuple(left_out),
    )


def _stated_timeframe(
    part: Part, settings: FileSettings, of_name: Mapping[str, str | None]
) -> Timeframe | None:
    """The timeframe that the settings, the name of the file or its folders say."""
    if settings.timeframe is not None:
        return timeframe(settings.timeframe)
    minutes = of_name.get("minutes")
    interval = f"{minutes}m" if minutes else of_name.get("interval")
    interval = interval or _first(part.hive, _HIVE_TIMEFRAME)
    if interval is None:
        return None
    found = timeframe_of_interval(interval)
    if found is None:
        raise BarsError(
            f"{part.where}: bars of {interval} are no base timeframe; take 1m, 1h or 1d"
        )
    return found


def venue_of(part: Part) -> str:
    """The keys of hive folders that say neither asset, timeframe nor date: `exchange=binance`."""
    said = (*_HIVE_SYMBOL, *_HIVE_TIMEFRAME, *_HIVE_DATES)
    return ", ".join(f"{key}={value}" for key, value in part.hive.items() if key not in said)


def as_written(text: str) -> str:
    """A symbol without what nobody sees around it: blanks, zero-width signs, byte-order marks."""

    def is_seen(sign: str) -> bool:
        return not sign.isspace() and unicodedata.category(sign) not in ("Cf", "Cc")

    seen = [i for i, sign in enumerate(text) if is_seen(sign)]
    return unicodedata.normalize("NFC", text[seen[0] : seen[-1] + 1]) if seen else ""


def is_numbers(column: pa.ChunkedArray) -> bool:
    """Whether a column of names holds numbers: CoinMarketCap's, of the quote currency."""
    text = column.cast(pa.string()).drop_null()
    digits = pc.call_function("utf8_is_digit", [text])
    return pc.call_function("all", [digits]).as_py() is True


def _encoded(column: pa.ChunkedArray) -> tuple[np.ndarray, tuple[str, ...]]:
    """For each row the position of its text in the tuple of texts; -1 where there is none."""
    encoded = column.cast(pa.string()).dictionary_encode().combine_chunks()
    written = [as_written(value) for value in encoded.dictionary.to_pylist()]
    texts = {text: i for i, text in enumerate(dict.fromkeys(filter(None, written)))}
    position = np.array([*(texts.get(text, -1) for text in written), -1], np.int64)
    indices = encoded.indices.fill_null(len(written)).to_numpy().astype(np.int64)
    return position[indices], tuple(texts)


def _first(hive: Mapping[str, str], keys: Sequence[str]) -> str | None:
    return next((hive[key] for key in keys if key in hive), None)
