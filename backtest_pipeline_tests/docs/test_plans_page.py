"""docs/plans.md shows what happens, and explains every field, reason and detail."""

from __future__ import annotations

import re

import pytest

from backtest_pipeline.plans.limits import RiskLimits
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.simulation.blocked_entries import CAUSES
from backtest_pipeline.simulation.engine import BELOW_LOT, BELOW_NOTIONAL, WITHOUT_STOP
from backtest_pipeline.trading.block_reasons import BlockReason
from backtest_pipeline_tests.documents import ROOT, blocks

PAGE = (ROOT / "docs/plans.md").read_text()
OF_THE_ACCOUNT = (BELOW_LOT, BELOW_NOTIONAL, WITHOUT_STOP)  # docs/simulation.md has these


def test_the_example_prints_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("docs/plans.md", "python")
    exec(compile(example, "docs/plans.md", "exec"), {})  # noqa: S102 - our own document
    (shown,) = re.findall(r"```\n\n```\n(.*?)```", PAGE, re.DOTALL)
    assert capsys.readouterr().out == shown


def test_every_field_is_explained() -> None:
    for name in (*Plan.model_fields, *Trigger.model_fields):
        assert f"`{name}`" in PAGE, name
    for name in RiskLimits.model_fields:
        assert f"`limits.{name}`" in PAGE, name


def test_every_cause_is_a_row_with_its_reason_and_class() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for code, cause in CAUSES.items():
        if code in OF_THE_ACCOUNT:
            continue
        told = [row for row in rows if row.endswith(f"| {cause.detail} |")]
        assert told, cause.detail
        if cause.reason is not BlockReason.EMERGENCY_EXIT_VETO:
            reason = f"| `{cause.reason}` | `{cause.reason.block_class}` |"
            assert any(reason in row for row in told), cause.detail


def test_every_reason_is_named() -> None:
    for reason in BlockReason:
        assert f"`{reason}`" in PAGE, reason
