"""The reasons of blocked entries are those that the table allows."""

from __future__ import annotations

import re
from pathlib import Path

from backtest_pipeline.trading.block_reasons import BlockClass, BlockReason

TABLE = Path(__file__).parents[2] / "sql/baseline/07_plans_and_blocks.sql"


def _allowed(column: str) -> list[str]:
    check = re.search(rf"CHECK \({column} IN \((.*?)\)\)", TABLE.read_text(), re.DOTALL)
    assert check is not None
    return re.findall(r"'(\w+)'", check[1])


def test_the_table_allows_these_reasons_and_classes_and_no_others() -> None:
    assert _allowed("reason") == [reason.value for reason in BlockReason]
    assert _allowed("class") == [one.value for one in BlockClass]


def test_only_other_tells_no_class() -> None:
    unknown = [r for r in BlockReason if r.block_class is BlockClass.UNKNOWN]
    assert unknown == [BlockReason.OTHER]
