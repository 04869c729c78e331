"""Cursors give back the key that they were made of, or are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.storage.postgres.pages import cursor_of, key_of, page_of, require_limit

KEY = (datetime.fromisoformat, UUID)


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_cursor_gives_back_its_key(at: datetime, run_id: UUID) -> None:
    cursor = cursor_of(at, run_id)
    assert key_of(cursor, *KEY) == (at, run_id)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


GOOD = cursor_of(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), UUID(int=7))


@given(st.integers(0, len(GOOD) - 1), st.characters(), st.booleans())
def test_a_damaged_cursor_is_refused_or_a_key_of_the_list(at: int, other: str, cut: bool) -> None:
    damaged = GOOD[:at] if cut else GOOD[:at] + other + GOOD[at + 1 :]
    try:
        key = key_of(damaged, *KEY)
    except InvalidInput:
        return
    assert isinstance(key[0], datetime)
    assert isinstance(key[1], UUID)
    assert cursor_of(*key) == damaged


@pytest.mark.parametrize("text", ["", "x", "é", "bnVsbA", cursor_of(1), "W10", "A" * 5000])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="no cursor"):
        key_of(text, *KEY)


def test_the_last_page_has_no_next() -> None:
    rows = [{"n": i} for i in range(3)]
    assert page_of(rows, 3, "n").next is None
    assert page_of(rows, 2, "n").next == cursor_of(1)
    assert len(page_of(rows, 2, "n").rows) == 2


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_has_a_limit(limit: int) -> None:
    with pytest.raises(InvalidInput, match="from 1 to 1000"):
        require_limit(limit)
