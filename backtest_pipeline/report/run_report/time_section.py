"""A run through time: months, years, daily returns, rolling figures and its deepest drawdowns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.report.number_formats import day, written
from backtest_pipeline.report.rolling_figures import rolling_statistics
from backtest_pipeline.report.run_report.contents import (
    Card,
    Cell,
    Figure,
    ReportedRun,
    ReportTable,
    RunSeries,
    Section,
    TableRow,
    Words,
    figure,
)
from backtest_pipeline.report.run_report.drawdown_spells import deepest_spells
from backtest_pipeline.report.run_report.drawing import (
    LegendKey,
    bar,
    below_bar,
    chart,
    line,
    stretched,
)
from backtest_pipeline.report.run_report.scales import TimeScale, ValueScale
from backtest_pipeline.report.run_report.trust_section import heat
from backtest_pipeline.research.robustness.bootstrap import DailyEquity, daily_equity

_HEIGHT = 200
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WINDOWS = (365, 90)
_HOTTEST = 0.3  # a month that gains or loses this has the strongest colour
_MOST_ROLLING = 500
_BINS = 41  # odd, so that one bar lies around zero


def time_section(run: ReportedRun) -> Section:
    """Months and years of the run beside its benchmark; nothing where its series are missing."""
    return Section("time", "Through time", list(_cards(run)) if run.series is not None else [])


def _cards(run: ReportedRun) -> Iterator[Card]:
    series = run.series
    assert series is not None  # noqa: S101  (the caller has looked)
    own = daily_equity(series.ts, series.equity)
    held = daily_equity(series.ts, series.benchmark) if series.has_benchmark else None
    yield Card("Months", "Percent.", table=_months(own, held), columns=12)
    yield Card("Years", "", [_years(run, own, held)])
    yield Card("Daily returns", *_distribution(own))
    yield from _rolling(run, own, held)
    yield Card("Five deepest drawdowns", "", table=_drawdowns(series))


def growth_of(daily: DailyEquity, unit: str) -> dict[str, float]:
    """Returns by calendar month (`M`) or year (`Y`) of daily equity, fractions."""
    names = daily.day[1:].astype("M8[D]").astype(f"M8[{unit}]")
    last = np.append(np.flatnonzero(names[1:] != names[:-1]), len(names) - 1)
    equity = daily.equity[np.concatenate(([0], last + 1))]
    before, after = equity[:-1], equity[1:]
    growth = np.divide(after, before, out=np.ones_like(after), where=before > 0) - 1
    return dict(zip(names[last].astype(str).tolist(), growth.tolist(), strict=True))


def _months(own: DailyEquity, held: DailyEquity | None) -> ReportTable:
    months, years = growth_of(own, "M"), growth_of(own, "Y")
    of_held = {} if held is None else growth_of(held, "Y")
    rows = []
    for year, total in years.items():
        cells: list[Cell] = []
        for month in range(1, 13):
            value = months.get(f"{year}-{month:02}")
            cells.append(
                _cell(f"month_{year}_{month:02}", value) if value is not None else Words("")
            )
        cells.append(_plain(figure(f"year_{year}", total, "percent"), "s"))
        if held is not None:
            cells.append(_plain(figure(f"benchmark_year_{year}", of_held.get(year), "percent"), ""))
        rows.append(TableRow(year, cells))
    heads = ["", *_MONTHS, "year", *(["benchmark"] if held is not None else [])]
    return ReportTable("Returns by month", heads, rows, "mt")


def _cell(name: str, value: float) -> Figure:
    return _plain(figure(name, value, "percent"), heat(value, _HOTTEST))


def _plain(made: Figure, css: str) -> Figure:
    """A figure of a table whose head says percent."""
    return made._replace(text=made.text.removesuffix("%"), css=css)


def _years(run: ReportedRun, own: DailyEquity, held: DailyEquity | None) -> str:
    years = growth_of(own, "Y")
    of_held = {} if held is None else growth_of(held, "Y")
    y = ValueScale.over(np.array([*years.values(), *of_held.values()]), _HEIGHT, zero=True)
    width, body = 100 / len(years), []
    for position, (year, value) in enumerate(years.items()):
        left = position * width
        title = f"{year}: {written(value, 'percent', signed=True)}"
        body.append(bar(left + width * 0.14, width * 0.34, value, y, "fr", title))
        if year in of_held:
            about = (
                f"{year}, {run.benchmark_name}: {written(of_held[year], 'percent', signed=True)}"
            )
            body.append(bar(left + width * 0.52, width * 0.34, of_held[year], y, "fb", about))
        hidden = bool(position % 2) and len(years) > 5
        body.append(below_bar(left + width / 2, _HEIGHT, year, hidden_on_phones=hidden))
    keys = [LegendKey("kr", "run"), *([LegendKey("kb", run.benchmark_name)] if of_held else [])]
    gains = sum(value > 0 for value in years.values())
    label = f"Returns by year: {gains} of {len(years)} with a gain."
    return chart(body, label, _HEIGHT + 18, y, percent=True, keys=keys)


def _distribution(own: DailyEquity) -> tuple[str, list[str]]:
    # Days without a position would hide the rest; bars and curve are of the same days.
    returns = own.returns[own.returns != 0]
    flat = len(own.returns) - len(returns)
    spread = float(returns.std()) if len(returns) else 0.0
    if len(returns) < 20 or spread == 0:
        return "Too few daily returns, or constant ones.", []
    reach = max(4 * spread, 0.001)
    counts, edges = np.histogram(np.clip(returns, -reach, reach), _BINS, (-reach, reach))
    middle = (edges[:-1] + edges[1:]) / 2
    normal = (
        np.exp(-((middle - returns.mean()) ** 2) / (2 * spread**2)) / (spread * np.sqrt(2 * np.pi))
        * len(returns) * (edges[1] - edges[0])
    )  # fmt: skip
    y = ValueScale.over(np.append(normal, counts), _HEIGHT, zero=True)
    width = 100 / _BINS
    body = [
        bar(i * width + width * 0.08, width * 0.84, float(n), y, _side(edges[i], edges[i + 1]),
            f"{n:,} days, {written(edges[i], 'percent')} to {written(edges[i + 1], 'percent')}")
        for i, n in enumerate(counts) if n
    ]  # fmt: skip
    centres = (np.arange(_BINS) + 0.5) * 10 * width
    body.append(stretched([line(centres, normal, TimeScale(0, 1000), y, "ln")], _HEIGHT))
    for share in (-1.0, -0.5, 0.0, 0.5, 1.0):
        at = min(max(50 + 49 * share, 4), 96)
        body.append(below_bar(at, _HEIGHT, written(share * reach, "percent")))
    about = f"Days beyond {written(reach, 'percent')} stand in the outermost bars."
    if flat:
        about += f" {flat:,} days without any change are left out of bars and curve."
    label = f"Histogram of {len(returns):,} daily returns beside a normal distribution."
    keys = [
        LegendKey("kw", "gain"),
        LegendKey("kl", "loss"),
        LegendKey("kb", "around zero"),
        LegendKey("kn", "normal of the same mean and spread"),
    ]
    return about, [chart(body, label, _HEIGHT + 18, y, keys=keys)]


def _side(low: float, high: float) -> str:
    """The colour of a bar between two returns: neutral where it holds gains and losses."""
    return "fw" if low > 0 else "fl" if high < 0 else "fb"


def _rolling(run: ReportedRun, own: DailyEquity, held: DailyEquity | None) -> Iterator[Card]:
    n_days = len(own.returns)
    window = next((days for days in _WINDOWS if n_days >= 2 * days), None)
    if window is None:
        yield Card("Rolling figures", f"{n_days:,} days are too few for a window of 90.")
        return
    at = np.unique(np.linspace(0, n_days - window, _MOST_ROLLING).astype(np.int64))
    benchmark = None if held is None else held.equity
    figures = rolling_statistics(own.equity, window, benchmark, at)
    of_held = {} if held is None else rolling_statistics(held.equity, window, None, at)
    ts = (own.day[window:][at] + 1) * DAY_US
    for name, title, percent in (
        ("sharpe", "Sharpe ratio", False),
        ("annual_volatility", "Volatility a year", True),
        ("beta", "Beta to the benchmark", False),
    ):
        if name not in figures:
            continue
        beside = of_held.get(name) if name != "beta" else None
        picture = _rolling_chart(run, ts, figures[name], beside, title, percent=percent)
        yield Card(f"{title}, rolling {window} days", "", [picture])


def _rolling_chart(
    run: ReportedRun,
    ts: np.ndarray,
    own: np.ndarray,
    held: np.ndarray | None,
    title: str,
    *,
    percent: bool,
) -> str:
    values = own if held is None else np.concatenate((own, held))
    y = ValueScale.over(values, _HEIGHT, zero=True)
    x = TimeScale(int(ts[0]), int(ts[-1]))
    paths, keys = [], [LegendKey("kr", "run")]
    if held is not None:
        paths.append(line(ts, held, x, y, "lb"))
        keys.append(LegendKey("kb", run.benchmark_name))
    paths.append(line(ts, own, x, y, "lr"))
    known = own[np.isfinite(own)]
    kind = "percent" if percent else "ratio"
    label = f"{title}: undefined." if not len(known) else (
        f"{title} from {written(known.min(), kind)} to {written(known.max(), kind)}."
    )  # fmt: skip
    return chart([stretched(paths, _HEIGHT)], label, _HEIGHT, y, x, percent=percent, keys=keys)


def _drawdowns(series: RunSeries) -> ReportTable:
    rows = []
    for spell in deepest_spells(series.ts, series.drawdown):
        cells: list[Cell] = [
            Words(day(spell.peak)),
            Words(day(spell.trough)),
            Words(day(spell.recovered) if spell.recovered is not None else "not yet"),
            figure("drawdown_days", (spell.end - spell.peak) / DAY_US, "count"),
        ]
        rows.append(TableRow(written(spell.depth, "percent"), cells))
    heads = ["depth", "peak", "trough", "recovered", "days"]
    return ReportTable("Five deepest drawdowns", heads, rows, "dd")
