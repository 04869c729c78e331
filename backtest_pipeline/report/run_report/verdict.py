"""What a run's figures say: every threshold of the report, in one table.

docs/report.md shows the same table; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from backtest_pipeline.report.number_formats import Kind, written
from backtest_pipeline.report.run_report.contents import Chip, ReportedRun

Sign = Literal["below", "at most", "above", "at least", "undefined"]

LEVEL = 0.95
"""Probability from which a figure counts as shown; p-values count from 1 - LEVEL down."""


class Threshold(NamedTuple):
    """A threshold: which figure, which bound, and the words where the figure meets it.

    Attributes:
        figure: a name of `figures_of`.
        sign, bound: what the figure is compared with; `undefined` needs no bound.
        words: what is then said.
        else_words: for a check, what is said of any other value.
    """

    figure: str
    sign: Sign
    bound: float
    words: str
    else_words: str = ""

    def meets(self, value: float | None) -> bool:
        """Whether a value meets the bound; an undefined one meets `undefined` alone."""
        if value is None or self.sign == "undefined":
            return value is None and self.sign == "undefined"
        return {
            "below": value < self.bound,
            "at most": value <= self.bound,
            "above": value > self.bound,
            "at least": value >= self.bound,
        }[self.sign]


VERDICT: tuple[Threshold, ...] = (
    Threshold("trade_count", "below", 1, "No trade was made."),
    Threshold("liquidated", "at least", 1, "The account was lost."),
    Threshold("total_return", "at most", 0, "It loses money."),
    Threshold("closed_trades", "below", 20, "Too few closed trades to judge."),
    Threshold("dsr", "undefined", 0, "Too short a history to judge."),
    Threshold("dsr", "below", LEVEL, "Not clearly better than luck."),
    Threshold(
        *("board_dsr", "below", LEVEL),
        "Better than luck on this market, not among all trials of the strategy.",
    ),
    Threshold("sharpe_low", "at most", 0, "Better than luck alone, but its interval holds zero."),
    Threshold("p_random_entries", "above", 1 - LEVEL, "Not clearly better than random entries."),
    Threshold("excess_return", "at most", 0, "Better than luck, and worse than its benchmark."),
    Threshold(
        "information_ratio", "at most", 0, "Better than luck, but no steady gain on its benchmark."
    ),
    Threshold("fragile", "at least", 1, "Better than luck, and fragile."),
    # From here on every known figure is good, so that only what is not known is left to say.
    Threshold("excess_return", "undefined", 0, "Better than luck; not compared with a benchmark."),
    Threshold(
        *("information_ratio", "undefined", 0),
        "Better than luck and its benchmark; how steadily is not known.",
    ),
    Threshold("fragile", "undefined", 0, "Better than luck and its benchmark; not yet assessed."),
    Threshold(
        *("sharpe_low", "undefined", 0),
        "Better than luck and its benchmark; its interval is not known.",
    ),
    Threshold(
        *("p_random_entries", "undefined", 0),
        "Better than luck and its benchmark; not compared with random entries.",
    ),
    Threshold("fragile", "below", 1, "Better than luck and its benchmark, and robust."),
)
"""The verdict: the words of the first rule that the run meets, from top to bottom."""

CHECKS: tuple[Threshold, ...] = (
    Threshold("psr", "at least", LEVEL, "passes 95 %", "below 95 %"),
    Threshold("dsr", "at least", LEVEL, "passes 95 %", "below 95 %"),
    Threshold("board_dsr", "at least", LEVEL, "passes 95 %", "below 95 %"),
    Threshold("sharpe_low", "above", 0, "above zero", "holds zero"),
    Threshold("track_record", "at least", 1, "long enough", "too short"),
    Threshold("p_random_entries", "at most", 1 - LEVEL, "beats random", "not shown"),
    Threshold("random_entry_ruined", "at most", 0.1, "comparable", "many ruined"),
    Threshold("p_drawdown", "at most", LEVEL, "typical", "lucky"),
    Threshold("random_fill_low", "above", 0, "still gains", "may lose"),
    Threshold("break_even_over_costs", "at least", 2, "above 2x", "below 2x"),
    Threshold("fragile", "below", 1, "robust", "fragile"),
)
"""The chips: each its own figure, `words` where it is met and `else_words` elsewhere."""

ASSESSED = (
    *("sharpe_low", "p_random_entries", "random_entry_ruined", "p_drawdown", "random_fill_low"),
    *("break_even_over_costs", "fragile"),
)
"""Figures that `robustness` brings, which not every kind of run has."""

NAMES: Mapping[str, str] = {
    "trade_count": "trades",
    "closed_trades": "closed trades",
    "liquidated": "liquidated",
    "total_return": "total return",
    "psr": "probabilistic Sharpe, alone",
    "dsr": "deflated Sharpe, trials on this asset and timeframe",
    "board_dsr": "deflated Sharpe on the leaderboard, all trials of the strategy",
    "sharpe_low": "Sharpe ratio, lower end of the 90 % interval",
    "track_record": "days, over the shortest track record that would do",
    "p_random_entries": "p-value against random entries",
    "random_entry_ruined": "random entries that lost everything",
    "p_drawdown": "resampled histories with a deeper drawdown",
    "random_fill_low": "return at random fills within the bar, lower end",
    "break_even_over_costs": "cost at which nothing is left, over the cost assumed",
    "excess_return": "total return less the benchmark's",
    "information_ratio": "information ratio",
    "fragile": "another assumption turns or halves the gain",
}

_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("trade_count", "closed_trades", "liquidated", "fragile"), "count"),
    **dict.fromkeys(("sharpe_low", "information_ratio", "track_record"), "ratio"),
    "break_even_over_costs": "number",
}


def kind_of_figure(name: str) -> Kind:
    """How a figure of the rules is written."""
    return _KINDS.get(name, "percent")


def figures_of(run: ReportedRun) -> dict[str, float | None]:
    """The figures that rules are about; None where undefined or not assessed."""
    metrics = run.metrics
    total, held = metrics.get("total_return"), metrics.get("benchmark_return")
    shortest = metrics.get("min_track_record_length")
    days = None if run.series is None else (run.series.ts[-1] - run.series.ts[0]) / 86_400e6
    break_even, costs = run.doubt("break_even_bps"), assumed_bps(run)
    fragile = run.doubt("fragile")
    return {
        **{name: metrics.get(name) for name in ("trade_count", "total_return", "psr", "dsr")},
        "information_ratio": metrics.get("information_ratio"),
        "board_dsr": None if run.board is None else run.board.dsr,
        "closed_trades": _closed_trades(run),
        "liquidated": float(run.liquidated),
        "sharpe_low": run.intervals["sharpe"][0] if run.intervals else None,
        "track_record": days / shortest if days is not None and shortest else None,
        "excess_return": None if total is None or held is None else total - held,
        **{
            name: run.doubt(name)
            for name in ("p_random_entries", "random_entry_ruined", "p_drawdown", "random_fill_low")
        },
        "break_even_over_costs": break_even / costs if break_even is not None and costs else None,
        "fragile": None if fragile is None else float(fragile),
    }


def _closed_trades(run: ReportedRun) -> float | None:
    if run.is_portfolio:
        return None
    return float(sum(not trade["is_open"] for trade in run.trades))


def assumed_bps(run: ReportedRun) -> float | None:
    """Fee and slippage of a side that the run assumed, basis points; None if not assessed."""
    if not run.envelope:
        return None
    return run.envelope[0]["fee_bps"] + run.envelope[0]["slippage_bps"]


def verdict_of(figures: Mapping[str, float | None]) -> str:
    """The words of the first rule of VERDICT that the figures meet; empty where none does."""
    return next((rule.words for rule in VERDICT if rule.meets(figures[rule.figure])), "")


def chip_of(rule: Threshold, value: float | None) -> Chip:
    """The chip of a check."""
    if value is None:
        return Chip("not known", "mute")
    return Chip(rule.words, "ok") if rule.meets(value) else Chip(rule.else_words, "warn")


def reasons_of(run: ReportedRun) -> Iterator[str]:
    """What stands behind the verdict, in sentences, as far as it is known."""
    metrics = run.metrics
    if run.walk_forward:
        yield run.walk_forward
    dsr, trials = metrics.get("dsr"), metrics.get("n_trials")
    if dsr is not None and trials:
        yield (
            f"Luck alone reaches this Sharpe ratio with probability {written(1 - dsr, 'percent')} "
            f"({trials_counted(run)} on {run.symbol}|{run.timeframe})."
        )
    if run.board is not None:
        fails = ", ".join(run.board.fails)
        yield (
            f"The leaderboard counts all {run.board.n_trials:,} trials of the strategy: deflated "
            f"Sharpe {written(run.board.dsr, 'percent')}, rank {run.board.rank:,} of "
            f"{run.board.n_ranked:,}, fails {fails or 'no gate'}."
        )
    p, ruined = run.doubt("p_random_entries"), run.doubt("random_entry_ruined")
    if p is not None:
        lost = f"; {written(ruined, 'percent')} of them lost everything" if ruined else ""
        yield f"{written(p, 'percent')} of random entries did as well{lost}."
    if run.intervals and None not in run.intervals["total_return"]:
        low, high = (written(v, "percent") for v in run.intervals["total_return"])
        yield f"Resampled days give {low} to {high} (90\N{NO-BREAK SPACE}%)."
    ratio = metrics.get("information_ratio")
    if ratio is not None:
        yield f"Information ratio {written(ratio, 'ratio')} against {run.benchmark_name}."
    break_even = run.doubt("break_even_bps")
    if break_even is not None:
        yield f"Costs would have to reach {written(break_even, 'bps')} a side to take all of it."


def trials_counted(run: ReportedRun) -> str:
    """How many trials the deflated Sharpe ratio of a run counts, and what they are; or nothing."""
    trials = run.metrics.get("n_trials")
    if trials is None:
        return ""
    noun = "trial" if trials == 1 else "trials"
    return f"{written(trials, 'number')} {noun}: {run.counting_rule}"


def rules_table() -> str:
    """The table of docs/report.md, all rules of this module."""
    return "\n".join(
        [
            "| figure | bound | verdict |",
            "| --- | --- | --- |",
            *(f"| {NAMES[r.figure]} | {_bound(r)} | {r.words} |" for r in VERDICT),
            "",
            "| figure | bound | chip | otherwise |",
            "| --- | --- | --- | --- |",
            *(f"| {NAMES[r.figure]} | {_bound(r)} | {r.words} | {r.else_words} |" for r in CHECKS),
        ]
    )


def _bound(rule: Threshold) -> str:
    if rule.sign == "undefined":
        return "undefined, or not assessed"
    return f"{rule.sign} {written(round(rule.bound, 9), kind_of_figure(rule.figure))}"
