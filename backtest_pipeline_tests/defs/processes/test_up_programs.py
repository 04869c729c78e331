"""What is taken for wrong with the programs of `up`."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from backtest_pipeline.defs.processes.up_programs import (
    CODE_SERVER,
    DAEMON,
    DagsterUi,
    wrong_programs,
)

NOW = 1_800_000_000.0
LOADED = {"locationOrLoadError": {"__typename": "RepositoryLocation"}}
BROKEN = {"locationOrLoadError": {"__typename": "PythonError", "message": "unreachable"}}


def found(entry: dict[str, Any], *beats: float | None, required: bool = True) -> dict[str, Any]:
    statuses = [
        {"daemonType": f"D{n}", "required": required, "lastHeartbeatTime": beat}
        for n, beat in enumerate(beats)
    ]
    return {
        "workspaceOrError": {"locationEntries": [entry]},
        "instance": {"daemonHealth": {"allDaemonStatuses": statuses}},
    }


def test_all_is_well_where_the_location_is_loaded_and_each_daemon_has_a_recent_heartbeat() -> None:
    assert wrong_programs(found(LOADED, NOW - 1, NOW - 119), NOW) == {}
    assert wrong_programs(found({"locationOrLoadError": None}, NOW), NOW) == {}  # it is loading


def test_an_error_of_the_location_is_the_code_servers() -> None:
    assert wrong_programs(found(BROKEN, NOW), NOW) == {CODE_SERVER: "unreachable"}


@pytest.mark.parametrize("beat", [None, NOW - 121])
def test_one_old_heartbeat_is_enough_for_the_daemon(beat: float | None) -> None:
    assert wrong_programs(found(LOADED, NOW, beat, NOW), NOW) == {
        DAEMON: "D1 gave no sign of life for 120 s"
    }
    assert wrong_programs(found(LOADED, beat, required=False), NOW) == {}


@pytest.mark.parametrize("answer", [{}, {"workspaceOrError": {}, "instance": None}])
def test_what_is_not_known_is_not_wrong(answer: dict[str, Any]) -> None:
    assert wrong_programs(answer, NOW) == {}


@pytest.mark.parametrize(
    ("host", "reached"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")],  # noqa: S104
)
def test_the_ui_has_an_address_on_this_machine(host: str, reached: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        port = listening.getsockname()[1]
        ui = DagsterUi(listening, "secret", (), by_any_address=False)
        assert ui.first_page == f"http://{reached}:{port}/?token=secret"
