"""Jobs over HTTP: asked, listed, cancelled, and watched while they change."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.service.job_events import MOST_STREAMS, JobEvents, mark
from backtest_pipeline.service.problems import Problem
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.tables.jobs import (
    Claim,
    Job,
    claim_job,
    complete,
    heartbeat,
    read_job,
    request_cancel,
    store_unit,
)
from backtest_pipeline_tests.service.conftest import QUESTION, Store
from backtest_pipeline_tests.waiting import LIMIT_S

EVERY_S = 0.05
JOB = {"spec": {"kind": "run", **QUESTION}}


def submitted(client: TestClient, runner: dict[str, str]) -> dict[str, Any]:
    answer = client.post("/backtest/jobs", json=JOB, headers=runner)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/backtest/jobs/{answer.json()['job_id']}"
    return answer.json()


def events_of(text: str) -> list[dict[str, str]]:
    """The events of a stream; data as JSON text."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = [line.partition(": ") for line in block.splitlines() if not line.startswith(":")]
        found.append({name: value for name, _, value in lines})
    return [event for event in found if event]


def test_a_job_is_asked_for_found_and_cancelled(
    client: TestClient, runner: dict[str, str], viewer: dict[str, str]
) -> None:
    job = submitted(client, runner)
    assert (job["status"], job["n_units"], job["created_by"]) == ("pending", 1, "the-runner")
    address = f"/backtest/jobs/{job['job_id']}"
    assert client.get(address, headers=viewer).json() == job
    listed = client.get("/backtest/jobs", params={"status": "pending"}, headers=viewer).json()
    assert job["job_id"] in [row["job_id"] for row in listed["rows"]]
    assert client.get(f"{address}/units", headers=viewer).json() == {}
    assert client.post(f"{address}/resume", headers=runner).json()["code"] == "CONFLICT"
    assert client.delete(address, headers=runner).json()["status"] == "cancelled"
    again = client.delete(address, headers=runner)
    assert (again.status_code, again.json()["code"]) == (409, "CONFLICT")
    resumed = client.post(f"{address}/resume", headers=runner)
    assert (resumed.status_code, resumed.json()["resumes"]) == (202, job["job_id"])
    client.delete(f"/backtest/jobs/{resumed.json()['job_id']}", headers=runner)


def test_a_job_that_makes_no_sense_is_refused_before_it_is_one(
    client: TestClient, runner: dict[str, str]
) -> None:
    for changed, code in (
        ({"strategy": "nothing"}, "UNKNOWN_STRATEGY"),
        ({"params": {"fast": 9, "slow": 3}}, "BAD_PARAMS"),
        ({"start": "2024-02-02", "end": "2024-01-01"}, "BAD_RANGE"),
    ):
        job = {"spec": {**JOB["spec"], **changed}}
        answer = client.post("/backtest/jobs", json=job, headers=runner)
        assert answer.json()["code"] == code
    assert client.post("/backtest/jobs", json={}, headers=runner).json()["code"] == "BAD_PARAMS"


def test_the_events_of_a_job_that_has_ended_end_at_once_and_are_not_told_twice(
    client: TestClient, runner: dict[str, str], viewer: dict[str, str]
) -> None:
    job = submitted(client, runner)
    client.delete(f"/backtest/jobs/{job['job_id']}", headers=runner)
    address = f"/backtest/jobs/{job['job_id']}/events"
    stream = client.get(address, headers=viewer)
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    (event,) = events_of(stream.text)
    assert event["event"] == "ended"
    assert json.loads(event["data"])["status"] == "cancelled"
    seen = {**viewer, "Last-Event-ID": event["id"]}
    assert client.get(address, headers=seen).status_code == 204
    other = {**viewer, "Last-Event-ID": "of-another-state"}
    assert len(events_of(client.get(address, headers=other).text)) == 1


class Reading:
    """A watcher that counts how often the store is asked."""

    def __init__(self, store: Store) -> None:
        self.workspace = Workspace(store.database, ArtifactStore(store.folder / "artifacts"))
        self.stopping = Event()
        self.job_events = JobEvents(self.workspace, self.stopping, every_s=EVERY_S)
        self.asked = 0
        read = self.job_events._read

        def counted(job_id: UUID) -> Job:
            self.asked += 1
            return read(job_id)

        self.job_events._read = counted  # pyright: ignore[reportAttributeAccessIssue]

    def change(self, action: Callable[..., Any], *arguments: Any) -> Any:
        with self.workspace.database.begin() as connection:
            return action(connection, *arguments)

    async def listen(self, job_id: UUID, seen: str | None = None) -> list[Job]:
        return [job async for job in self.job_events.changes(job_id, seen, "desk")]


async def told(heard: list[Job], what: Callable[[Job], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not any(what(job) for job in heard):
            await asyncio.sleep(0.01)


def test_each_listener_hears_of_every_change_and_the_store_is_asked_once_for_all(
    client: TestClient, runner: dict[str, str], store: Store
) -> None:
    reading = Reading(store)
    job_id = UUID(submitted(client, runner)["job_id"])
    claim = Claim(job_id, 1, "worker")

    async def watched() -> tuple[list[Job], list[list[Job]]]:
        first: list[Job] = []

        async def hear() -> None:
            async for job in reading.job_events.changes(job_id, None, "desk"):
                first.append(job)  # noqa: PERF401 - it is looked at meanwhile

        hearing = asyncio.create_task(hear())
        await told(first, lambda job: job.status == "pending")
        others = [asyncio.create_task(reading.listen(job_id)) for _ in range(50)]
        reading.change(claim_job, claim, None, 30)
        await told(first, lambda job: job.status == "running")
        reading.change(heartbeat, claim, 30, 40.0, "backtests")
        await told(first, lambda job: job.progress_pct == 40)
        with store.database.begin() as connection:
            store_unit(connection, claim, "AAA|1D", [], {})
            complete(connection, claim)
        await hearing
        return first, await asyncio.gather(*others)

    began = time.monotonic()
    first, others = asyncio.run(watched())
    looks = (time.monotonic() - began) / EVERY_S + 1
    assert [job.status for job in first if job.is_terminal] == ["completed"]
    assert [(job.status, job.stage) for job in first] == [
        ("pending", ""),
        ("running", ""),
        ("running", "backtests"),
        ("completed", ""),
    ]
    assert all(other[-1].status == "completed" for other in others)
    assert reading.asked <= looks, "fifty listeners do not ask fifty times"
    assert not reading.job_events._watched


def test_a_listener_that_leaves_and_a_service_that_stops_end_the_looking(
    client: TestClient, runner: dict[str, str], store: Store
) -> None:
    reading = Reading(store)
    job_id = UUID(submitted(client, runner)["job_id"])

    async def watched() -> None:
        stream = reading.job_events.changes(job_id, None, "desk")
        job = await anext(stream)
        reading.job_events._streams["desk"] += MOST_STREAMS - 1
        with pytest.raises(Problem, match="one first"):
            reading.job_events.require_slot("desk")
        reading.job_events.require_slot("somebody else")
        await stream.aclose()
        reading.job_events.require_slot("desk")
        assert not reading.job_events._watched
        known = asyncio.create_task(reading.listen(job_id, mark(job)))
        await asyncio.sleep(0.1)
        assert not known.done()
        reading.stopping.set()
        assert await known == []

    asyncio.run(watched())
    with store.database.begin() as connection:
        assert read_job(connection, job_id).status == "pending"
        request_cancel(connection, job_id, "me")
