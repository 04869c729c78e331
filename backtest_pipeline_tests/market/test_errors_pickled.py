"""Errors of ours cross the border of a process, and are copied, as they are."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import backtest_pipeline
from backtest_pipeline.market.errors import (
    BacktestError,
    BadRange,
    PartitionError,
    RuleError,
    StoreError,
    UnknownName,
    picklable,
    without_causes,
)
from backtest_pipeline.pipeline.jobs.attempt import Stopped, StopReason
from backtest_pipeline.service.problems import Problem
from backtest_pipeline.sources.binance.client import _Again

# Of the classes that do not take a message alone.
MADE: dict[type[BaseException], Callable[[], BaseException]] = {
    UnknownName: lambda: UnknownName("asset", "BTC/UDST", ["BTC/USDT", "ETH/USDT"]),
    PartitionError: lambda: PartitionError("BTC/USDT", "1D", "the bars are not ordered"),
    RuleError: lambda: RuleError("rules.toml, entry", "a number is missing", "rsi_14 <\n  and", 9),
    Problem: lambda: Problem(
        "RATE_LIMITED", "slow down", {"Retry-After": "3"}, [{"where": "query", "message": "no"}]
    ),
    Stopped: lambda: Stopped(StopReason.TIMED_OUT),
    _Again: lambda: _Again("HTTP 429", 2.5),
}
WAYS: dict[str, Callable[[BaseException], BaseException]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301
    "oldest pickle": lambda error: pickle.loads(pickle.dumps(error, 2)),  # noqa: S301
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


class OfAnotherLibrary(Exception):
    """It pickles, and cannot be made again: pickle passes the message alone."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port} does not answer")


def all_errors() -> list[type[BaseException]]:
    """Every exception class that a module of the package defines."""
    for module in pkgutil.walk_packages(backtest_pipeline.__path__, "backtest_pipeline."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return sorted(
        (
            error
            for error in _below(BaseException)
            if error.__module__.partition(".")[0] == "backtest_pipeline"
        ),
        key=lambda error: (error.__module__, error.__name__),
    )


def _below(base: type[BaseException]) -> set[type[BaseException]]:
    return {base, *(found for child in base.__subclasses__() for found in _below(child))}


@pytest.mark.parametrize("way", WAYS)
def test_every_error_keeps_class_message_attributes_and_code(way: str) -> None:
    errors = all_errors()
    assert {BacktestError, StoreError, *MADE} <= set(errors)
    for kind in errors:
        error = MADE.get(kind, lambda kind=kind: kind("what, where; what to do"))()
        error.add_note("while it was stored")
        again = WAYS[way](error)
        assert type(again) is kind
        assert (str(again), again.args) == (str(error), error.args)
        assert again.__dict__ == error.__dict__
        assert again.__notes__ == ["while it was stored"]
        assert getattr(again, "code", None) == getattr(error, "code", None)


def require_cause(way: str) -> None:
    error = StoreError("db/prices: no answer")
    error.__cause__ = OfAnotherLibrary("db", 5432)
    error.__cause__.__cause__ = BadRange("ends before it begins")
    again = WAYS[way](error)
    assert isinstance(again.__cause__, BacktestError), again.__cause__
    assert str(again.__cause__) == "OfAnotherLibrary: db:5432 does not answer"
    assert isinstance(again.__cause__.__cause__, BadRange)


def test_what_an_error_was_raised_from_is_kept_and_told_where_it_cannot_be() -> None:
    """In a process of its own: Dask, which others load here, has errors pickled in its own way."""
    program = f"from {__name__} import *\nfor way in WAYS:\n    require_cause(way)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_causes_become_notes_for_those_that_would_send_them_along() -> None:
    error = StoreError("db/prices: no answer")
    error.__cause__ = OfAnotherLibrary("db", 5432)
    sent = without_causes(error)
    assert sent is error
    assert (sent.__cause__, sent.__context__) == (None, None)
    assert sent.__notes__ == ["caused by OfAnotherLibrary: db:5432 does not answer"]


def test_an_error_that_can_be_pickled_is_sent_as_it_is() -> None:
    error = BadRange("ends before it begins")
    assert picklable(error) is error


def raise_unknown() -> None:
    raise UnknownName("asset", "BTC/UDST", ["BTC/USDT"])


def test_a_pool_of_processes_outlives_an_error_of_a_worker() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for _ in range(2):
            error = pool.submit(raise_unknown).exception()
            assert isinstance(error, UnknownName)
            assert (error.name, error.code) == ("BTC/UDST", "BAD_SYMBOL")
