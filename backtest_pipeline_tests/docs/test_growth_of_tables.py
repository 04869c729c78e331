"""Every table has a rule that bounds it, which the documentation names."""

from __future__ import annotations

import re

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.documents import ROOT
from backtest_pipeline_tests.sql import column


def test_the_growth_of_every_table_is_bounded_by_a_rule(database: Database) -> None:
    document = (ROOT / "docs/operations.md").read_text()
    section = document.partition("## What grows, and what bounds it")[2]
    table = section.partition("| tables | rows |")[2].partition("\n\n")[0]
    subjects = [row.split("|")[1] for row in table.strip().splitlines()]
    named = [name for subject in subjects for name in re.findall(r"`(\w+)`", subject)]
    there = column(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert sorted(named) == sorted(there)
