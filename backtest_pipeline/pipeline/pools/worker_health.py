"""The page by which a Dask worker says that the scheduler has it, at `/ready`.

Its own `/health` says no more than that the process answers, also while it warms up.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from distributed import Worker
from distributed.core import Status
from tornado.web import RequestHandler


class WorkerReadiness(RequestHandler):
    """Answers 200 where the worker is registered with its scheduler, and 503 otherwise."""

    def initialize(self, dask_server: Worker) -> None:
        """Take the worker, which Dask hands over."""
        self._worker = dask_server

    def get(self) -> None:
        """What a health check asks."""
        status = self._worker.status
        if status is not Status.running:
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
        self.write(f"{status.name}\n")


# Dask looks for it by this name.
routes: list[tuple[str, type[RequestHandler], dict[str, Any]]] = [("/ready", WorkerReadiness, {})]
