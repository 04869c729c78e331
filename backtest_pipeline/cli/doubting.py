"""`backtest-pipeline robustness`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from backtest_pipeline.cli.console import console, print_json, progress_shown, say
from backtest_pipeline.cli.opening import store_and_source

if TYPE_CHECKING:
    from backtest_pipeline.cli.assumed import Assumed

_LEVEL = 0.05
Row = Mapping[str, Any]


def robustness(
    *,
    signal: str,
    asset: str,
    tf: str,
    assumptions: Assumed,
    bars: str,
    draws: int,
    seed: int,
    full_rebuild: bool,
    as_json: bool,
) -> None:
    """Backtest, put the run in doubt, and print what remains of it."""
    with progress_shown() as progress:
        progress("loading", 0, 1)
        asked = assumptions.asked()
        from backtest_pipeline.pipeline.robustness import assess_once
        from backtest_pipeline.research.draws import require_draws
        from backtest_pipeline.storage.datasets import synthetic_among

        require_draws(draws, seed)
        with store_and_source(asset, bars, progress, asked.benchmark) as (workspace, source):
            row = assess_once(
                workspace,
                source,
                signal=signal,
                asset=asset,
                tf=tf,
                asked=asked,
                draws=draws,
                seed=seed,
                rebuild=full_rebuild,
            )
            folder = f"{workspace.artifacts.where}/{row['robustness']['artifact_uri']}"
            with workspace.database.begin() as connection:
                synthetic = bool(synthetic_among(connection, [asset]))
    if as_json:
        print_json(_as_json(row, folder, synthetic))
    else:
        _show(row, folder, synthetic)


def _as_json(row: Row, folder: str, synthetic: bool) -> dict[str, Any]:
    from backtest_pipeline.research.robustness import NUMBERS

    found = row["robustness"]
    return {
        "run_id": str(row["run_id"]),
        "signal": row["signal_name"],
        "asset": row["symbol"],
        "timeframe": row["tf"],
        "bars": int(row["n_bars"]),
        "trades": int(row["trade_count"]),
        "synthetic": synthetic,
        "draws": found["draws"],
        "seed": found["seed"],
        "fragile": found["fragile"],
        "reasons": found["reasons"],
        "numbers": {name: {**row, **found}[name] for name in NUMBERS},
        "undefined": found["undefined"],
        "envelope": found["envelope"],
        "artifacts": folder,
    }


def _show(row: Row, folder: str, synthetic: bool) -> None:
    found = row["robustness"]
    what = f"{row['signal_name']} on {row['symbol']} {row['tf']}"
    if synthetic:
        what += " (synthetic bars)"
    console.print(_doubts_table(what, row, found))
    for reason in found["reasons"]:
        say(f"fragile: {reason}")
    say("return by fee (down) and slippage (across), basis points a side:")
    console.print(_costs_table(found["envelope"]))
    say(f"{row['n_bars']:,} bars, {row['trade_count']:,.0f} trades, run {row['run_id']}")
    say(f"{found['draws']:,} draws each, seed {found['seed']}; bands and draws: {folder}")
    say("no number here knows how many other runs were tried before this one")


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
    from backtest_pipeline.research.envelope import JUDGED_UP_TO

    return min(
        s["total_return"]
        for s in found["envelope"]
        if max(s["fee_multiplier"], s["slippage_multiplier"]) <= JUDGED_UP_TO
    )


def _costs_table(envelope: list[Row]) -> Table:
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
