"""Ticks of the sensor `replans` with the runs that they launch, in processes that end themselves.

What Dagster's daemon does with a run request is done here as it does it: a key that a run has
already is not launched again; a run is created first, and executed then.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import dagster as dg

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs import sensors
from backtest_pipeline.defs.partitions import register_partitions
from backtest_pipeline.pipeline.planning import book_replans
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.vocabulary import Regime, Stance
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.planned.planned_book import simulate_planned
from backtest_pipeline.strategist.known import stamp_of
from backtest_pipeline_tests.defs.revisions import read_once
from backtest_pipeline_tests.defs.running import QUIET
from backtest_pipeline_tests.pipeline.markets import daily_panel
from backtest_pipeline_tests.waiting import LIMIT_S

KILLED = 9
RUN_KEY = "dagster/run_key"
POINTS = {
    "before the triggers are noted": (sensors, "note_triggers", False),
    "after the triggers were noted": (sensors, "note_triggers", True),
    "before the waiting are looked at": (sensors, "replans_to_launch", False),
    "after the waiting were looked at": (sensors, "replans_to_launch", True),
    "after a run was asked for": (sensors, "replan_request", True),
    "before the run begins to plan": (book_replans, "waiting_requests", True),
    "when the plan is made": (book_replans, "block_removals", False),
    "when the plan is written": (book_replans, "append_plans", True),
    "when the requests are answered": (book_replans, "answer_requests", True),
}
"""Where a process ends itself: module, the function that it calls there, and whether after it."""
LAUNCHED, PLANNED = "after the run was created", "after the plan was stored"
OF_DAEMON = (LAUNCHED, PLANNED)


def forking(environment: Mapping[str, str], instance: str, commands: Connection) -> None:
    """Serve ticks, each in a fork of this process, which imports everything once.

    Args:
        environment: of the ticks.
        instance: folder of the Dagster instance.
        commands: receives the point where the next tick ends itself and after how many seconds it
            is killed, each None for never; None ends this. Sends the exit code.
    """
    os.environ.update(environment)
    _warm()
    with read_once():
        with dg.DagsterInstance.from_config(instance):
            pass  # forks know the revisions of its tables from now on
        _serve(instance, commands)


def _serve(instance: str, commands: Connection) -> None:
    while (command := commands.recv()) is not None:
        point, kill_after_s = command
        child = os.fork()
        if not child:
            try:
                tick_and_run(instance, point)
            finally:
                os._exit(1)
        deadline = time.monotonic() + (kill_after_s or LIMIT_S)
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.002)
        commands.send(os.waitstatus_to_exitcode(ended[1]))


def _warm() -> None:
    """Load once what is compiled, so that forks of this process need not."""
    bars = daily_panel({"A": 30})
    first, last = stamp_of(int(bars.ts[0])), stamp_of(int(bars.ts[-1]))
    plan = Plan(
        generated_at=first,
        effective_ts=first,
        valid_until=last,
        regime=Regime.MIXED,
        stance=Stance.WAIT,
    )
    simulate_planned(bars, [plan], SimulationConfig())


def tick_and_run(instance: str, point: str | None) -> None:
    """A tick and its runs; the process ends itself at the point, if one is given."""
    if point in POINTS:
        module, name, after = POINTS[point]
        setattr(module, name, _ending(getattr(module, name), after=after))
    with dg.DagsterInstance.from_config(instance) as found:
        register_partitions(found, ["S-ALPHA", "S-BETA"], ["1D"])
        for request in ticked(found):
            launch(found, request, point)
    os._exit(0)


def _ending(function: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        if after:
            function(*args, **kwargs)
        os._exit(KILLED)

    return called


def ticked(instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """The runs that one tick asks for."""
    result = sensors.replans(dg.build_sensor_context(instance=instance))
    return list(result.run_requests or ()) if isinstance(result, dg.SensorResult) else []


def launch(instance: dg.DagsterInstance, request: dg.RunRequest, point: str | None) -> None:
    """Create the run of a request and execute it, unless a run has its key."""
    tags = {**request.tags, RUN_KEY: str(request.run_key)}
    if instance.get_runs(dg.RunsFilter(tags={RUN_KEY: tags[RUN_KEY]})):
        return
    job = build_definitions().resolve_job_def(str(request.job_name))
    if point == LAUNCHED:
        instance.create_run_for_job(job, run_config=request.run_config, tags=tags)
        os._exit(KILLED)
    job.execute_in_process(
        {**QUIET, **request.run_config}, instance=instance, tags=tags, raise_on_error=False
    )
    if point == PLANNED:
        os._exit(KILLED)
