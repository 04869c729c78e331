"""Jobs while they change, told to any number of listeners.

Each job that is watched is read once a second, in a transaction of its own, however many listen;
what cannot be read now is read a second later.
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
"""Streams of one user in one process; each costs a look at the store a second."""

_log = logging.getLogger(__name__)


class Watching:
    """What is watched in this process."""

    def __init__(self, workspace: Workspace, stopping: Event, every_s: float = 1.0) -> None:
        """Nothing is watched yet.

        Args:
            workspace: the open store.
            stopping: ends all streams at their next look.
            every_s: seconds between two looks at a job.
        """
        self._workspace, self._stopping, self._every_s = workspace, stopping, every_s
        self._watched: dict[UUID, _Watched] = {}
        self._streams: Counter[str] = Counter()

    def require_slot(self, user: str) -> None:
        """Raise a Problem where a user has as many streams as one may have."""
        if self._streams[user] >= MOST_STREAMS:
            raise Problem(
                "RATE_LIMITED",
                f"{MOST_STREAMS} streams of events are open for you; end one first",
                {"Retry-After": "5"},
            )

    async def changes(self, job_id: UUID, seen: str | None, user: str) -> AsyncGenerator[Job]:
        """A job as it is, and again whenever it has changed, until it has ended.

        Args:
            job_id: which.
            seen: `mark` of the state that the listener knows already.
            user: who listens.
        """
        self._streams[user] += 1
        try:
            async with aclosing(self._changes(job_id, seen)) as changes:
                async for job in changes:
                    yield job
        finally:
            self._streams[user] -= 1

    async def _changes(self, job_id: UUID, seen: str | None) -> AsyncGenerator[Job]:
        watched = self._watched.setdefault(job_id, _Watched())
        watched.listeners += 1
        if watched.task is None:
            watched.task = asyncio.create_task(self._look(job_id, watched))
        try:
            while True:
                async with watched.changed:
                    await watched.changed.wait_for(partial(watched.has_told, seen))
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

    async def _look(self, job_id: UUID, watched: _Watched) -> None:
        while not watched.over:
            found, over = watched.job, False
            try:
                found = await asyncio.to_thread(self._read, job_id)
                over = found.is_terminal
            except JobNotFound:
                over = True
            except StoreError as error:
                _log.warning("job %s cannot be read: %s", job_id, error)
            async with watched.changed:
                watched.job, watched.over = found, over or self._stopping.is_set()
                watched.changed.notify_all()
            await asyncio.sleep(self._every_s)

    def _read(self, job_id: UUID) -> Job:
        with self._workspace.database.begin() as connection:
            return read_job(connection, job_id)


class _Watched:
    def __init__(self) -> None:
        self.job: Job | None = None
        self.over = False
        self.listeners = 0
        self.changed = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None

    def has_told(self, seen: str | None) -> bool:
        """Whether there is an event for a listener who has seen that state, or will never be."""
        return self.over or (self.job is not None and mark(self.job) != seen)


def mark(job: Job) -> str:
    """What tells a state of a job from its others; the id of its event."""
    state = (job.attempt_count, job.status, job.progress_pct, job.stage, job.cancel_requested_at)
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]
