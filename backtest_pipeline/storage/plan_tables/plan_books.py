"""The table `plan_books`: symbols at timeframes that one strategist plans for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import InvalidInput, UnknownName

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class PlanBook:
    """A row of `plan_books`.

    Attributes:
        book_id: its number in the store.
        name: what it is called.
        symbols: sorted, each once.
        timeframes: of the bars that it is planned and traded on, the shortest first.
        strategist: who plans.
        config: options of the strategist, JSON values.
        replans: settings of when it is planned again, JSON values.
        start: first day that the past is planned for; None for all of it.
        created_by, created_at: who added it, and when.
    """

    book_id: int
    name: str
    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    strategist: str
    config: Mapping[str, Any]
    replans: Mapping[str, Any]
    start: date | None
    created_by: str
    created_at: datetime


_SELECTED = """
    SELECT book_id, name, symbols, timeframes, strategist, config, replans, start, created_by,
           created_at
    FROM plan_books"""


def insert_book(
    connection: Connection,
    *,
    name: str,
    symbols: Sequence[str],
    timeframes: Sequence[str],
    strategist: str,
    config: Mapping[str, Any],
    replans: Mapping[str, Any],
    start: date | None,
    created_by: str,
) -> PlanBook:
    """Add a book; see `PlanBook` for the arguments.

    Raises:
        InvalidInput: for a name that cannot be one, or that another book has.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r:.80} cannot name a plan book; use up to 63 lower-case letters, digits, dots, "
            "dashes and underscores, and begin with a letter or digit"
        )
    row = {
        "name": name,
        "symbols": sorted(set(symbols)),
        "timeframes": list(timeframes),
        "strategist": strategist,
        "config": json.dumps(dict(config), allow_nan=False),
        "replans": json.dumps(dict(replans), allow_nan=False),
        "start": start,
        "created_by": created_by,
    }
    inserted = connection.execute(
        text("""
            INSERT INTO plan_books (name, symbols, timeframes, strategist, config, replans, start,
                                    created_by)
            VALUES (:name, :symbols, :timeframes, :strategist, CAST(:config AS jsonb),
                    CAST(:replans AS jsonb), :start, :created_by)
            ON CONFLICT (name) DO NOTHING RETURNING book_id
        """),
        row,
    )
    if inserted.first() is None:
        raise InvalidInput(
            f"there is a plan book {name} already; choose another name, or remove that one first "
            f"with `backtest-pipeline plans book remove {name}`"
        )
    return read_book(connection, name)


def read_book(connection: Connection, name: str) -> PlanBook:
    """The book of this name; raises UnknownName where there is none."""
    found = _books(connection, " WHERE name = :name", {"name": name})
    if not found:
        names = connection.execute(text("SELECT name FROM plan_books ORDER BY name")).scalars()
        raise UnknownName("plan book", name, list(names))
    return found[0]


def list_books(
    connection: Connection,
    *,
    timeframes: Sequence[str] | None = None,
    symbols: Sequence[str] | None = None,
) -> list[PlanBook]:
    """All books by name; of these timeframes, and of one of these symbols alone, where given."""
    conditions, bound = ["TRUE"], {}
    if timeframes is not None:
        conditions.append("timeframes && CAST(:timeframes AS text[])")
        bound["timeframes"] = list(timeframes)
    if symbols is not None:
        conditions.append("cardinality(symbols) = 1 AND symbols[1] = ANY(:symbols)")
        bound["symbols"] = list(symbols)
    return _books(connection, f" WHERE {' AND '.join(conditions)}", bound)


def lock_book(connection: Connection, book_id: int) -> bool:
    """Lock a book until the transaction ends; returns whether it is still there."""
    found = connection.execute(
        text("SELECT FROM plan_books WHERE book_id = :book_id FOR UPDATE"), {"book_id": book_id}
    )
    return found.first() is not None


def delete_book(connection: Connection, name: str) -> None:
    """Delete a book with its plans and requests; runs that followed them keep their copies.

    Raises:
        UnknownName: where there is none of this name.
    """
    book = read_book(connection, name)
    connection.execute(
        text("DELETE FROM plan_books WHERE book_id = :book_id"), {"book_id": book.book_id}
    )


def _books(connection: Connection, where: str, bound: Mapping[str, Any]) -> list[PlanBook]:
    rows = connection.execute(text(f"{_SELECTED}{where} ORDER BY name"), dict(bound))
    return [
        PlanBook(**{**row, **{name: tuple(row[name]) for name in ("symbols", "timeframes")}})  # pyright: ignore[reportArgumentType]
        for row in rows.mappings()
    ]
