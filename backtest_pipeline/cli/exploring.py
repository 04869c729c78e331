"""`backtest-pipeline explore`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtest_pipeline.cli.console import console, print_json, progress_shown, rows_table, say
from backtest_pipeline.market.errors import InvalidInput

if TYPE_CHECKING:
    from backtest_pipeline.cli.assumed import Assumed
    from backtest_pipeline.pipeline.exploration import Exploration

_BESIDE = ("sharpe", "total_return", "benchmark_return", "max_drawdown", "trade_count")
_MOST_VALUES = 10_000


def explore(
    indicator: str,
    ranges: Sequence[str],
    *,
    asset: str,
    tf: str,
    assumptions: Assumed,
    bars: str,
    metric: str,
    max_combinations: int,
    output: Path,
    as_json: bool,
) -> None:
    """Sweep, write the page, and print the best, median and worst combination."""
    with progress_shown() as progress:
        progress("loading", 0, 1)
        params = parameters_of(ranges)
        asked = assumptions.asked()
        from backtest_pipeline.cli.serving import ensure_schema
        from backtest_pipeline.pipeline.api import load_bars
        from backtest_pipeline.pipeline.exploration import explore as sweep
        from backtest_pipeline.pipeline.workspace import open_workspace
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings()
        path = bars or settings.bars
        loaded = load_bars(path, asset=asset, timeframe=tf)
        ensure_schema(settings)
        with open_workspace(settings) as workspace:
            progress("loading", 1, 1)
            found = sweep(
                loaded,
                indicator,
                params,
                metric=metric,
                start=asked.window.start,
                end=asked.window.end,
                funding=asked.funding,
                timeframe=tf,
                asset=asset,
                max_combinations=max_combinations,
                workspace=workspace,
                progress=progress,
                **{field.name: getattr(asked.config, field.name) for field in fields(asked.config)},
            )
        page = found.write_html(output)
    if as_json:
        print_json(_as_json(found, page))
    else:
        _show(found, page, loaded.attrs["issues"], synthetic=not path)


def parameters_of(arguments: Sequence[str]) -> dict[str, list[int | float]]:
    """The values behind `--fast 5:50:5 --slow=20,50 --trail-mult 1:3:0.5`.

    Raises:
        InvalidInput: for what is not an option with a range.
    """
    texts: dict[str, str] = {}
    waiting = list(arguments)
    while waiting:
        option, equals, text = waiting.pop(0).partition("=")
        if not option.startswith("--") or len(option) < 3:
            raise InvalidInput(f"{option!r} is not a parameter; write it as --fast 5:50:5")
        if not equals:
            if not waiting:
                raise InvalidInput(f"{option} has no values; write it as {option} 5:50:5")
            text = waiting.pop(0)
        if option in texts:
            raise InvalidInput(f"{option} is given twice; separate values by commas")
        texts[option] = text
    return {option[2:].replace("-", "_"): values_of(option, text) for option, text in texts.items()}


def values_of(option: str, text: str) -> list[int | float]:
    """The numbers of `9`, `9,21,50`, `5:50` or `5:50:5`; the end of a range belongs to it.

    Raises:
        InvalidInput: for text that is neither, a step that is not above 0, a range that ends
            before it begins, or one of very many values.
    """
    return [value for part in text.split(",") for value in _range_of(option, text, part)]


def _range_of(option: str, text: str, part: str) -> list[int | float]:
    try:
        bounds = [Decimal(bound) for bound in part.split(":")]
    except InvalidOperation:
        bounds = []
    if not 1 <= len(bounds) <= 3 or not all(bound.is_finite() for bound in bounds):
        raise InvalidInput(
            f"{option} {text!r} is no range; write 9, or 9,21,50, or 5:50:5 (from, to, step)"
        )
    first, last = bounds[0], bounds[min(1, len(bounds) - 1)]
    step = bounds[2] if len(bounds) == 3 else Decimal(1)
    if step <= 0 or last < first:
        raise InvalidInput(f"{option} {text!r} holds no value; it goes from, to, step above 0")
    n = math.floor((last - first) / step) + 1
    if n > _MOST_VALUES:
        raise InvalidInput(f"{option} {text!r} holds {n:,} values; take a larger step")
    # Decimals, so that 1:3:0.1 holds 1.2 and not 1.2000000000000002.
    values = [first + i * step for i in range(n)]
    whole = all(bound == bound.to_integral_value() for bound in bounds)
    return [int(value) if whole else float(value) for value in values]


def _show(found: Exploration, page: Path, issues: Sequence[str], *, synthetic: bool) -> None:
    from backtest_pipeline.report.exploration import remarks, selection_told, surroundings_told

    of_what = "the synthetic sample market: " if synthetic else ""
    title = f"{found.subject.signal_type} by {found.metric}, {len(found.table):,} combinations"
    console.print(rows_table(title, _rows(found)))
    say(f"{of_what}{found.subject}")
    for issue in issues:
        say(f"rows of the source, skipped or remarked upon: {issue}")
    for remark in remarks(found.table, found.metric, found.left_out):
        say(remark)
    say(f"around the best: {surroundings_told(found.surroundings, found.metric)}")
    for sentence in selection_told(found.selection):
        say(sentence)
    say(f"warning: {found.warning}")
    say(f"heat map and curves: {page.resolve()}")


def _rows(found: Exploration) -> list[dict[str, Any]]:
    from backtest_pipeline.report.exploration import parameters

    ranked = found.ranked
    last = len(ranked) - 1
    metrics = dict.fromkeys((found.metric, *_BESIDE))
    places = {"best": 0, "median": last // 2, "worst": last}
    return [
        {
            "": place,
            **parameters(ranked, position),
            **{name: _known(ranked[name].iloc[position]) for name in metrics},
        }
        for place, position in places.items()
    ]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _as_json(found: Exploration, page: Path) -> dict[str, Any]:
    from backtest_pipeline.report.exploration import parameters

    ranked, around = found.ranked, found.surroundings
    last = len(ranked) - 1

    def combination(position: int) -> dict[str, Any]:
        row = ranked.iloc[position]
        return {
            "params": parameters(ranked, position),
            "metrics": {name: _known(row[name]) for name in ranked.columns},
        }

    return {
        "signal_type": found.subject.signal_type,
        "asset": found.subject.asset,
        "timeframe": found.subject.timeframe,
        "bars": found.subject.n_bars,
        "metric": found.metric,
        "combinations": len(found.table),
        "left_out": found.left_out,
        "best": combination(0),
        "median": combination(last // 2),
        "worst": combination(last),
        "neighbourhood": {
            "shape": str(around.shape),
            "neighbours": len(around.neighbours),
            "undefined": around.n_undefined,
            "median": around.median,
            "worst": around.worst,
            "rank": around.rank,
        },
        "selection": {
            **{
                name: _known(getattr(found.selection, name))
                for name in ("psr", "dsr", "dsr_effective", "n_trials_effective", "pbo")
            },
            "n_trials": found.selection.n_trials,
            "intervals": {
                name: list(map(_known, ends)) for name, ends in found.selection.intervals.items()
            },
            "undefined": dict(found.selection.undefined),
        },
        "warning": found.warning,
        "page": str(page.resolve()),
    }
