"""What is private of Dagster is used by seven modules, which say so."""

from __future__ import annotations

import ast
import re

from backtest_pipeline_tests.process_state import PACKAGE

_PRIVATE = re.compile(r"^dagster(\w*)\._|^dagster_")


def test_seven_modules_import_what_is_private() -> None:
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = node.module if isinstance(node, ast.ImportFrom) else None
            if named and _PRIVATE.match(named):
                found.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(named)
    assert set(found) == {
        "defs/automation/switches.py",
        "defs/dagster_storage.py",
        "defs/launcher.py",
        "defs/event_log/partition_log.py",
        "defs/processes/instance_check.py",
        "defs/processes/webserver.py",
        "defs/stored_events.py",
    }
    for module in found:
        assert "docs/adr/0001-private-dagster.md" in (PACKAGE / module).read_text()
