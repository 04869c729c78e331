"""Errors name themselves for programs."""

from __future__ import annotations

import pytest

from backtest_pipeline.market import errors
from backtest_pipeline.market.errors import CODES, BacktestError, UnknownName


def _classes(base: type[BacktestError] = BacktestError) -> list[type[BacktestError]]:
    return [base, *(found for child in base.__subclasses__() for found in _classes(child))]


def test_every_error_has_a_code_of_the_closed_set() -> None:
    assert {error.code for error in _classes()} <= set(CODES)


def test_every_error_is_drawn_in_the_tree() -> None:
    assert errors.__doc__ is not None
    drawn = set(errors.__doc__.replace("─", " ").split())
    assert {error.__name__ for error in _classes() if error.__module__ == errors.__name__} <= drawn


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("asset", "BAD_SYMBOL"),
        ("signal type", "UNKNOWN_STRATEGY"),
        ("parameter of ema_crossover", "BAD_PARAMS"),
    ],
)
def test_a_name_that_does_not_exist_is_told_by_what_it_was_to_be(kind: str, code: str) -> None:
    assert UnknownName(kind, "x", ["y"]).code == code
