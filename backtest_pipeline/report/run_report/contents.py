"""What the report of a run is drawn from, and the parts that its template knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from backtest_pipeline.report.number_formats import DASH, Kind, kind_of, written

NOT_ASSESSED = "Not assessed yet; the command stands with the verdict."


@dataclass(frozen=True)
class RunSeries:
    """A run's series at each mark, float64 `(n_marks,)` but for the stamps.

    Attributes:
        ts: int64 `(n_marks,)`, microseconds since 1970 UTC, strictly increasing.
        equity, benchmark: quote currency; the benchmark is NaN where there is none.
        drawdown: fraction below the peak.
        exposure: value of the position over equity, negative when short; NaN for a portfolio.
    """

    ts: np.ndarray
    equity: np.ndarray
    drawdown: np.ndarray
    exposure: np.ndarray
    benchmark: np.ndarray

    @property
    def has_benchmark(self) -> bool:
        """Whether there is a benchmark at every mark."""
        return bool(np.isfinite(self.benchmark).all())

    @property
    def has_exposure(self) -> bool:
        """Whether the exposure is known at every mark."""
        return bool(np.isfinite(self.exposure).all())


@dataclass(frozen=True)
class Closes:
    """Closes of the bars that were traded: int64 microseconds, and float64 prices."""

    ts: np.ndarray
    close: np.ndarray


@dataclass(frozen=True)
class Fan:
    """Percentiles of resampled equity by day, float64 `(n_days,)` each.

    Attributes:
        ts: int64 `(n_days,)`, end of each day, microseconds since 1970 UTC.
        p05, p25, p75, p95: equity, quote currency.
    """

    ts: np.ndarray
    p05: np.ndarray
    p25: np.ndarray
    p75: np.ndarray
    p95: np.ndarray


@dataclass(frozen=True)
class Doubts:
    """Robustness of a run, as stored; see docs/robustness.md.

    Attributes:
        numbers: the row of `run_robustness`.
        random_entries: total returns on permuted bars, float64, NaN left out.
        draws, seed: how it was assessed.
    """

    numbers: Mapping[str, Any]
    random_entries: np.ndarray
    draws: int
    seed: int


class BoardPlace(NamedTuple):
    """A run on the newest leaderboard, where all trials of its strategy are counted.

    Attributes:
        rank, n_ranked: its rank, and how many runs have one.
        dsr: deflated Sharpe ratio for `n_trials`, a probability.
        n_trials: trials of the strategy over all assets and timeframes.
        fails: names of the gates that it fails.
    """

    rank: int
    n_ranked: int
    dsr: float
    n_trials: int
    fails: Sequence[str]


@dataclass(frozen=True)
class Holdings:
    """What a portfolio of runs, or a cross-section, held.

    Attributes:
        members: their names.
        ts: int64 `(n_dates,)`, microseconds since 1970 UTC, strictly increasing.
        until: the last stamp of the book.
        weights: float64 `(n_dates, n_members)`, set at each date and kept until the next: fractions
            of the equity, negative when short.
        risk: float64 `(n_members,)`, shares of the variance of returns, NaN where undefined; None
            where not stored.
        correlations: float64 `(n_members, n_members)`, NaN where undefined; None where not stored.
    """

    members: Sequence[str]
    ts: np.ndarray
    until: int
    weights: np.ndarray
    risk: np.ndarray | None = None
    correlations: np.ndarray | None = None


@dataclass(frozen=True)
class ReportedRun:
    """A stored run, or a portfolio of runs, with all that its report shows.

    Attributes:
        run_id: its id.
        name: strategy with parameters.
        symbol, timeframe: the partition.
        subject: dates, bars, sides and costs in a line.
        benchmark_name: for example `buy and hold`.
        warnings: reasons to trust the numbers less.
        missing: what is not shown, why, and what brings it.
        metrics, undefined: by name; None where undefined, with the reason.
        risk_free: return per day, a fraction.
        liquidated: whether the account was lost.
        n_days: days of equity.
        series, closes: None where their files cannot be read.
        trades: rows of `backtest_trades`, in order; stamps are microseconds since 1970 UTC.
        blocked: the first rows of `block_events`, in order, with such stamps.
        n_blocked: how many there are.
        intervals: stored 90 % intervals by metric; None where not assessed.
        fan: percentiles of resampled equity; None where not assessed.
        doubts: robustness; None where not assessed.
        assess: the command that assesses the run; empty for a run that no command assesses.
        counting_rule: what `n_trials` counts, see docs/research.md.
        board: its place on the newest leaderboard; None where it has no rank there.
        settings, provenance: facts by name, nested.
        folds: rows of `walk_forward_folds`, in order, with stamps in microseconds; none for a run
            with fixed parameters.
        walk_forward: the verdict on them, in a sentence.
        holdings: weights of a portfolio or cross-section; None for any other run.
        is_portfolio: whether it is a portfolio of runs, which has no trades of its own.
    """

    run_id: str
    name: str
    symbol: str
    timeframe: str
    subject: str
    benchmark_name: str
    warnings: Sequence[str]
    missing: Sequence[str]
    metrics: Mapping[str, float | None]
    undefined: Mapping[str, str]
    risk_free: float
    liquidated: bool
    series: RunSeries | None
    closes: Closes | None
    trades: Sequence[Mapping[str, Any]]
    blocked: Sequence[Mapping[str, Any]]
    n_blocked: int
    intervals: Mapping[str, tuple[float | None, float | None]] | None
    fan: Fan | None
    doubts: Doubts | None
    assess: str
    counting_rule: str
    board: BoardPlace | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    folds: Sequence[Mapping[str, Any]] = ()
    walk_forward: str = ""
    holdings: Holdings | None = None
    is_portfolio: bool = False

    def figure(self, metric: str, *, signed: bool = False) -> Figure:
        """A metric of the run; the reason where it is undefined is its note."""
        value = self.metrics.get(metric)
        return figure(metric, value, kind_of(metric), signed=signed)

    def doubt(self, name: str) -> float | None:
        """A number of the robustness tests; None where undefined or not assessed."""
        return None if self.doubts is None else self.doubts.numbers.get(name)

    @property
    def is_assessed(self) -> bool:
        """Whether its band and its robustness are stored."""
        return self.intervals is not None and self.doubts is not None

    @property
    def envelope(self) -> Sequence[Mapping[str, Any]]:
        """The run under each changed assumption, as it is first; empty if not assessed."""
        return () if self.doubts is None else self.doubts.numbers["envelope"]


class Figure(NamedTuple):
    """A stored value as it is printed; the page carries the value itself beside the text."""

    name: str
    value: float | None
    text: str
    css: str = ""


class Words(NamedTuple):
    """A cell of a table that is no figure."""

    text: str
    css: str = ""


Cell = Figure | Words


class TableRow(NamedTuple):
    """A row: its header, an explanation that folds out of it, and its cells."""

    head: str
    cells: Sequence[Cell]
    about: str = ""


class ReportTable(NamedTuple):
    """A table that scrolls by itself: an accessible label, its heads and rows."""

    label: str
    heads: Sequence[str]
    rows: Sequence[TableRow]
    css: str = ""


class Chip(NamedTuple):
    """A short word of judgement with a colour: ok, warn or mute."""

    text: str
    css: str


class Card(NamedTuple):
    """A card of the page: heading, a line below it, then pictures (SVG), table and text.

    It takes so many of the twelve columns of a wide page.
    """

    title: str
    about: str = ""
    pictures: Sequence[str] = ()
    table: ReportTable | None = None
    remarks: Sequence[str] = ()
    columns: int = 6
    anchor: str = ""


class Section(NamedTuple):
    """A part of the report under a heading that the header links to."""

    anchor: str
    title: str
    cards: Sequence[Card]


def figure(name: str, value: float | None, kind: Kind, *, signed: bool = False) -> Figure:
    """A value with its text; coloured by its sign where signed."""
    text = written(value, kind, signed=signed)
    css = "" if not signed or value is None or text == DASH else _sign(value)
    return Figure(name, None if value is None else float(value), text, css)


def _sign(value: float) -> str:
    return "gain" if value > 0 else "loss" if value < 0 else ""
