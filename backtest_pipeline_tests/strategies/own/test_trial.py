"""A file is tried in a child process: time, network, processes and files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backtest_pipeline.strategies.own import trial
from backtest_pipeline.strategies.own.source import Source
from backtest_pipeline.strategies.own.trial import forget_what_hung, tried
from backtest_pipeline_tests.own_strategies import DIP


def _source(name: str, text: str) -> Source:
    return Source(f"{name}.py", {f"{name}.py": text.encode()}, "/own")


def test_each_file_is_judged_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trial, "IMPORT_LIMIT_S", 5.0)  # the others need time on a busy machine
    made = tmp_path.parent / "made_by_strategy"  # not in the folder of temporary files
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    texts = {
        "good": DIP,
        "slow": "import time\ntime.sleep(60)",
        "dead": "import os\nos._exit(3)",
        "wrong": "1 / 0",
        "talks": "import socket\nsocket.create_connection(('127.0.0.1', 9))",
        "runs": "import subprocess\nsubprocess.run(['true'])",
        "writes": f"open({str(made)!r}, 'w')",
        "good_too": DIP + "\n",
    }
    sources = {name: _source(name, text) for name, text in texts.items()}
    failed = tried(list(sources.values()), tmp_path / "known")
    why = {name: failed.get(one.digest, "") for name, one in sources.items()}
    assert why["good"] == why["good_too"] == ""
    assert why["slow"].startswith("/own/slow.py: importing it takes longer than 5 s; move")
    assert why["dead"] == "/own/dead.py: importing it ends the process"
    assert "/own/wrong.py line 1: ZeroDivisionError" in why["wrong"]
    assert "importing it reaches for the network" in why["talks"]
    assert "importing it starts a process" in why["runs"]
    assert "importing it writes the file" in why["writes"]
    assert not made.exists()
    remembered = [path.suffix for path in (tmp_path / "known").iterdir()]
    assert sorted(remembered) == ["", "", ".hangs"]  # those that passed, and that which is slow


def test_what_hung_is_not_tried_again_until_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "IMPORT_LIMIT_S", 1.0)
    slow = _source("slow", "import time\ntime.sleep(60)")
    (why,) = tried([slow], tmp_path).values()
    assert why.endswith("once it is edited, or by: backtest-pipeline strategies check slow")
    python = sys.executable
    monkeypatch.setattr(trial.sys, "executable", "/no/such/python")
    assert tried([slow], tmp_path) == {slow.digest: why}
    monkeypatch.setattr(trial.sys, "executable", python)
    monkeypatch.setattr(trial, "IMPORT_LIMIT_S", 10.0)
    good = _source("slow", DIP)
    assert tried([good], tmp_path) == {}
    forget_what_hung(tmp_path)
    monkeypatch.setattr(trial, "IMPORT_LIMIT_S", 1.0)
    assert list(tried([slow], tmp_path)) == [slow.digest]
    assert tried([good], tmp_path) == {}  # what passed is still known


def test_what_passed_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tried([_source("good", DIP)], tmp_path) == {}
    monkeypatch.setattr(trial.sys, "executable", "/no/such/python")
    assert tried([_source("good", DIP)], tmp_path) == {}
    with pytest.raises(FileNotFoundError):
        tried([_source("good", DIP + "# edited")], tmp_path)


def test_a_module_beside_an_installed_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "levels_of_mine.py").write_text("LEVEL = 2")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    texts = [f"from levels_of_mine import LEVEL{comment}\n{DIP}" for comment in ("", "  # 2nd")]
    found = tried([_source("dip", text) for text in texts])  # the second finds it imported already
    assert len(found) == 2
    for why in found.values():
        assert "imports levels_of_mine from" in why
        assert "edits of it would go unseen" in why


def test_a_child_that_does_not_start_refuses_what_it_was_to_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial.sys, "executable", "/bin/false")
    (why,) = tried([_source("good", DIP)]).values()
    assert why.startswith("/own/good.py: the process that tries strategies did not start")
