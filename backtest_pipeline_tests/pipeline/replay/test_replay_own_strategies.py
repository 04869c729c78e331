"""Runs of a user's own strategy are replayed after its file has changed, and after it is gone."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from backtest_pipeline.market.errors import LooksAhead, StrategyRefused
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.presets import left_out_presets
from backtest_pipeline.pipeline.replay.export import export_bundle
from backtest_pipeline.pipeline.replay.replay import Code, ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.specs import RunSpec
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.strategies.known_strategies import catalogue, look_again, use_folder
from backtest_pipeline.strategies.own import loading, packages
from backtest_pipeline.strategies.own.packages import GROUP
from backtest_pipeline_tests.leaky import PEEKER
from backtest_pipeline_tests.own_strategies import DIP, own_strategies, write
from backtest_pipeline_tests.pipeline.markets import refresh, until
from backtest_pipeline_tests.sql import column

RULES = """
name = "rules_dip"
long_entry = "crosses_below(close, mean(close, n))"
long_exit = "close > mean(close, n)"
[params]
n = { default = 20, min = 2, max = 100 }
[presets.rules_dip_20]
n = 20
"""
PARTITIONS = [Partition("S-ALPHA", "1D")]
MINE = "SELECT run_id FROM backtest_runs WHERE strategy = :name ORDER BY completed_at"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    files = {"dip.py": DIP, "rules_dip.toml": RULES}
    with own_strategies(tmp_path / "strategies", files) as folder:
        yield folder


def _runs(workspace: Workspace, name: str) -> list[str]:
    return [str(found) for found in column(workspace, MINE, name=name)]


def test_a_run_is_replayed_from_the_files_that_made_it(workspace: Workspace, folder: Path) -> None:
    refresh(workspace, until("2026-01-01"), PARTITIONS)
    edits = {
        "dip.py": ("- params.z", "- 0.5 * params.z"),
        "rules_dip.toml": ("close > mean(", "close > 1.02 * mean("),
    }
    for file, (old, new) in edits.items():
        text = (folder / file).read_text()
        assert old in text
        write(folder, file, text.replace(old, new))
    look_again()
    refresh(workspace, until("2026-01-01"), PARTITIONS)
    ids = [*_runs(workspace, "dip"), *_runs(workspace, "rules_dip")]
    assert len(ids) == 4
    for file in edits:
        (folder / file).unlink()
    look_again()
    found = replay_runs(workspace, ids)
    assert [one.verdict for one in found] == [ReplayVerdict.SAME] * 4
    assert found[0].found != found[1].found
    assert found[2].found != found[3].found
    assert all(one.is_own_code for one in found)


def test_today_s_file_is_replayed_where_today_s_code_is_asked_for(
    workspace: Workspace, folder: Path
) -> None:
    refresh(workspace, until("2026-01-01"), PARTITIONS)
    write(folder, "dip.py", DIP.replace("- params.z", "- 0.5 * params.z"))
    look_again()
    (run_id,) = _runs(workspace, "dip")
    (today,) = replay_runs(workspace, [run_id], code=Code.INSTALLED)
    assert today.verdict is ReplayVerdict.DIFFERS
    assert not today.quarantine


def test_a_bundle_holds_the_files_of_the_strategy(
    workspace: Workspace, folder: Path, tmp_path: Path
) -> None:
    refresh(workspace, until("2026-01-01"), PARTITIONS)
    (run_id,) = _runs(workspace, "dip")
    path = export_bundle(workspace, UUID(run_id), tmp_path / "run.zip")
    with zipfile.ZipFile(path) as bundle:
        assert bundle.read("strategy/dip.py").decode() == DIP
        assert "strategy/dip.py" in json.loads(bundle.read("manifest.json"))["files"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed distribution with the strategy `dip`, whose modules import each other."""
    site = tmp_path / "site"
    rule, _, declared = DIP.partition("STRATEGY =")
    for name, text in {
        "deep_dips/__init__.py": "",
        "deep_dips/rules.py": rule,
        "deep_dips/dips.py": f"from deep_dips.rules import *\nSTRATEGY ={declared}",
        "deep_dips-1.2.dist-info/METADATA": "Name: deep-dips\nVersion: 1.2\n",
        "deep_dips-1.2.dist-info/entry_points.txt": f"[{GROUP}]\ndip = deep_dips.dips\n",
    }.items():
        write(site, name, text)
    monkeypatch.syspath_prepend(str(site))
    loading._packages.cache_clear()
    with own_strategies(tmp_path / "none"):
        yield site
    for name in [name for name in sys.modules if name.startswith("deep_dips")]:
        del sys.modules[name]
    loading._packages.cache_clear()


def _uninstalled(site: Path) -> None:
    shutil.rmtree(site)
    importlib.invalidate_caches()
    loading._packages.cache_clear()
    use_folder(None)


def test_a_run_of_a_package_is_replayed_after_the_package_is_gone(
    workspace: Workspace, package: Path
) -> None:
    refresh(workspace, until("2026-01-01"), PARTITIONS)
    (run_id,) = _runs(workspace, "dip")
    assert column(workspace, "SELECT origin FROM strategy_sources") == [
        "deep-dips 1.2 (deep_dips.dips)"
    ]
    _uninstalled(package)
    assert "dip" not in catalogue().known
    (found,) = replay_runs(workspace, [run_id])
    assert (found.verdict, found.is_own_code) == (ReplayVerdict.SAME, True)


def test_a_package_that_was_not_archived_is_named_with_its_version(
    workspace: Workspace, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "MOST_BYTES", 100)
    refresh(workspace, until("2026-01-01"), PARTITIONS)
    (run_id,) = _runs(workspace, "dip")
    _uninstalled(package)
    (found,) = replay_runs(workspace, [run_id])
    assert found.verdict is ReplayVerdict.IMPOSSIBLE
    assert "it is not installed; install deep-dips==1.2" in str(found.differences)


def test_strategies_that_fail_are_left_out_and_the_others_are_stored(
    workspace: Workspace, folder: Path
) -> None:
    failing = {
        "mean": ("close < low", "mean", "long_entry holds float64, perhaps NaN"),
        "index": ("close < low", "(close < low)[1:]", "has another index than the features"),
        "shape": ("close < low", "(close < low).to_numpy()[1:]", "long_entry has shape"),
        "name": ('"long_exit"', '"exit"', "returns 'exit'; the names are long_entry"),
        "line": ("close > mean}", "close > nothing}", r"NameError: .*nothing.*line\.py line 17"),
    }
    (folder / "dip.py").unlink()
    for name, (old, new, _) in failing.items():
        assert old in DIP
        text = DIP.replace(old, new).replace('name="dip"', f'name="{name}"')
        write(folder, f"{name}.py", text.replace("dip_2_20", f"{name}_2_20"))
    look_again()
    refresh(workspace, until("2026-01-01"), PARTITIONS)
    left_out = left_out_presets(workspace)
    assert left_out.keys() == {f"{name}_2_20" for name in failing}
    assert len(_runs(workspace, "rules_dip")) == 1
    for name, (_, _, why) in failing.items():
        assert re.search(why, left_out[f"{name}_2_20"])
        with pytest.raises(StrategyRefused, match=why):
            execute(workspace, load_settings(), RunSpec(strategy=name, symbol="S-ALPHA"))


def test_a_file_that_looks_ahead_is_refused(workspace: Workspace, folder: Path) -> None:
    write(folder, "peeker.py", PEEKER)
    look_again()
    with pytest.raises(LooksAhead, match="peeker on S-ETA"):
        execute(workspace, load_settings(), RunSpec(strategy="peeker", symbol="S-ALPHA"))
