"""Differences between two runs in words: their results, configurations, rows and code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from backtest_pipeline.market.panel import OHLCV, Panel, utc_index

Columns = Mapping[str, Sequence[Any]]
"""Trades by column, as `simulation.trades.trade_columns` names them; None where unknown."""


def first_differing_trade(one: Columns, other: Columns) -> int | None:
    """Position of the first trade that differs in any bit; None where none does.

    Columns that only one side has are ignored: they come from another version of the code.
    """
    shared = [name for name in one if name in other]
    lengths = [len(side["trade_no"]) for side in (one, other)]
    for i in range(min(lengths)):
        if any(one[name][i] != other[name][i] for name in shared):
            return i
    return min(lengths) if lengths[0] != lengths[1] else None


def trade_difference(one: Columns, other: Columns, *, names: tuple[str, str]) -> str | None:
    """The first differing trade in words; None where all trades are the same.

    Args:
        one, other: the trades of each side.
        names: labels of the sides, such as `stored` and `replayed`.
    """
    i = first_differing_trade(one, other)
    if i is None:
        return None
    counts = [len(side["trade_no"]) for side in (one, other)]
    if i >= min(counts):
        longer = 0 if counts[0] > counts[1] else 1
        entry = stamp((one, other)[longer]["entry_ts"][i])
        return f"trade {i + 1}, entered {entry}: only {names[longer]}"
    changed = [n for n in one if n in other and one[n][i] != other[n][i]]
    name = changed[0]
    values = [_shown(name, side[name][i]) for side in (one, other)]
    others = f", and {len(changed) - 1} more columns differ" if len(changed) > 1 else ""
    return (
        f"trade {i + 1}, entered {stamp(one['entry_ts'][i])}: {name} is {values[0]} "
        f"{names[0]} and {values[1]} {names[1]}{others}"
    )


def first_differing_bar(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> int | None:
    """Timestamp of the first bar that differs, or that only one curve has; None where none does.

    Args:
        one, other: timestamps (int64 microseconds UTC, ascending) and values of each curve.
    """
    common, of_one, of_other = np.intersect1d(
        one[0], other[0], assume_unique=True, return_indices=True
    )
    unequal = one[1][of_one] != other[1][of_other]
    alone = np.setxor1d(one[0], other[0], assume_unique=True)
    stamps = [*common[unequal][:1], *alone[:1]]
    return int(min(stamps)) if stamps else None


def metric_differences(
    stored: Mapping[str, float | None], replayed: Mapping[str, float | None]
) -> list[str]:
    """The replayed metrics that differ from the stored ones, in words; undefined is None."""
    return [
        f"{name} is {_number(stored.get(name))} stored and {_number(value)} replayed"
        for name, value in replayed.items()
        if stored.get(name) != value
    ]


def stamp(ts_us: int) -> str:
    """A timestamp as text, UTC, to the second."""
    return f"{utc_index(np.array([ts_us]))[0]:%F %T}"


def _shown(name: str, value: Any) -> str:
    return stamp(value) if name.endswith("_ts") else _number(value)


def _number(value: Any) -> str:
    return "undefined" if value is None else str(value)


def config_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The settings that differ between two configurations, such as `costs.fee_bps: 10 -> 20`."""
    flat = [dict(leaves(side)) for side in (one, other)]
    return [
        f"{key}: {flat[0].get(key, 'absent')} -> {flat[1].get(key, 'absent')}"
        for key in sorted({*flat[0], *flat[1]})
        if key not in flat[0] or key not in flat[1] or flat[0][key] != flat[1][key]
    ]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaf values of a JSON object, each with its path, such as `costs.fee_bps`."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path, value


def row_differences(one: Panel, other: Panel) -> list[str]:
    """The rows of one asset that differ between two versions, in words.

    Args:
        one, other: the rows of the asset in each version, with the same columns.
    """
    common, of_one, of_other = np.intersect1d(one.ts, other.ts, return_indices=True)
    unequal = {
        name: ~_same(one[name][of_one], other[name][of_other])
        for name in one.columns
        if name in other.columns
    }
    prices = [unequal[name] for name in OHLCV if name in unequal]
    bars = np.any(prices, axis=0) if prices else np.zeros(len(common), bool)
    derived = np.any(list(unequal.values()), axis=0) & ~bars
    added, gone = np.setdiff1d(other.ts, one.ts), np.setdiff1d(one.ts, other.ts)
    last = one.ts[-1] if len(one) else np.iinfo(np.int64).min
    changes = (
        (common[bars], "bars restated"),
        (
            common[derived],
            "bars with the same prices but different indicators"
            if prices
            else "bars with other values",
        ),
        (added[added > last], "bars appended"),
        (added[added <= last], "bars inserted"),
        (gone, "bars removed"),
    )
    return [
        f"{len(ts)} {what}, from {stamp(int(ts[0]))} to {stamp(int(ts[-1]))}"
        if len(ts) > 1
        else f"1 {what.replace('bars', 'bar', 1)}, {stamp(int(ts[0]))}"
        for ts, what in changes
        if len(ts)
    ]


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one == other) | (np.isnan(one) & np.isnan(other))


_COMPUTE = ("market", "strategies", "simulation", "research", "pipeline", "storage", "sources")


def code_differences(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> list[str]:
    """The source files that differ, among those that can affect a result.

    Args:
        one, other: source files by name, such as `backtest_pipeline/market/panel.py`.
    """
    changes = []
    for name in sorted({*one, *other}):
        layer = name.split("/")[1]
        if layer not in _COMPUTE or one.get(name) == other.get(name):
            continue
        how = "added" if name not in one else "removed" if name not in other else "changed"
        changes.append(f"{how} {name}")
    return changes
