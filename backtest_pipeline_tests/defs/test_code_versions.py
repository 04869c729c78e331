"""Code versions follow the strategies of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.stored_events import lineages_of

RULES = """name = "mine"
long_entry = "close > ema_{fast}"
long_exit = "close < ema_{fast}"
"""


def test_code_versions_name_own_strategies_as_they_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_STRATEGIES", str(tmp_path))
    monkeypatch.setenv("BACKTEST_STRATEGIES_TRUST", "true")

    def codes() -> dict[str, str | None]:
        lineages = lineages_of(build_definitions())
        return {name: lineage.code_version for name, lineage in lineages.items()}

    without = codes()
    (tmp_path / "mine.toml").write_text(RULES.format(fast=21))
    first = codes()
    (tmp_path / "mine.toml").write_text(RULES.format(fast=50))
    edited = codes()
    of_strategies = {"signals", "backtests", "walk_forward", "negative_controls"}
    for name, code in edited.items():
        different = {without[name], first[name], code}
        assert len(different) == (3 if name in of_strategies else 1), name
    versions = {len(str(code)) for code in (without["backtests"], edited["backtests"])}
    assert len(versions) == 1, "the event of each partition has it: it must not grow"
    specs = {spec.key.path[-1]: spec for spec in build_definitions().resolve_all_asset_specs()}
    assert ", mine " in specs["backtests"].metadata["strategies"]
