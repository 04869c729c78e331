"""Scheduler and workers as processes of this host, which are started again whenever they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from backtest_pipeline.pipeline.pools.tls import make_certificates
from backtest_pipeline_tests.ports import free_port
from backtest_pipeline_tests.running_up import arguments
from backtest_pipeline_tests.waiting import LIMIT_S, until

COMMAND = (sys.executable, "-m", "backtest_pipeline.cli.main", "pool")


class Supervised:
    """A command that is started again whenever it ends, as a cluster's supervisor does."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, *, again: bool
    ) -> None:
        self._command, self._environment, self.log = command, environment, log
        self._again = again
        self._started, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._started.wait()

    def _run(self) -> None:
        while True:
            with self.log.open("ab") as output:
                self.process = psutil.Popen(
                    self._command,
                    env=self._environment,
                    cwd=self._environment.get("PWD"),
                    stdout=output,
                    stderr=output,
                )
            self._started.set()
            if self._stopped.is_set():  # just when it was started again
                self.process.terminate()
            self.process.wait()
            if self._stopped.is_set() or not self._again:
                return

    def tree(self) -> list[psutil.Process]:
        """It and all processes below it."""
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop(self, how: int = signal.SIGTERM) -> int:
        """End it for good; its exit status."""
        self._stopped.set()
        if self.process.is_running():
            self.process.send_signal(how)
        self._thread.join(LIMIT_S)
        return int(self.process.returncode)


@dataclass
class RunningCluster:
    """A scheduler, and some commands that run workers of it."""

    environment: dict[str, str]
    folder: Path
    scheduler: Supervised
    workers: list[Supervised] = field(default_factory=list)

    def work(
        self,
        command: Sequence[str] = (*COMMAND, "worker"),
        *,
        again: bool = True,
        **variables: str,
    ) -> Supervised:
        """Start a command that runs workers."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        environment = {**self.environment, **variables}
        started = Supervised(command, environment, log, again=again)
        self.workers.append(started)
        return started

    def status(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """What `pool status` says."""
        command = (*COMMAND, "status")
        environment = {**self.environment, **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def restart_scheduler(self) -> None:
        """End the scheduler at once; it is started again."""
        self.scheduler.process.kill()

    def computing(self) -> list[psutil.Process]:
        """The processes that do the work; each command has one, and others that look after it."""
        return [
            process
            for worker in self.workers
            for process in worker.tree()
            if "spawn_main" in arguments(process)
        ]

    def listening(self) -> list[tuple[str, int]]:
        """Addresses and ports at which scheduler and workers listen."""
        return sorted(
            {
                (found.laddr.ip, found.laddr.port)
                for part in (self.scheduler, *self.workers)
                for process in part.tree()
                for found in process.net_connections("tcp")
                if found.status == psutil.CONN_LISTEN
            }
        )

    def told(self) -> str:
        """The last lines of all logs."""
        logs = [self.scheduler.log, *(worker.log for worker in self.workers)]
        return "\n".join(f"--- {log.name}\n{log.read_text()[-1_500:]}" for log in logs)

    def stop(self) -> list[psutil.Process]:
        """End all by SIGTERM; the processes that are left."""
        trees = [process for part in (*self.workers, self.scheduler) for process in part.tree()]
        for part in (*self.workers, self.scheduler):
            part.stop()
        _, alive = psutil.wait_procs(trees, timeout=LIMIT_S / 5)
        return alive


@contextmanager
def running_cluster(
    folder: Path, environment: Mapping[str, str], workers: int, **variables: str
) -> Iterator[RunningCluster]:
    """A cluster with TLS, whose workers have a store.

    Args:
        folder: for certificates and logs.
        environment: what leads to the store.
        workers: how many commands run one worker each.
        variables: of scheduler and workers.
    """
    make_certificates(folder / "tls")
    port = free_port()
    whole = {
        **os.environ,
        **environment,
        **variables,
        "BACKTEST_POOL": "dask",
        "BACKTEST_POOL_ADDRESS": f"tls://127.0.0.1:{port}",
        "BACKTEST_POOL_TLS": str(folder / "tls"),
        "BACKTEST_POOL_WORKERS": "1",
    }
    command = (*COMMAND, "scheduler", "--port", str(port))
    scheduler = Supervised(command, whole, folder / "scheduler.log", again=True)
    cluster = RunningCluster(whole, folder, scheduler)
    try:
        for _ in range(workers):
            cluster.work()
        yield cluster
    finally:
        for process in cluster.stop():
            process.kill()


class Faults:
    """What happens in the middle of a refresh; a listener to its progress."""

    def __init__(self) -> None:
        self.steps = 0
        self.happened: list[str] = []
        self._planned: dict[int | str, list[tuple[str, Callable[[], object]]]] = {}

    def plan(self, step: int | str, name: str, fault: Callable[[], object]) -> None:
        """Have it happen at the so-many-th sign of progress, or in the middle of a stage."""
        when = step if isinstance(step, str) else self.steps + step
        self._planned.setdefault(when, []).append((name, fault))

    def progress(self, stage: str, done: int, total: int) -> None:
        self.steps += 1
        due = self._planned.pop(self.steps, [])
        if 0 < done < total:
            due += self._planned.pop(stage, [])
        for name, fault in due:
            fault()
            self.happened.append(name)


def wait_for_workers(cluster: RunningCluster, seen: Callable[[], int], n: int) -> None:
    """Return when so many workers are there."""
    until(lambda: seen() == n, cluster.told)
