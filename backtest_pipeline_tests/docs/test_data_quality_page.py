"""docs/data-quality.md says what the code does, and its queries run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from backtest_pipeline.market.validation import reasons_table
from backtest_pipeline.storage.postgres.database import Database

PAGE = (Path(__file__).parents[2] / "docs" / "data-quality.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"^-- [A-Z].*?;", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_has_the_reasons_of_the_code() -> None:
    assert reasons_table() in PAGE, (
        "docs/data-quality.md is not current; put in the place of its first table: python -c "
        "'from backtest_pipeline.market.validation import reasons_table; print(reasons_table())'"
    )


@pytest.mark.parametrize("query", QUERIES)
def test_its_queries_run(database: Database, query: str) -> None:
    with database.begin() as connection:
        assert connection.execute(sa.text(query)).all() == []


def test_it_has_queries() -> None:
    assert len(QUERIES) == 4
