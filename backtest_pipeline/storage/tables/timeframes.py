"""The rows of `dim_timeframe`: the timeframes that a store knows, and those that are refreshed.

A timeframe follows from its name, so a row only declares it. A row that says something else than
its name is left out, and refused where its timeframe is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.timeframes import (
    DAY_US,
    MICROSECONDS,
    SHIPPED,
    Timeframe,
    is_timeframe,
    timeframe,
)

_UNIT_WORDS = {
    "MIN": "minute",
    "H": "hour",
    "D": "day",
    "W": "week",
    "M": "month",
    "Q": "quarter",
    "Y": "year",
}
_MINUTES_OF_A_DAY = DAY_US // MICROSECONDS["MIN"]
_DEFINING = (
    *("base_unit", "tf_qty", "is_intraday", "alignment_type", "calendar_scheme", "roll_policy"),
    *("allow_partial_start", "allow_partial_end"),
)


@dataclass(frozen=True)
class TimeframeRow:
    """One row of `dim_timeframe`.

    Attributes:
        name, label: as in the table.
        is_shipped: whether every store has the row; False for rows that were added.
        is_refreshed: whether refreshes compute it, besides those of BACKTEST_TIMEFRAMES.
        n_assets: assets with stored bars of it.
        contradiction: where the row contradicts its name, and what to do; empty for a sound one.
    """

    name: str
    label: str
    is_shipped: bool
    is_refreshed: bool
    n_assets: int
    contradiction: str


def sync_timeframes(connection: sa.Connection) -> None:
    """Write the rows of all shipped timeframes; other rows are kept."""
    names = list(timeframe_row(timeframe("1D")))
    updates = ", ".join(f"{name} = EXCLUDED.{name}" for name in names if name != "tf")
    _insert(connection, SHIPPED, f"(tf) DO UPDATE SET {updates}")


def declare_timeframes(connection: sa.Connection, names: Iterable[str]) -> None:
    """Write the rows of these timeframes where they are missing, for what is to be stored of them.

    Raises:
        InvalidInput: where a row contradicts its name.
    """
    wanted = sorted(set(names))
    found = _rows(connection, wanted)
    missing = [name for name in wanted if name not in found]
    if missing:
        _insert(connection, missing, "(tf) DO NOTHING")
    for row in found.values():
        if contradiction := _contradiction(row):
            raise InvalidInput(contradiction)


def add_timeframe(connection: sa.Connection, name: str) -> None:
    """Have every refresh compute a timeframe; its row is written if it is missing.

    Raises:
        InvalidInput: where the row contradicts its name.
    """
    declare_timeframes(connection, [name])
    connection.execute(
        sa.text("UPDATE dim_timeframe SET is_refreshed = TRUE WHERE tf = :tf"), {"tf": name}
    )


def remove_timeframe(connection: sa.Connection, name: str) -> None:
    """Take a timeframe out of refreshes, and its row out of the table unless it is a shipped one.

    Raises:
        UnknownName: where it has no row.
    """
    deleted = connection.execute(
        sa.text("DELETE FROM dim_timeframe WHERE tf = :tf"), {"tf": name}
    ).rowcount
    if not deleted:
        raise UnknownName("timeframe of this store", name, _rows(connection))
    if name in SHIPPED:
        _insert(connection, [name], "(tf) DO NOTHING")


def timeframe_rows(connection: sa.Connection) -> list[TimeframeRow]:
    """All rows, by nominal length."""
    query = sa.text("""
        SELECT t.*, (SELECT count(DISTINCT v.id) FROM dataset_versions v
                     WHERE v.tf = t.tf AND v.dataset IN ('bars', 'features') AND v.n_rows > 0) AS n
        FROM dim_timeframe t ORDER BY t.tf_days_nominal, t.tf
    """)
    return [
        TimeframeRow(
            name=row["tf"],
            label=row["label"],
            is_shipped=row["tf"] in SHIPPED,
            is_refreshed=row["is_refreshed"],
            n_assets=row["n"],
            contradiction=_contradiction(row),
        )
        for row in (row._asdict() for row in connection.execute(query))
    ]


def require_refreshed(wanted: Iterable[str], names: Sequence[str]) -> None:
    """Raise InvalidInput for a timeframe that refreshes do not compute.

    Args:
        wanted: the timeframes.
        names: from `refreshed_timeframes`.
    """
    for name in wanted:
        if timeframe(name).name not in names:
            raise InvalidInput(
                f"timeframe {name} is not one of this project: {', '.join(names)}; add it to "
                f"BACKTEST_TIMEFRAMES, or by `backtest-pipeline timeframes add {name}`"
            )


def refreshed_timeframes(connection: sa.Connection, named: Iterable[str]) -> tuple[str, ...]:
    """The timeframes that a refresh of everything computes, by nominal length.

    Args:
        connection: any transaction.
        named: those of the setting BACKTEST_TIMEFRAMES.
    """
    of_rows = _rows(connection, refreshed_only=True).values()
    sound = {row["tf"] for row in of_rows if not _contradiction(row)}
    return tuple(sorted({*named, *sound}, key=lambda name: timeframe(name).sort_key))


def timeframe_row(timeframe: Timeframe) -> dict[str, Any]:
    """The row of `dim_timeframe` for one timeframe, without what the store decides."""
    shortest, longest = timeframe.days_range
    word = _UNIT_WORDS[timeframe.unit] + ("s" if timeframe.quantity > 1 else "")
    kind = "calendar " if timeframe.is_calendar else ""
    anchored = ", counted anew each year" if timeframe.anchored else ""
    of_year = " of the year" if timeframe.anchored else ""
    week = f" ({timeframe.week} weeks)" if timeframe.week else ""
    return {
        "tf": timeframe.name,
        "label": f"{timeframe.quantity} {kind}{word}{of_year}{week}",
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
        "sort_order": round(timeframe.days * _MINUTES_OF_A_DAY),
        "is_canonical": not timeframe.anchored,
        "allow_partial_start": timeframe.anchored,
        "allow_partial_end": timeframe.anchored,
        "description": f"Complete bars of {timeframe.quantity} {kind}{word}{week}{anchored}",
    }


def _calendar_anchor(timeframe: Timeframe) -> str | None:
    if not timeframe.is_calendar:
        return None
    if timeframe.unit == "W":
        return "ISO-WEEK" if timeframe.week == "ISO" else "WEEK_END"
    if timeframe.unit == "Y" or timeframe.days == 365:
        return "EOY"
    return "EOQ" if timeframe.unit == "Q" or timeframe.days == 365 / 4 else "EOM"


def _insert(connection: sa.Connection, names: Iterable[str], on_conflict: str) -> None:
    rows = [{**timeframe_row(timeframe(name)), "is_refreshed": False} for name in names]
    columns = list(rows[0])
    connection.execute(
        sa.text(
            f"INSERT INTO dim_timeframe ({', '.join(columns)})"  # noqa: S608 (our own column names)
            f" VALUES ({', '.join(':' + column for column in columns)}) ON CONFLICT {on_conflict}"
        ),
        rows,
    )


def _rows(
    connection: sa.Connection, names: Iterable[str] | None = None, *, refreshed_only: bool = False
) -> dict[str, Mapping[str, Any]]:
    query = sa.text(
        "SELECT * FROM dim_timeframe WHERE (CAST(:names AS text[]) IS NULL OR tf = ANY(:names))"
        " AND (is_refreshed OR NOT :refreshed_only)"
    )
    values = {
        "names": None if names is None else list(names),
        "refreshed_only": refreshed_only,
    }
    return {row.tf: row._asdict() for row in connection.execute(query, values)}


def _contradiction(row: Mapping[str, Any]) -> str:
    """Where a row contradicts its name, and what to do; empty for a sound one."""
    name = row["tf"]
    if not is_timeframe(name):
        return (
            f"dim_timeframe has a row {name!r}, which is no name of a timeframe; name it "
            "<n><unit>[_CAL[_ANCHOR]][_ISO|_US], such as 7D, 1Q or 2W_CAL_ISO"
        )
    meant = timeframe_row(timeframe(name))
    wrong = [field for field in _DEFINING if row[field] != meant[field]]
    if not wrong:
        return ""
    said = " and ".join(f"{field} = {row[field]}, not {meant[field]}," for field in wrong)
    return (
        f"dim_timeframe says of {name} that {said} as its name does; correct the row, or delete it "
        f"and run `backtest-pipeline timeframes add {name}`"
    )
