"""A sweep as one HTML page that opens without a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest_pipeline.report.number_formats import shown
from backtest_pipeline.report.rendering import Tile, render, template_text
from backtest_pipeline.report.run_report.table_markup import markup
from backtest_pipeline.research.robustness.neighbourhood import Neighbourhood, Shape, best_first
from backtest_pipeline.research.validation.selection import Selection

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_BESIDE = ("total_return", "sharpe", "sortino", "max_drawdown", "trade_count", "exposure")
_ROWS = 10
# Plotly has others, which send the data to its servers.
_BUTTONS = ["toImage", "zoom2d", "pan2d", "resetScale2d"]


@dataclass(frozen=True)
class Subject:
    """What was swept: a strategy on one asset's bars, with the simulation's settings.

    Attributes:
        strategy, asset, timeframe: which.
        n_bars: bars that were traded.
        first, last: UTC days on which they close.
        settings: direction, costs and each setting that is not at its default, in words.
    """

    strategy: str
    asset: str
    timeframe: str
    n_bars: int
    first: date
    last: date
    settings: str

    def __str__(self) -> str:
        return (
            f"{self.asset} {self.timeframe}, {self.n_bars:,} bars from {self.first} to "
            f"{self.last} (UTC); {self.settings}"
        )


def neighbourhood_sentence(found: Neighbourhood, metric: str) -> str:
    """How good the neighbours of the best combination are."""
    if found.median is None or found.rank is None:
        return f"{found.shape}: {metric} is undefined for all combinations one step away."
    n = len(found.neighbours)
    neighbours = f"its {n} neighbours have" if n > 1 else "its neighbour has"
    judged = {
        Shape.PLATEAU: "even the worst of them beats the median of all combinations",
        Shape.SLOPE: "the worst of them does not beat the median of all combinations",
        Shape.PEAK: "that does not beat the median of all combinations, so the best is likely "
        "chance",
    }
    return (
        f"{found.shape}: {neighbours} a median {metric} of {shown(metric, found.median)} "
        f"(worst {shown(metric, found.worst)}), as good as or better than {found.rank:.0%} of "
        f"the other combinations; {judged[found.shape]}."
    )


def selection_sentences(found: Selection) -> list[str]:
    """How far the best combination can be luck."""
    sentences = []
    if "dsr" not in found.undefined:
        verdict = "at or above" if found.dsr >= 0.95 else "below"
        sentences.append(
            f"Deflated Sharpe ratio of the best: {found.dsr:.2f} after {found.n_trials:,} trials "
            "(the combinations of this sweep), "
            f"{found.dsr_effective:.2f} after {found.n_trials_effective:,.1f} effective trials; "
            f"probabilistic Sharpe ratio, as if it were the only trial: {found.psr:.2f}. After all "
            f"trials it is {verdict} 0.95, the usual bar for more than luck."
        )
    if "pbo" not in found.undefined:
        sentences.append(
            f"Probability of backtest overfitting: {found.pbo:.0%}, which is how often the "
            "combination with the best Sharpe ratio on half of the days was below the median on "
            "the other half."
        )
    if found.intervals:
        low, high = found.intervals["sharpe"]
        lowest, highest = found.intervals["total_return"]
        sentences.append(
            f"Nominal 90 % bootstrap interval of the best: Sharpe ratio {low:.2f} to {high:.2f}, "
            f"total return {lowest:,.1%} to {highest:,.1%}."
        )
    sentences += [f"Undefined: {name} ({why})." for name, why in found.undefined.items()]
    return sentences


def exploration_page(
    subject: Subject,
    figure: Figure,
    table: pd.DataFrame,
    metric: str,
    surroundings: Neighbourhood,
    warning: str,
    left_out: int,
    selection: Selection,
) -> str:
    """The page: figure, key figures, ranking, warning; plotly.js is part of it.

    Args:
        subject: what was swept.
        figure: from `sweep_figure`.
        table: one row per combination, indexed by the parameters, one column per metric.
        metric: by which they are ranked; defined for one at least.
        surroundings: of the best.
        warning: why the best is not to be trusted as it is.
        left_out: combinations that were skipped as invalid.
        selection: how far the best can be luck.
    """
    ranked = table.iloc[best_first(pd.Series(table[metric]))]
    values = pd.Series(ranked[metric])
    last = len(ranked) - 1
    tiles = [
        (f"best {metric}", values.iloc[0], combination(ranked, 0)),
        ("median of its neighbours", surroundings.median, str(surroundings.shape)),
        ("median of all", values.iloc[last // 2], combination(ranked, last // 2)),
        ("worst", values.iloc[last], combination(ranked, last)),
    ]
    held = float(pd.Series(ranked["benchmark_return"]).iloc[0])
    return render(
        "sweep.html.j2",
        title=f"{subject.strategy} on {subject.asset} {subject.timeframe}",
        subject=str(subject),
        warnings=[warning],
        tiles=[
            *(Tile(title, shown(metric, value), below) for title, value, below in tiles),
            Tile("buy and hold", shown("benchmark_return", held), "total return"),
        ],
        metric=metric,
        surroundings=neighbourhood_sentence(surroundings, metric),
        remarks=list(remarks(table, metric, left_out)),
        selection=selection_sentences(selection),
        style=markup(template_text("run_report.css")),
        figure=markup(_figure_div(figure)),
        head=_columns(ranked, metric),
        rows=[_row(ranked, metric, i) for i in range(min(_ROWS, len(ranked)))],
    )


def _figure_div(figure: Figure) -> str:
    """The figure with plotly.js; the page's own menu takes the place of the figure's."""
    from plotly.graph_objects import Figure

    shown_figure = Figure(figure)
    shown_figure.update_layout(updatemenus=[{"visible": False}])
    return shown_figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        div_id="sweep",
        config={"responsive": True, "displaylogo": False, "modeBarButtons": [_BUTTONS]},
        post_script=_MENU,
    )


def remarks(table: pd.DataFrame, metric: str, left_out: int) -> Iterator[str]:
    """Combinations without a result and those that lost everything, counted by kind."""
    if left_out:
        yield f"combinations skipped because one parameter must be below another: {left_out:,}"
    undefined = int(np.isnan(table[metric].to_numpy(np.float64)).sum())
    if undefined:
        yield f"combinations whose {metric} is undefined: {undefined:,}"
    ruined = int((table["total_return"].to_numpy(np.float64) <= -1).sum())
    if ruined:
        yield f"combinations that lost all equity and were liquidated: {ruined:,}"


def combination(table: pd.DataFrame, position: int) -> str:
    """The parameters of a row as `fast 9, slow 21`."""
    return ", ".join(f"{name} {value:g}" for name, value in parameters(table, position).items())


def parameters(table: pd.DataFrame, position: int) -> dict[str, Any]:
    """The parameters of a row by name, as plain Python numbers."""
    levels = table.index.names
    return {str(name): table.index.get_level_values(name)[position].item() for name in levels}


def _columns(ranked: pd.DataFrame, metric: str) -> list[str]:
    beside = [name for name in _BESIDE if name != metric]
    return [*map(str, ranked.index.names), metric, *beside]


def _row(ranked: pd.DataFrame, metric: str, position: int) -> list[str]:
    values: Mapping[str, Any] = parameters(ranked, position)
    texts = [f"{value:g}" for value in values.values()]
    return texts + [
        shown(name, float(pd.Series(ranked[name]).iloc[position]))
        for name in _columns(ranked, metric)[len(values) :]
    ]


# The figure's own menu is as long as its metrics, and longer than a small figure.
_MENU = """
const plot = document.getElementById("sweep");
const menu = plot.layout.updatemenus[0];
const select = document.getElementById("metric");
for (const button of menu.buttons) select.add(new Option(button.label));
select.selectedIndex = menu.active;
select.onchange = () => Plotly.update(plot, ...menu.buttons[select.selectedIndex].args);
// In the colours of the page, light or dark.
const ink = getComputedStyle(document.body).color;
const head = getComputedStyle(document.querySelector("header"));
const [card, rule] = [head.backgroundColor, head.borderBottomColor];
const colours = { paper_bgcolor: card, plot_bgcolor: card, "font.color": ink };
Object.assign(colours, { "hoverlabel.bgcolor": card, "hoverlabel.font.color": ink });
for (const name of Object.keys(plot.layout).filter((key) => /^[xy]axis/.test(key)))
  colours[`${name}.gridcolor`] = rule;
Plotly.relayout(plot, colours);
"""
