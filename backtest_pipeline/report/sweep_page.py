"""A sweep as one HTML page that opens without a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest_pipeline.report.style import STYLE
from backtest_pipeline.report.sweep_traces import shown
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
    """What was swept: a strategy on one asset's bars, with what it assumes.

    Attributes:
        strategy, asset, timeframe: which.
        n_bars: bars that were traded.
        first, last: UTC days on which they close.
        assumed: costs, direction and whatever else is not as usual, in words.
    """

    strategy: str
    asset: str
    timeframe: str
    n_bars: int
    first: date
    last: date
    assumed: str

    def __str__(self) -> str:
        return (
            f"{self.asset} {self.timeframe}, {self.n_bars:,} bars from {self.first} to "
            f"{self.last} (UTC); {self.assumed}"
        )


def surroundings_told(found: Neighbourhood, metric: str) -> str:
    """The best combination's neighbourhood as a sentence."""
    if found.median is None or found.rank is None:
        return f"{found.shape}: none of the combinations one step away has a {metric}."
    n = len(found.neighbours)
    of_them = f"its {n} neighbours" if n > 1 else "its neighbour"
    told = (
        f"{found.shape}: {of_them} have a median {metric} of {shown(metric, found.median)} "
        f"(worst {shown(metric, found.worst)}), which is as good as or better than "
        f"{found.rank:.0%} of all other combinations"
    )
    hint = {
        Shape.PLATEAU: "even the worst of them beats the median of all",
        Shape.SLOPE: "some of them do not beat the median of all",
        Shape.PEAK: "that does not beat the median of all: the best is likely chance",
    }
    return f"{told}; {hint[found.shape]}."


def selection_told(found: Selection) -> list[str]:
    """What the best combination is worth, in sentences."""
    n, effective = found.n_trials, found.n_trials_effective
    told = []
    if "dsr" not in found.undefined:
        verdict = "more than luck" if found.dsr >= 0.95 else "what luck alone may bring"
        told.append(
            f"The best of {n:,} combinations ({effective:,.1f} of their own kind) has a deflated "
            f"Sharpe ratio of {found.dsr:.0%} ({found.dsr_effective:.0%} for those of their own "
            f"kind; {found.psr:.0%} if it had been the only one): {verdict}."
        )
    if "pbo" not in found.undefined:
        told.append(
            f"Choosing by Sharpe ratio is overfitting with a probability of {found.pbo:.0%}: so "
            "often the best of one half of the days was below the median in the other half."
        )
    if found.intervals:
        low, high = found.intervals["sharpe"]
        lowest, highest = found.intervals["total_return"]
        told.append(
            "Bootstrap 90 % interval of its daily returns: Sharpe ratio "
            f"{low:.2f} to {high:.2f}, total return {lowest:.1%} to {highest:.1%}."
        )
    told += [f"Unknown: {name} ({why})." for name, why in found.undefined.items()]
    return told


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
        warning: why the best is no evidence.
        left_out: combinations that make no sense.
        selection: what the best is worth.
    """
    ranked = table.iloc[best_first(pd.Series(table[metric]))]
    values = pd.Series(ranked[metric])
    last = len(ranked) - 1
    tiles = [
        ("best", values.iloc[0], combination(ranked, 0)),
        ("its neighbours' median", surroundings.median, str(surroundings.shape)),
        ("median of all", values.iloc[last // 2], combination(ranked, last // 2)),
        ("worst", values.iloc[last], combination(ranked, last)),
    ]
    shown_tiles = [(title, shown(metric, value), below) for title, value, below in tiles]
    held = float(pd.Series(ranked["benchmark_return"]).iloc[0])
    shown_tiles.append(("buy and hold", shown("benchmark_return", held), "total return"))
    return _PAGE.substitute(
        style=STYLE,
        title=escape(f"{subject.strategy} on {subject.asset} {subject.timeframe}"),
        subject=escape(str(subject)),
        metric=escape(metric),
        warning=escape(warning),
        surroundings=escape(surroundings_told(surroundings, metric)),
        remarks="".join(f" {escape(told)}." for told in remarks(table, metric, left_out)),
        selection=escape(" ".join(selection_told(selection))),
        tiles="".join(
            f'<div class="tile"><span>{escape(title)}</span><b>{escape(value)}</b>'
            f"<small>{escape(below)}</small></div>"
            for title, value, below in shown_tiles
        ),
        figure=_figure_div(figure),
        head="".join(f"<th>{escape(name)}</th>" for name in _columns(ranked, metric)),
        rows="".join(_row(ranked, metric, i) for i in range(min(_ROWS, len(ranked)))),
        n_rows=min(_ROWS, len(ranked)),
        notes="".join(f"<li>{escape(note)}</li>" for note in _READING),
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
    """What of a sweep's combinations has no result, or a bitter one."""
    if left_out:
        yield (
            f"{left_out:,} combinations make no sense (one value must be below another) and were "
            "left out"
        )
    undefined = int(np.isnan(table[metric].to_numpy(np.float64)).sum())
    if undefined:
        yield f"{metric} is undefined for {undefined:,} combinations"
    ruined = int((table["total_return"].to_numpy(np.float64) <= -1).sum())
    if ruined:
        yield (
            f"{ruined:,} combinations lost all of their equity and were liquidated, whatever "
            f"their {metric}"
        )


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


def _row(ranked: pd.DataFrame, metric: str, position: int) -> str:
    values: Mapping[str, Any] = parameters(ranked, position)
    texts = [f"{value:g}" for value in values.values()]
    texts += [
        shown(name, float(pd.Series(ranked[name]).iloc[position]))
        for name in _columns(ranked, metric)[len(values) :]
    ]
    return f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in texts)}</tr>"


_READING = (
    (
        "The menu changes the metric of the map and of the curves; a slider, where there is one, "
        "changes a third parameter. The square marks the best cell shown."
    ),
    (
        "Blue is better; where a metric can be a loss or a gain, white is zero and red is a loss. "
        "Colours end at the 2nd and 98th percentile of all combinations."
    ),
    (
        "The blue curve varies one parameter and keeps the others of the best combination; the "
        "dotted line and the band are the median and the 10th to 90th percentile of all "
        "combinations with that value."
    ),
    "A cell is empty where there is no combination, or its metric is undefined.",
    "Every cell is a whole backtest: signals fill at the next open, costs included.",
)

# The figure's own menu is as long as its metrics, and longer than a small figure.
_MENU = """
const plot = document.getElementById("sweep");
const menu = plot.layout.updatemenus[0];
const select = document.getElementById("metric");
for (const button of menu.buttons) select.add(new Option(button.label));
select.selectedIndex = menu.active;
select.onchange = () => Plotly.update(plot, ...menu.buttons[select.selectedIndex].args);
"""

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
$style  .card { padding: 12px; overflow-x: auto; }
  th { text-align: right; font-weight: 600; border-bottom: 1px solid #d0d7de; color: #57606a; }
  td { text-align: right; border-bottom: 1px solid #eaeef2; }
  th, td { padding: 5px 12px; white-space: nowrap; }
  tr:first-child td { font-weight: 600; }
  label { color: #57606a; font-size: 13px; }
  select { font: inherit; color: #1f2328; background: white; margin-left: 6px;
           border: 1px solid #d0d7de; border-radius: 6px; padding: 4px 8px; }
  ul { color: #57606a; padding-left: 20px; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p>$subject</p>
<p class="warning"><b>Not evidence.</b> $warning</p>
<div class="tiles">$tiles</div>
<p>Around the best $metric: $surroundings$remarks</p>
<p>$selection</p>
<div class="card"><label>metric <select id="metric"></select></label>
$figure</div>
<h2>The best $n_rows by $metric</h2>
<div class="card"><table><thead><tr>$head</tr></thead><tbody>$rows</tbody></table></div>
<h2>How to read this page</h2>
<ul>$notes</ul>
</main>
</body>
</html>
""")
