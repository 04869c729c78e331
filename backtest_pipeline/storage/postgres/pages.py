"""Keyset pagination of long lists: each page starts after the last key of the previous one.

Every page costs the same, and rows added or removed in the meantime neither repeat nor hide other
rows.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from backtest_pipeline.market.errors import InvalidInput

T = TypeVar("T")
MOST_ROWS = 1000
_LONGEST = 1000


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes:
        rows: its rows, in the list's order.
        next: cursor of the next page; None on the last page.
    """

    rows: tuple[T, ...]
    next: str | None


def page_of(rows: Sequence[Mapping[str, Any]], limit: int, *key: str) -> Page[dict[str, Any]]:
    """Build a page from up to `limit + 1` rows; the extra row shows that there is a next page.

    Args:
        rows: at most `limit + 1` rows.
        limit: rows per page.
        key: the columns that the list is ordered by; together they are unique.
    """
    shown = tuple(dict(row) for row in rows[:limit])
    last = shown[-1] if len(rows) > limit else None
    return Page(shown, None if last is None else cursor_of(*(last[name] for name in key)))


def require_limit(limit: int) -> int:
    """The limit itself; raises InvalidInput if it is out of range."""
    if not 1 <= limit <= MOST_ROWS:
        raise InvalidInput(f"limit must be from 1 to {MOST_ROWS}, not {limit}")
    return limit


def equal(columns: Mapping[str, Any], bound: dict[str, Any]) -> Iterator[str]:
    """Conditions that columns equal the values that are given; None is any.

    Args:
        columns: the value to look for, by column, with or without its table before a dot.
        bound: takes the values.
    """
    for column, value in columns.items():
        if value is not None:
            name = column.rpartition(".")[2]
            bound[name] = value
            yield f"{column} = :{name}"


def older(after: str | None, at: str, row_id: str, bound: dict[str, Any]) -> Iterator[str]:
    """The condition that a list with the newest first goes on after a cursor.

    Args:
        after: cursor of the page before; None for the first page, which has no condition.
        at, row_id: the columns that the list is ordered by, an instant and a UUID.
        bound: takes the values.

    Raises:
        InvalidInput: for a damaged cursor.
    """
    if after is not None:
        bound["after_at"], bound["after_id"] = newest_first_key(after)
        yield f"({at}, {row_id}) < (:after_at, :after_id)"


def newest_first_key(cursor: str) -> tuple[datetime, UUID]:
    """The instant and the id in a cursor of a list with the newest first; raises as `key_of`."""
    at, row_id = key_of(cursor, datetime.fromisoformat, UUID)
    return at, row_id


def cursor_of(*key: object) -> str:
    """A key as an opaque, URL-safe cursor."""
    written = json.dumps([str(part) for part in key], separators=(",", ":"))
    return base64.urlsafe_b64encode(written.encode()).decode().rstrip("=")


def key_of(cursor: str, *parts: Callable[[str], Any]) -> tuple[Any, ...]:
    """The key encoded in a cursor.

    Args:
        cursor: `next` of a page.
        parts: function that parses each part of the key, such as `UUID`.

    Raises:
        InvalidInput: for a cursor that `cursor_of` cannot have made from such a key.
    """
    try:
        if len(cursor) > _LONGEST:
            raise ValueError("too long")
        padded = cursor + "=" * (-len(cursor) % 4)
        written = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        key = tuple(read(part) for read, part in zip(parts, written, strict=True))
        if cursor_of(*key) != cursor:
            raise ValueError("not as it was made")
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise InvalidInput(
            f"{cursor[:40]!r} is not a cursor of this list; use `next` of the previous page, or no "
            "cursor for the first page"
        ) from None
    return key
