"""An edit of one strategy computes that strategy, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.stages.tradable_signals import stored_signals
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.strategies.known_strategies import look_again
from backtest_pipeline_tests.own_strategies import DIP, own_strategies, write
from backtest_pipeline_tests.pipeline.markets import refresh, until
from backtest_pipeline_tests.sql import rows, scalar

PARTITIONS = [Partition("S-ALPHA", "1W"), Partition("S-ZETA", "1W")]
EDITS = 20
COUNTED = DIP.replace(
    "    close =", "    with open(COUNT, 'a') as file:\n        file.write('x')\n    close ="
)
RULES = """
name = "dip_rules"
long_entry = "close < mean(close, n) - 2 * std(close, n, ddof=1)"
long_exit = "close > mean(close, n)"
[params]
n = { default = 20, min = 2, max = 100 }
[presets.dip_rules_20]
n = 20
"""
RUNS = "SELECT strategy, count(*) AS n FROM backtest_runs GROUP BY strategy"
TRIALS = "SELECT strategy, count(*) AS n FROM trials GROUP BY strategy"
OTHERS = """
    SELECT md5(string_agg(s.*::text, '' ORDER BY s.signal_id, s.id, s.tf, s.ts, s.action))
    FROM signals s JOIN dim_signals d USING (signal_id) WHERE d.strategy <> 'dip_rules'
"""  # with the instant at which each row was written
FEATURES = "SELECT md5(string_agg(f.*::text, '' ORDER BY f.id, f.tf, f.ts)) FROM cmc_features f"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    dip = COUNTED.replace("COUNT", repr(str(tmp_path / "computed")))
    files = {"dip.py": dip, "dip_rules.toml": RULES}
    with own_strategies(tmp_path / "strategies", files) as folder:
        yield folder


def _counts(workspace: Workspace, query: str) -> dict[str, int]:
    return {row["strategy"]: row["n"] for row in rows(workspace, query)}


def test_an_edit_computes_the_conditions_of_that_strategy_alone(
    workspace: Workspace, folder: Path, tmp_path: Path
) -> None:
    computed = tmp_path / "computed"
    source, partitions = until("2025-06-01"), PARTITIONS[:1]
    refresh(workspace, source, partitions)
    before = len(computed.read_text())
    masks = stored_masks(workspace)
    write(folder, "dip_rules.toml", RULES.replace("- 2 *", "- 1 *"))
    look_again()
    assert refresh(workspace, source, partitions)["signals"].counts == {"stored": 1}
    assert len(computed.read_text()) == before
    edited = stored_masks(workspace)
    assert [name for name in masks if edited[name] != masks[name]] == ["dip_rules_20"]
    refresh(workspace, source, partitions, rebuild=True)
    assert len(computed.read_text()) > before
    assert stored_masks(workspace) == edited


def stored_masks(workspace: Workspace) -> dict[str, list[int]]:
    """The stored conditions by preset."""
    stored = stored_signals(workspace, PARTITIONS[:1]).load("1W", ["S-ALPHA"]).stored
    return {
        signal.name: conditions.tolist()
        for signal, conditions in zip(stored.signals, stored.conditions, strict=True)
    }


@pytest.mark.slow
def test_twenty_edits_compute_twenty_times_that_strategy(
    workspace: Workspace, folder: Path, tmp_path: Path
) -> None:
    source = until("2025-06-01")
    refresh(workspace, source, PARTITIONS)
    runs, trials = _counts(workspace, RUNS), _counts(workspace, TRIALS)
    assert runs["dip"] == runs["dip_rules"] == len(PARTITIONS)
    others, features = scalar(workspace, OTHERS), scalar(workspace, FEATURES)
    computed = (tmp_path / "computed").read_text()
    for n in range(EDITS):
        write(folder, "dip_rules.toml", RULES.replace("- 2 *", f"- {1 + n / 100} *"))
        look_again()
        reports = refresh(workspace, source, PARTITIONS)
        for stage in ("bars", "features"):
            assert reports[stage].counts == {"unchanged": len(PARTITIONS)}
    made = EDITS * len(PARTITIONS)
    assert _counts(workspace, RUNS) == {**runs, "dip_rules": runs["dip_rules"] + made}
    assert _counts(workspace, TRIALS) == {**trials, "dip_rules": trials["dip_rules"] + made}
    assert scalar(workspace, OTHERS) == others
    assert (tmp_path / "computed").read_text() == computed
    assert scalar(workspace, FEATURES) == features
    assert refresh(workspace, source, PARTITIONS)["backtests"].rows == 0
