"""Python of a user's own runs in workers, and not in the process that answers everybody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from backtest_pipeline_tests.own_strategies import DIP, own_strategies
from backtest_pipeline_tests.service.conftest import Store, app_on

ASKED_WITH = 33  # a length that nothing but a request has


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """A file with the id of each process in which the strategy looked at a request's length."""
    return tmp_path / "processes"


@pytest.fixture
def client(
    store: Store, runner: dict[str, str], tmp_path: Path, seen: Path
) -> Iterator[TestClient]:
    telling = DIP.replace(
        "    length: int",
        "    @field_validator('length', check_fields=False)\n"
        "    def tell(cls, length):\n"
        f"        if length == {ASKED_WITH}:\n"
        f"            open({str(seen)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        "        return length\n\n"
        "    length: int",
    ).replace(
        "from pydantic import Field", "import os\n\nfrom pydantic import Field, field_validator"
    )
    with (
        own_strategies(tmp_path / "own", {"dip.py": telling}),
        TestClient(app_on(store), base_url="http://localhost", headers=runner) as client,
    ):
        yield client


def test_the_parameters_of_a_job_are_checked_in_a_worker(client: TestClient, seen: Path) -> None:
    spec = {"kind": "run", "symbol": "AAA", "strategy": "dip", "params": {"length": ASKED_WITH}}
    response = client.post("/backtest/jobs", json={"spec": spec})
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"/backtest/jobs/{response.json()['job_id']}"
    processes = set(map(int, seen.read_text().split()))
    assert processes
    assert os.getpid() not in processes


def test_a_declaration_runs_none_of_it(client: TestClient, seen: Path) -> None:
    asked = {"symbol": "AAA", "strategy": "dip", "params": {"length": [20, ASKED_WITH]}}
    response = client.post("/backtest/walkforward/declare", json=asked)
    assert response.status_code == 200, response.text
    assert not seen.exists()


def test_a_job_that_a_worker_refuses_is_not_recorded(client: TestClient) -> None:
    before = client.get("/backtest/jobs").json()
    spec = {"kind": "run", "symbol": "AAA", "strategy": "dip", "params": {"length": 1}}
    response = client.post("/backtest/jobs", json={"spec": spec})
    assert (response.status_code, response.json()["code"]) == (422, "BAD_PARAMS")
    assert client.get("/backtest/jobs").json() == before
