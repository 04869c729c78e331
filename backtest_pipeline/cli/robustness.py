"""`backtest-pipeline robustness`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from backtest_pipeline.cli.console import console, print_json, say
from backtest_pipeline.cli.options import AsJson, Bars, FullRebuild, Signal, SpecOptions, of_spec
from backtest_pipeline.cli.run import say_report, say_sampling
from backtest_pipeline.cli.store import open_store_for
from backtest_pipeline.pipeline.specs import RobustnessSpec

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.results import RobustnessResult

_LEVEL = 0.05
_NEARLY_ALWAYS = 0.95
Row = Mapping[str, Any]


app = typer.Typer()


@app.command()
@of_spec(RobustnessSpec, leave_out=["bands"])
def robustness(
    *,
    signal: Signal = None,
    options: SpecOptions[RobustnessSpec],
    bars: Bars = None,
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Backtest one strategy on one asset, and test how robust the result is."""
    with open_store_for(options, signal) as (workspace, settings, spec):
        from backtest_pipeline.pipeline.execution import execute
        from backtest_pipeline.pipeline.results import RobustnessResult

        result = execute(workspace, settings, spec, bars=str(bars or ""), rebuild=full_rebuild)
        assert isinstance(result, RobustnessResult)  # noqa: S101  (robustness has no other)
        folder = f"{workspace.artifacts.where}/{result.robustness_uri}"
        from backtest_pipeline.pipeline.runs.reports.report import report_url

        address = report_url(result.run_id, settings)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _show(result, folder)
        say_report(result.run_id, address)


def _show(result: RobustnessResult, folder: str) -> None:
    numbers: Row = {**result.model_dump(exclude={"metrics", "numbers"}), **result.numbers}
    row: Row = result.metrics
    what = f"{result.preset or result.strategy} on {result.symbol} {result.timeframe}"
    if result.synthetic:
        what += " (synthetic bars)"
    console.print(_questions_table(what, row, numbers))
    for remark in _on_random_entries(row, numbers):
        say(remark)
    for reason in result.reasons:
        say(f"fragile: {reason}")
    say_sampling(result)
    say("total return by fee (rows) and slippage (columns), basis points a side:")
    console.print(_costs_table(result.envelope))
    say(f"{result.n_bars:,} bars, {row['trade_count']:,.0f} trades, run {result.run_id}")
    from backtest_pipeline.research.robustness.sharpe_interval import COVERAGE

    say(
        "intervals are nominal: that of the Sharpe ratio held the true one in "
        f"{COVERAGE} of simulated histories"
    )
    say(f"{result.draws:,} draws each, seed {result.seed}; bands and samples: {folder}")
    say("not corrected for how many other runs were tried: see `backtest-pipeline trials`")


def _on_random_entries(row: Row, numbers: Row) -> Iterator[str]:
    """What weakens the comparison with random entries."""
    if numbers["random_entry_ruined"]:
        yield (
            f"random entries: {_percent(numbers['random_entry_ruined'])} of permuted markets end "
            "in ruin"
        )
    if numbers["p_random_entries"] is not None and row["exposure"] > _NEARLY_ALWAYS:
        yield (
            f"random entries: in position {_percent(row['exposure'])} of the time, so that "
            "this comparison says little"
        )


def _questions_table(what: str, row: Row, numbers: Row) -> Table:
    table = Table(title=what, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in ("question", "finding", "verdict"):
        table.add_column(title)
    for question, finding, needs, verdict in _questions(row, numbers):
        missing = next(
            (numbers["undefined"][name] for name in needs if numbers[name] is None), None
        )
        if missing is not None:
            finding, verdict = f"undefined: {missing}", "-"
        table.add_row(question, escape(finding), verdict)
    return table


def _questions(row: Row, numbers: Row) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Question, finding, the numbers that the finding needs, and the verdict."""
    shown = {name: _percent(value) for name, value in {**row, **numbers}.items()}
    yield (
        "better than random entries?",
        (
            f"{shown['total_return']}, median on permuted bars {shown['random_entry_median']}; "
            f"{_p(numbers['p_random_entries'])}"
        ),
        ("p_random_entries",),
        _significant(numbers["p_random_entries"]),
    )
    yield (
        "Sharpe above 0?",
        (
            f"{_ratio(row['sharpe'])}, 90 % interval {_ratio(numbers['sharpe_low'])} to "
            f"{_ratio(numbers['sharpe_high'])}; {_p(numbers['p_sharpe'])}"
        ),
        ("p_sharpe",),
        _significant(numbers["p_sharpe"]),
    )
    yield (
        "return above 0?",
        (
            f"{shown['total_return']}, 90 % interval {shown['total_return_low']} to "
            f"{shown['total_return_high']}; {_p(numbers['p_total_return'])}"
        ),
        ("p_total_return",),
        _significant(numbers["p_total_return"]),
    )
    yield (
        "drawdown typical?",
        (
            f"{shown['max_drawdown']}, resampled median {shown['drawdown_median']}, "
            f"1 in 20 below {shown['drawdown_95']}"
        ),
        ("drawdown_95",),
        "[yellow]lucky[/]" if (numbers["p_drawdown"] or 0) > 1 - _LEVEL else "[green]typical[/]",
    )
    yield (
        "trades reordered?",
        (
            f"median drawdown {shown['reordered_drawdown_median']}, 1 in 20 below "
            f"{shown['reordered_drawdown_95']}"
        ),
        ("reordered_drawdown_95",),
        "",
    )
    yield (
        "random fills in the bar?",
        f"return, 90 % interval {shown['random_fill_low']} to {shown['random_fill_high']}",
        ("random_fill_low",),
        _yes((numbers["random_fill_low"] or 0) > 0, "still gains", "may lose"),
    )
    yield (
        "break-even cost?",
        f"{numbers['break_even_bps'] or 0:,.1f} bps a side; {_assumed_bps(numbers):,.1f} assumed",
        ("break_even_bps",),
        _yes((numbers["break_even_bps"] or 0) > 2 * _assumed_bps(numbers), "above 2x", "below 2x"),
    )
    yield (
        "other assumptions?",
        f"worst {_percent(_worst(numbers))} (one bar later, other intrabar order, 2x costs)",
        ("fragile",),
        _stands(row, numbers),
    )


def _stands(row: Row, numbers: Row) -> str:
    if not numbers["fragile"] and row["total_return"] <= 0:
        return "[red]always a loss[/]"
    return _yes(not numbers["fragile"], "robust", "fragile")


def _significant(p: float | None) -> str:
    return _yes(p is not None and p <= _LEVEL, "yes", "not shown")


def _yes(is_so: bool, yes: str, no: str) -> str:
    return f"[green]{yes}[/]" if is_so else f"[red]{no}[/]"


def _p(value: float | None) -> str:
    return "" if value is None else f"p = {value:.3f}"


def _percent(value: Any) -> str:
    return f"{value:,.1%}" if isinstance(value, float) else "-"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _assumed_bps(numbers: Row) -> float:
    run = numbers["envelope"][0]
    return run["fee_bps"] + run["slippage_bps"]


def _worst(numbers: Row) -> float:
    from backtest_pipeline.research.robustness.envelope import JUDGED_UP_TO

    return min(
        s["total_return"]
        for s in numbers["envelope"]
        if max(s["fee_multiplier"], s["slippage_multiplier"]) <= JUDGED_UP_TO
    )


def _costs_table(envelope: Sequence[Row]) -> Table:
    """Total return by fee and slippage; the run's own in bold."""
    run = envelope[0]
    returns = {
        (s["fee_bps"], s["slippage_bps"]): s["total_return"]
        for s in envelope
        if s["assumption"] in ("costs", "as run")
    }
    slippages = sorted({slippage for _, slippage in returns})
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for slippage in slippages:
        table.add_column(f"{slippage:g}", justify="right")
    for fee in sorted({fee for fee, _ in returns}):
        cells = []
        for slippage in slippages:
            text = _percent(returns[fee, slippage])
            own = (fee, slippage) == (run["fee_bps"], run["slippage_bps"])
            cells.append(f"[bold]{text}[/]" if own else text)
        table.add_row(f"{fee:g}", *cells)
    return table
