"""docs/strategist.md: its examples run as they show, and its tables are those of the code."""

from __future__ import annotations

import doctest
import re

from backtest_pipeline.plans.vocabulary import Category, Regime, ReplanReason
from backtest_pipeline.strategist.judge import WEIGHTS
from backtest_pipeline.strategist.regime_rules import RULES_BY_REGIME, RulesSettings
from backtest_pipeline.trading.direction import Direction
from backtest_pipeline_tests.documents import ROOT, blocks

PAGE = "docs/strategist.md"
TEXT = (ROOT / PAGE).read_text()


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of the table whose heading begins so, by the words of the first column."""
    table = TEXT.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_examples_run_as_they_show() -> None:
    text = "\n".join(blocks(PAGE, "python"))
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE, PAGE, 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert result.attempted > 25
    assert result.failed == 0


def test_the_tables_of_triggers_are_those_of_the_rules() -> None:
    by_regime, by_trigger = rows("regime | entries"), rows("trigger")
    assert by_regime.keys() == {regime.value for regime in Regime}
    for regime, rules in RULES_BY_REGIME.items():
        said = " ".join(by_regime[regime.value]).replace(" ", "_")
        assert {c for c in Category if c.value in said} == {rule.category for rule in rules}
        for rule in rules:
            shown = by_trigger[rule.category.value.replace("_", " ")]
            if rule.side is not Direction.SHORT and "55" not in f"{rule.entry}":
                assert f"`{rule.exit}`" in shown[1]
                assert rule.entry is None or f"`{rule.entry}`" in shown[0]


def test_the_tables_of_settings_reasons_and_weights_are_those_of_the_code() -> None:
    for name, (default, _) in rows("setting").items():
        assert default.strip("`") == f"{RulesSettings().model_dump(mode='json')[name]}"
    named = set(re.findall(r"`(\w+)`", TEXT.partition("## When a plan is due")[2]))
    assert {reason.value for reason in ReplanReason} <= named
    assert {name.replace(" ", "_"): float(row[0]) for name, row in rows("component").items()} == (
        dict(WEIGHTS)
    )
