"""The rows of `dim_timeframe` and `dim_assets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.timeframes import DAY_US, TIMEFRAMES, Timeframe
from backtest_pipeline.storage.database import Database

_UNIT_WORDS = {"MIN": "minute", "H": "hour", "D": "day", "W": "week", "M": "month", "Y": "year"}
_LENGTHS_IN_DAYS = {"M": (28, 31), "Y": (365, 366)}


def sync_timeframes(connection: sa.Connection) -> None:
    """Make `dim_timeframe` hold what the code knows; rows that it does not know stay."""
    rows = [timeframe_row(timeframe) for timeframe in TIMEFRAMES.values()]
    names = list(rows[0])
    updates = ", ".join(f"{name} = EXCLUDED.{name}" for name in names if name != "tf")
    connection.execute(
        sa.text(
            f"INSERT INTO dim_timeframe ({', '.join(names)})"  # noqa: S608 (our own column names)
            f" VALUES ({', '.join(':' + name for name in names)})"
            f" ON CONFLICT (tf) DO UPDATE SET {updates}"
        ),
        rows,
    )


def timeframe_row(timeframe: Timeframe) -> dict[str, Any]:
    """The row of `dim_timeframe` for one timeframe."""
    shortest, longest = _days_range(timeframe)
    word = _UNIT_WORDS[timeframe.unit] + ("s" if timeframe.quantity > 1 else "")
    kind = "calendar " if timeframe.is_calendar else ""
    anchored = ", counted anew each year" if timeframe.anchored else ""
    week = f" ({timeframe.week} weeks)" if timeframe.week else ""
    return {
        "tf": timeframe.name,
        "label": f"{timeframe.quantity} {kind}{word}{week}",
        "base_unit": timeframe.unit,
        "tf_qty": timeframe.quantity,
        "tf_days_nominal": timeframe.days,
        "tf_days_min": shortest,
        "tf_days_max": longest,
        "alignment_type": "calendar" if timeframe.is_calendar else "tf_day",
        "calendar_anchor": _calendar_anchor(timeframe),
        "calendar_scheme": timeframe.week or None,
        "roll_policy": "calendar_anchor" if timeframe.is_calendar else "multiple_of_tf",
        "has_roll_flag": timeframe.is_calendar,
        "is_intraday": timeframe.is_intraday,
        "sort_order": timeframe.sort_order,
        "is_canonical": not timeframe.anchored,
        "allow_partial_start": timeframe.anchored,
        "allow_partial_end": timeframe.anchored,
        "description": f"Complete bars of {timeframe.quantity} {kind}{word}{week}{anchored}",
    }


def _days_range(timeframe: Timeframe) -> tuple[float, float]:
    if timeframe.length_us is not None:
        days = timeframe.length_us / DAY_US
        return days, days
    if timeframe.unit == "W":  # the year's last period may be a single week
        return 7.0, 7.0 * timeframe.quantity
    shortest, longest = _LENGTHS_IN_DAYS[timeframe.unit]
    return float(shortest * timeframe.quantity), float(longest * timeframe.quantity)


def _calendar_anchor(timeframe: Timeframe) -> str | None:
    if not timeframe.is_calendar:
        return None
    if timeframe.unit == "W":
        return "ISO-WEEK" if timeframe.week == "ISO" else "WEEK_END"
    months = timeframe.quantity * (12 if timeframe.unit == "Y" else 1)
    return {3: "EOQ", 12: "EOY"}.get(months, "EOM")


def ensure_assets(
    database: Database,
    symbols: Sequence[str],
    *,
    source: str | None = None,
    is_synthetic: bool = False,
    known_ids: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """The id of each symbol; symbols without a row get one, with their known id or a new one."""
    insert = sa.text(
        "INSERT INTO dim_assets (id, symbol, source, is_synthetic)"
        " VALUES (coalesce(:id, nextval('asset_id_seq')), :symbol, :source, :is_synthetic)"
        " ON CONFLICT (symbol) DO NOTHING"
    ).bindparams(sa.bindparam("id", type_=sa.Integer))
    with database.begin() as connection:
        stored = _ids(connection, symbols)
        rows = [
            {
                "id": (known_ids or {}).get(symbol),
                "symbol": symbol,
                "source": source,
                "is_synthetic": is_synthetic,
            }
            for symbol in symbols
            if symbol not in stored
        ]
        if rows:
            connection.execute(insert, rows)
            stored = _ids(connection, symbols)
    return {symbol: stored[symbol] for symbol in symbols}


def asset_ids(database: Database, symbols: Sequence[str]) -> dict[str, int]:
    """The id of each symbol, in the order given; raises UnknownName for one without a row."""
    with database.begin() as connection:
        stored = _ids(connection, symbols)
        for symbol in symbols:
            if symbol not in stored:
                everything = connection.scalars(sa.text("SELECT symbol FROM dim_assets"))
                raise UnknownName("asset", symbol, everything)
    return {symbol: stored[symbol] for symbol in symbols}


def _ids(connection: sa.Connection, symbols: Sequence[str]) -> dict[str, int]:
    query = sa.text("SELECT symbol, id FROM dim_assets WHERE symbol = ANY(:symbols)")
    return {row.symbol: row.id for row in connection.execute(query, {"symbols": list(symbols)})}
