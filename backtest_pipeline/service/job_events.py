"""Streams of job changes for any number of listeners.

Each watched job is read once a second, in its own transaction, however many listen; a failed read
is retried a second later.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from threading import Event
from uuid import UUID

from backtest_pipeline.market.errors import JobNotFound, StoreError
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.service.problems import Problem
from backtest_pipeline.storage.tables.jobs import Job, read_job

MOST_STREAMS = 50
"""Streams of one user in one process; each may poll the store once a second."""

_log = logging.getLogger(__name__)


class JobEvents:
    """The jobs that are watched in this process."""

    def __init__(self, workspace: Workspace, stopping: Event, every_s: float = 1.0) -> None:
        """Start without any watched job.

        Args:
            workspace: the open store.
            stopping: ends all streams at their next poll.
            every_s: seconds between two polls of a job.
        """
        self._workspace, self._stopping, self._every_s = workspace, stopping, every_s
        self._watched: dict[UUID, _WatchedJob] = {}
        self._streams: Counter[str] = Counter()

    def require_slot(self, user: str) -> None:
        """Raise a Problem if a user has too many open streams."""
        if self._streams[user] >= MOST_STREAMS:
            raise Problem(
                "RATE_LIMITED",
                f"you have {MOST_STREAMS} open event streams; close one first",
                {"Retry-After": "5"},
            )

    async def changes(self, job_id: UUID, seen: str | None, user: str) -> AsyncGenerator[Job]:
        """Yield a job now, and again at each change, until it has ended.

        Args:
            job_id: the job.
            seen: `mark` of the state that the listener already has.
            user: the listener.
        """
        self._streams[user] += 1
        try:
            async with aclosing(self._changes(job_id, seen)) as changes:
                async for job in changes:
                    yield job
        finally:
            self._streams[user] -= 1

    async def _changes(self, job_id: UUID, seen: str | None) -> AsyncGenerator[Job]:
        watched = self._watched.setdefault(job_id, _WatchedJob())
        watched.listeners += 1
        if watched.task is None:
            watched.task = asyncio.create_task(self._poll(job_id, watched))
        try:
            while True:
                async with watched.changed:
                    await watched.changed.wait_for(partial(watched.has_event_after, seen))
                    job = watched.job
                if job is None or mark(job) == seen:
                    return
                seen = mark(job)
                yield job
                if job.is_terminal:
                    return
        finally:
            watched.listeners -= 1
            if not watched.listeners:
                watched.task.cancel()
                self._watched.pop(job_id, None)

    async def _poll(self, job_id: UUID, watched: _WatchedJob) -> None:
        while not watched.over:
            job, over = watched.job, False
            try:
                job = await asyncio.to_thread(self._read, job_id)
                over = job.is_terminal
            except JobNotFound:
                over = True
            except StoreError as error:
                _log.warning("job %s cannot be read: %s", job_id, error)
            async with watched.changed:
                watched.job, watched.over = job, over or self._stopping.is_set()
                watched.changed.notify_all()
            await asyncio.sleep(self._every_s)

    def _read(self, job_id: UUID) -> Job:
        with self._workspace.database.begin() as connection:
            return read_job(connection, job_id)


class _WatchedJob:
    def __init__(self) -> None:
        self.job: Job | None = None
        self.over = False
        self.listeners = 0
        self.changed = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None

    def has_event_after(self, seen: str | None) -> bool:
        """Whether the state differs from the one last seen, or no further event will come."""
        return self.over or (self.job is not None and mark(self.job) != seen)


def mark(job: Job) -> str:
    """A hash of a job's state: the id of its event."""
    state = (job.attempt_count, job.status, job.progress_pct, job.stage, job.cancel_requested_at)
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]
