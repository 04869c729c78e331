"""`backtest-pipeline robustness`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from backtest_pipeline.cli.console import console, print_json, say
from backtest_pipeline.cli.options import AsJson, Bars, FullRebuild, Signal, Typed, of_spec
from backtest_pipeline.cli.store import opened_for
from backtest_pipeline.pipeline.specs import RobustnessSpec

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.results import RobustnessResult

_LEVEL = 0.05
Row = Mapping[str, Any]


app = typer.Typer()


@app.command()
@of_spec(RobustnessSpec, leave_out=["bands"])
def robustness(
    *,
    signal: Signal = None,
    typed: Typed[RobustnessSpec],
    bars: Bars = None,
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Backtest one strategy on one asset, and tell how far the result can be trusted."""
    with opened_for(typed, signal) as (workspace, settings, wanted):
        from backtest_pipeline.pipeline.execution import execute
        from backtest_pipeline.pipeline.results import RobustnessResult

        found = execute(workspace, settings, wanted, bars=str(bars or ""), rebuild=full_rebuild)
        assert isinstance(found, RobustnessResult)  # noqa: S101  (robustness has no other)
        folder = f"{workspace.artifacts.where}/{found.robustness_uri}"
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _show(found, folder)


def _show(result: RobustnessResult, folder: str) -> None:
    found: Row = {**result.model_dump(exclude={"metrics", "numbers"}), **result.numbers}
    row: Row = result.metrics
    what = f"{result.preset or result.strategy} on {result.symbol} {result.timeframe}"
    if result.synthetic:
        what += " (synthetic bars)"
    console.print(_doubts_table(what, row, found))
    for reason in result.reasons:
        say(f"fragile: {reason}")
    say("return by fee (down) and slippage (across), basis points a side:")
    console.print(_costs_table(result.envelope))
    say(f"{result.n_bars:,} bars, {row['trade_count']:,.0f} trades, run {result.run_id}")
    say(f"{result.draws:,} draws each, seed {result.seed}; bands and draws: {folder}")
    say("none of these numbers is corrected for how many other runs were tried: see `trials`")


def _doubts_table(what: str, row: Row, found: Row) -> Table:
    table = Table(title=what, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in ("question", "finding", "verdict"):
        table.add_column(title)
    for question, finding, needs, verdict in _doubts(row, found):
        missing = next((found["undefined"][name] for name in needs if found[name] is None), None)
        if missing is not None:
            finding, verdict = f"undefined: {missing}", "-"
        table.add_row(question, escape(finding), verdict)
    return table


def _doubts(row: Row, found: Row) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Question, finding, the numbers that the finding needs, and the verdict."""
    shown = {name: _percent(value) for name, value in {**row, **found}.items()}
    yield (
        "better than random entries?",
        (
            f"{shown['total_return']}, random ones {shown['random_entry_median']} (median); "
            f"{_p(found['p_random_entries'])}"
        ),
        ("p_random_entries",),
        _significant(found["p_random_entries"]),
    )
    yield (
        "Sharpe above 0?",
        (
            f"{_ratio(row['sharpe'])}, in 90 % between {_ratio(found['sharpe_low'])} and "
            f"{_ratio(found['sharpe_high'])}; {_p(found['p_sharpe'])}"
        ),
        ("p_sharpe",),
        _significant(found["p_sharpe"]),
    )
    yield (
        "return above 0?",
        (
            f"{shown['total_return']}, in 90 % between {shown['total_return_low']} and "
            f"{shown['total_return_high']}; {_p(found['p_total_return'])}"
        ),
        ("p_total_return",),
        _significant(found["p_total_return"]),
    )
    yield (
        "which drawdown is usual?",
        (
            f"{shown['drawdown_median']} (median), one in twenty below {shown['drawdown_95']}; "
            f"this run {shown['max_drawdown']}"
        ),
        ("drawdown_95",),
        "[yellow]lucky[/]" if (found["p_drawdown"] or 0) > 1 - _LEVEL else "[green]as usual[/]",
    )
    yield (
        "trades in another order?",
        (
            f"drawdown {shown['reordered_drawdown_median']} (median), one in twenty below "
            f"{shown['reordered_drawdown_95']}"
        ),
        ("reordered_drawdown_95",),
        "",
    )
    yield (
        "fills anywhere in the bar?",
        f"return in 90 % between {shown['random_fill_low']} and {shown['random_fill_high']}",
        ("random_fill_low",),
        _yes((found["random_fill_low"] or 0) > 0, "still gains", "may lose"),
    )
    yield (
        "what cost can it bear?",
        f"{found['break_even_bps'] or 0:,.1f} bps a side; {_assumed_bps(found):,.1f} are assumed",
        ("break_even_bps",),
        _yes((found["break_even_bps"] or 0) > 2 * _assumed_bps(found), "twice and more", "little"),
    )
    yield (
        "other assumptions?",
        f"{_percent(_worst(found))} at worst (a bar later, other intrabar order, 2 x costs)",
        ("fragile",),
        _stands(row, found),
    )


def _stands(row: Row, found: Row) -> str:
    if not found["fragile"] and row["total_return"] <= 0:
        return "[red]always a loss[/]"
    return _yes(not found["fragile"], "robust", "fragile")


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


def _assumed_bps(found: Row) -> float:
    run = found["envelope"][0]
    return run["fee_bps"] + run["slippage_bps"]


def _worst(found: Row) -> float:
    from backtest_pipeline.research.robustness.envelope import JUDGED_UP_TO

    return min(
        s["total_return"]
        for s in found["envelope"]
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
