"""Which combinations of a strategy's parameters to evaluate, and which of them is the best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Any, Protocol

import numpy as np

from backtest_pipeline.market.errors import GridTooLarge, InvalidInput, UnknownName
from backtest_pipeline.research.robustness.neighbourhood import LOWER_IS_BETTER
from backtest_pipeline.research.validation.choices import Method, method_of
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES
from backtest_pipeline.strategies.grid import Number, ParameterSpace

Combination = tuple[Number, ...]
_BATCH = 32  # asked for at a time: wide enough for one simulation, and learnt from soon enough
_FRUITLESS = 10  # draws in a row that bring nothing new, for each one that is asked for
_hushing = Lock()
COMPOSITE = {"sharpe": 1.0, "calmar": 1.0, "total_return": 1.0}


@dataclass(frozen=True)
class Objective:
    """What the best combination has most of: a weighted sum of metrics.

    Attributes:
        name: as it was asked for.
        weights: by metric; metrics of which less is better count negative.
    """

    name: str
    weights: Mapping[str, float]

    @staticmethod
    def of(text: str) -> Objective:
        """`sharpe` or any other metric, `composite`, or weights: `sharpe=1,calmar=0.5`.

        Raises:
            UnknownName: for a metric that there is not.
            InvalidInput: for a weight that is not a number above 0.
        """
        if text == "composite":
            return Objective(text, COMPOSITE)
        weights = {}
        for part in text.split(","):
            name, equals, weight = (piece.strip() for piece in part.partition("="))
            if name not in METRIC_NAMES:
                raise UnknownName("objective", name, (*METRIC_NAMES, "composite"))
            weights[name] = _weight(name, weight) if equals else 1.0
        return Objective(text, weights)

    def scores(self, metrics: Mapping[str, np.ndarray]) -> np.ndarray:
        """The sum, NaN where one of its metrics is undefined."""
        return sum(
            ((-w if name in LOWER_IS_BETTER else w) * metrics[name])
            for name, w in sorted(self.weights.items())  # a sum depends on its order
        )  # pyright: ignore[reportReturnType] - there is a weight at least


def _weight(name: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = np.nan
    if not (np.isfinite(weight) and weight > 0):
        raise InvalidInput(f"the weight of {name} must be a number above 0, not {text!r}")
    return weight


@dataclass(frozen=True)
class Search:
    """How a space of parameters is searched.

    Attributes:
        method: `grid` tries all, `random` draws, `tpe` learns where to draw (Bergstra et al.
            2011, as Optuna has it), `auto` is `grid` where it fits and else `tpe`.
        most: combinations that are evaluated at most.
        seed: of what is drawn.
    """

    method: Method = "auto"
    most: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        method_of(self.method)
        if self.most < 1:
            raise InvalidInput(f"a search evaluates one combination at least, not {self.most}")
        if self.seed < 0:
            raise InvalidInput(f"seed must be at least 0, not {self.seed}")

    def resolved(self, space: ParameterSpace) -> Method:
        """The method with `auto` decided.

        Raises:
            InvalidInput: where `grid` is asked for and the space is too large for it.
        """
        if self.method == "grid" and space.size > self.most:
            raise GridTooLarge(
                f"{space.strategy.name}: {space.size:,} combinations are more than "
                f"{self.most:,}; take larger steps, search at random or by tpe, or raise "
                "BACKTEST_OPTIMIZER_MAX_COMBINATIONS (--max-combinations)"
            )
        if self.method == "auto":
            return "grid" if space.size <= self.most else "tpe"
        return self.method


class Searcher(Protocol):
    """One search: asks for combinations, and is given their results."""

    def ask(self) -> Sequence[Combination]:
        """The next ones, none of which was asked for before; empty where the search is over."""
        ...

    def tell(self, combinations: Sequence[Combination], scores: np.ndarray) -> None:
        """What the objective of those asked for last is; NaN where undefined."""
        ...


class _Listed:
    """A search that knows from the beginning what it tries."""

    def __init__(self, combinations: Sequence[Combination]) -> None:
        self._left = combinations

    def ask(self) -> Sequence[Combination]:
        asked, self._left = self._left, ()
        return asked

    def tell(self, combinations: Sequence[Combination], scores: np.ndarray) -> None:
        """The results of others change nothing."""


@contextmanager
def _unheard() -> Iterator[None]:
    """Optuna tells on stderr of each study that it makes; how much it tells is the program's."""
    from optuna import logging

    with _hushing:
        before = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        try:
            yield
        finally:
            logging.set_verbosity(before)


class _Tpe:
    """Optuna's tree-structured Parzen estimator over the positions on the axes."""

    def __init__(self, space: ParameterSpace, search: Search) -> None:
        import optuna

        self._space = space
        self._axes = {
            name: optuna.distributions.IntDistribution(0, len(axis) - 1)
            for name, axis in space.axes.items()
        }
        sampler = optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=_BATCH)
        with _unheard():
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._failed = optuna.trial.TrialState.FAIL
        self._left = search.most
        self._senseless = set[Combination]()
        self._scores: dict[Combination, float] = {}
        self._waiting: dict[Combination, Any] = {}

    def ask(self) -> Sequence[Combination]:
        unseen = self._space.size - len(self._scores) - len(self._senseless)
        wanted = min(_BATCH, self._left, unseen)
        for _ in range(_FRUITLESS * wanted):
            if len(self._waiting) == wanted:
                break
            trial = self._study.ask(dict(self._axes))
            drawn = tuple(axis[trial.params[name]] for name, axis in self._space.axes.items())
            if drawn in self._scores:
                self._tell(trial, self._scores[drawn])
            elif drawn in self._waiting:
                self._study.tell(trial, state=self._failed)
            elif self._space.problem(drawn):
                self._senseless.add(drawn)
                self._study.tell(trial, state=self._failed)
            else:
                self._waiting[drawn] = trial
        self._left -= len(self._waiting)
        return list(self._waiting)

    def tell(self, combinations: Sequence[Combination], scores: np.ndarray) -> None:
        for combination, score in zip(combinations, scores.tolist(), strict=True):
            self._tell(self._waiting.pop(combination), score)
            self._scores[combination] = score

    def _tell(self, trial: Any, score: float) -> None:
        if np.isfinite(score):
            self._study.tell(trial, score)
        else:
            self._study.tell(trial, state=self._failed)


def searchers(space: ParameterSpace, search: Search, n: int) -> list[Searcher]:
    """As many searches of the same space, none of which learns from another.

    Raises:
        InvalidInput: where a grid is too large, or no combination makes sense.
    """
    method = search.resolved(space)
    if method == "tpe":
        # Whether anything makes sense shows before a study looks for it in vain.
        _drawn(space, 1, search.seed)
        return [_Tpe(space, search) for _ in range(n)]
    listed = (
        space.grid().combinations
        if method == "grid"
        else _drawn(space, min(search.most, space.size), search.seed)
    )
    return [_Listed(listed) for _ in range(n)]


def _drawn(space: ParameterSpace, n: int, seed: int) -> tuple[Combination, ...]:
    """Up to `n` different combinations that make sense, each as likely as any other."""
    found = tuple(islice(_distinct(space, seed, n), n))
    if not found:
        return space.grid().combinations[:n]  # a few among many, or an error that says why none
    return found


def _distinct(space: ParameterSpace, seed: int, n: int) -> Iterator[Combination]:
    rng = np.random.default_rng(seed)
    axes, seen = list(space.axes.values()), set[Combination]()
    for _ in range(_FRUITLESS * n + 1000):
        drawn = tuple(axis[rng.integers(len(axis))] for axis in axes)
        if drawn not in seen:
            seen.add(drawn)
            if space.problem(drawn) is None:
                yield drawn


def best_of(combinations: Sequence[Combination], scores: np.ndarray) -> int | None:
    """Position of the best; of equal ones that with the smallest values, in the order of names.

    None where the objective is undefined for all: what is undefined never wins.
    """
    defined = np.flatnonzero(np.isfinite(scores))
    if len(defined) == 0:
        return None
    highest = scores[defined].max()
    ties = defined[scores[defined] == highest]
    return int(min(ties, key=lambda at: combinations[at]))
