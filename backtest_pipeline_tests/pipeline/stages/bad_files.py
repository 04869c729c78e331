"""Files of bars that are damaged in every way, and what each comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest_pipeline_tests.cli.files import PRICES, daily_bars, put

Frame = pd.DataFrame


Damage = Callable[[Any], Any]


N = 90


@dataclass(frozen=True)
class Bad:
    """A damage to a file of two assets, `bad` in half of its rows.

    Attributes:
        damage: what is done to the rows of the bad asset.
        counts: rows by reason.
        bars: daily bars that are stored of the bad asset.
        refused: part of the message where nothing is stored.
        kind: the file's ending.
    """

    damage: Damage
    counts: dict[str, int] | None = None
    bars: int = N
    refused: str = ""
    kind: str = "parquet"


def rows(column: str, value: Any, at: slice = slice(5, 6)) -> Damage:
    return lambda bars: put(bars, column, value, at)


def prices(value: Any, at: slice = slice(None)) -> Damage:
    def damage(bars: Frame) -> Frame:
        for column in PRICES:
            bars = put(bars, column, value, at)
        return bars

    return damage


def scaled(factor: float) -> Damage:
    return lambda bars: bars.assign(**{name: bars[name] * factor for name in PRICES})


def scaled_at(factor: float) -> Damage:
    return lambda bars: pd.concat([bars[:5], scaled(factor)(bars[5:6]), bars[6:]])


def stamped(change: Callable[[Any], Any]) -> Damage:
    return lambda bars: bars.assign(ts=change(bars["ts"]))


def text(stamps: Any) -> Any:
    return stamps.dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch(unit: str) -> Callable[[Any], Any]:
    return lambda stamps: stamps.astype(f"datetime64[{unit}, UTC]").astype("int64")


def mixed_zones(stamps: Any) -> Any:
    tokyo = stamps.dt.tz_convert("Asia/Tokyo").dt.strftime("%Y-%m-%dT%H:%M:%S+09:00")
    return text(stamps).where(np.arange(len(stamps)) % 2 == 0, tokyo)


def mixed_epochs(stamps: Any) -> Any:
    seconds, milliseconds = epoch("s")(stamps), epoch("ms")(stamps)
    return seconds.where(np.arange(len(stamps)) % 3 > 0, milliseconds)


POLICIES: dict[str, Bad] = {
    # rows that are skipped
    "nan price": Bad(rows("close", np.nan), {"nan_price": 1, "gap": 1}, 89),
    "infinite price": Bad(rows("high", np.inf), {"infinite_price": 1, "gap": 1}, 89),
    "minus infinite price": Bad(rows("low", -np.inf), {"infinite_price": 1, "gap": 1}, 89),
    "negative price": Bad(rows("low", -1.0), {"non_positive_price": 1, "gap": 1}, 89),
    "zero price": Bad(rows("open", 0.0), {"non_positive_price": 1, "gap": 1}, 89),
    "high below low": Bad(rows("high", 10.0), {"high_below_low": 1, "gap": 1}, 89),
    "close above high": Bad(rows("close", 500.0), {"price_outside_range": 1, "gap": 1}, 89),
    "negative volume": Bad(rows("volume", -1.0), {"negative_volume": 1, "gap": 1}, 89),
    "equal duplicates": Bad(
        lambda b: pd.concat([b, b[3:5]]), {"duplicate_equal": 2, "unsorted": 1}
    ),
    "conflicting duplicates": Bad(
        lambda b: pd.concat([b, put(b, "close", 101.5)[5:6]]),
        {"duplicate_conflicting": 2, "gap": 1, "unsorted": 1},
        89,
    ),
    "stamp off the grid": Bad(
        lambda b: b.assign(ts=b["ts"].where(b.index != 5, b["ts"] + pd.Timedelta(hours=3))),
        {"misaligned_stamp": 1, "gap": 1},
        89,
    ),
    "bar of the future": Bad(
        lambda b: b.assign(ts=b["ts"].where(b.index != 89, pd.Timestamp("2099-01-01", tz="UTC"))),
        {"unfinished_bar": 1},
        89,
    ),
    "one price of 1e308": Bad(prices(1e308, slice(5, 6)), {"absurd_price": 1, "gap": 1}, 89),
    "one price of 1e-308": Bad(prices(1e-308, slice(5, 6)), {"absurd_price": 1, "gap": 1}, 89),
    "one price of 900 times": Bad(scaled_at(900.0), {"price_jump": 1, "gap": 1}, 89),
    # rows that are kept and counted
    "gap": Bad(lambda b: b.drop(index=[7, 8]), {"gap": 2}, 88),
    "out of order": Bad(lambda b: b[::-1], {"unsorted": 89}),
    "zero volume": Bad(rows("volume", 0.0), {"zero_volume": 1}),
    "nan volume": Bad(rows("volume", np.nan), {"missing_volume": 1}),
    "infinite volume": Bad(rows("volume", np.inf), {"missing_volume": 1}),
    "every volume of 1e308": Bad(rows("volume", 1e308, slice(None)), {"missing_volume": N}),
    # odd, and nothing is wrong
    "every price near 1e29": Bad(scaled(1e27), {}),
    "every price near 1e-28": Bad(scaled(1e-30), {}),
    "every volume of 1e30": Bad(rows("volume", 1e30, slice(None)), {}),
    "volume beyond an integer": Bad(
        lambda b: b.assign(volume=np.full(len(b), 2**64 - 1, np.uint64)), {}
    ),
    "whole numbers": Bad(
        lambda b: b.assign(**{name: b[name].round().astype(int) for name in (*PRICES, "volume")}),
        {},
    ),
    "numbers as text": Bad(lambda b: b.assign(**{n: b[n].astype(str) for n in PRICES}), {}),
    "extra column": Bad(lambda b: b.assign(market_cap=np.nan, note="x"), {}),
    "other zone": Bad(stamped(lambda ts: ts.dt.tz_convert("America/New_York")), {}),
    "mixed zones": Bad(stamped(mixed_zones), {}),
    "naive days": Bad(stamped(lambda ts: ts.dt.tz_localize(None)), {}),
    "epoch seconds": Bad(stamped(epoch("s")), {}),
    "epoch milliseconds": Bad(stamped(epoch("ms")), {}),
    "epoch microseconds": Bad(stamped(epoch("us")), {}),
    "epoch nanoseconds": Bad(stamped(epoch("ns")), {}),
    "seconds and milliseconds": Bad(stamped(mixed_epochs), {}),
    # a partition without bars
    "every price near 1e308": Bad(scaled(1e305), {"absurd_price": N, "no_complete_bar": 1}, 0),
    "no sound row": Bad(
        rows("close", np.nan, slice(None)), {"nan_price": N, "no_complete_bar": 1}, 0
    ),
    "only bars of the future": Bad(
        stamped(lambda ts: ts + pd.Timedelta(days=365 * 60)),
        {"unfinished_bar": N, "no_complete_bar": 1},
        0,
    ),
    # refused
    "naive hours": Bad(
        stamped(lambda ts: (ts + pd.Timedelta(hours=5)).dt.tz_localize(None)),
        refused="stamps without a time zone, such as 2024-01-01T05:00:00",
    ),
    "epoch beyond an integer": Bad(
        stamped(lambda ts: pd.Series(2.0**70, ts.index)), refused="bars.parquet: the stamps, the"
    ),
    "text epoch beyond an integer": Bad(
        stamped(lambda ts: pd.Series("9" * 30, ts.index)), refused="bars.parquet: the stamps, the"
    ),
    "dates as numbers": Bad(
        stamped(lambda ts: ts.dt.strftime("%Y%m%d").astype(int)),
        refused="20240101 is not a time since 1970",
    ),
    "infinite stamp": Bad(
        stamped(lambda ts: pd.Series(np.inf, ts.index)), refused="bars.parquet: the stamps, the"
    ),
    "missing stamp": Bad(
        lambda b: b.assign(ts=b["ts"].where(b.index != 5)), refused="1 of 180 rows have no stamp"
    ),
    "missing column": Bad(
        lambda b: pd.DataFrame(b.drop(columns="low")), refused="no column for 'low'"
    ),
    "renamed column": Bad(
        lambda b: pd.DataFrame(b.rename(columns={"close": "cloze"})), refused="did you mean 'cloze'"
    ),
    "text for a price": Bad(
        lambda b: b.assign(close="abc"), refused="row 1: column 'close': invalid value 'abc'"
    ),
    "a list for a price": Bad(
        lambda b: b.assign(close=[[1.0]] * len(b)),
        refused="column 'close' holds something that is no number",
    ),
    "text for a price in text": Bad(
        lambda b: b.assign(close="abc"), refused="line 2: column 'close': invalid value", kind="csv"
    ),
    "no name": Bad(
        lambda b: b.assign(symbol=b["symbol"].where(b.index != 5)), counts={"gap": 1}, bars=89
    ),
}


file_numbers = count()


def file_of(bad: Bad, folder: Path) -> tuple[Path, str, str]:
    """A file of a damaged asset and a sound one, and their names."""
    number = next(file_numbers)
    names = f"BAD{number}", f"GOOD{number}"
    whole: Any = pd.concat([daily_bars(N, name) for name in names], ignore_index=True)
    damaged = bad.damage(whole[:N])
    # A changed type or column is that of the file.
    same = damaged.dtypes.equals(whole.dtypes)
    good = whole[N:] if same else bad.damage(whole[N:].reset_index(drop=True))
    path = folder / f"bars.{bad.kind}"
    table = pd.concat([damaged, good], ignore_index=True)
    if bad.kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path, *names
