"""The figure and the page of a sweep hold what the table holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plotly.graph_objects import Figure

from backtest_pipeline.report.number_formats import number_format
from backtest_pipeline.report.sweep_figure import sweep_figure
from backtest_pipeline.report.sweep_page import Subject, exploration_page, neighbourhood_sentence
from backtest_pipeline.research.robustness.neighbourhood import neighbourhood
from backtest_pipeline.research.validation.selection import Tried, selection
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES

AXES: dict[str, Sequence[float]] = {
    "fast": (5, 9, 21),
    "slow": (20, 50, 90, 200),
    "width": (1, 1.5),
    "days": (3, 4),
}


def table_of(*names: str, sparse: bool = True) -> pd.DataFrame:
    """Random metrics of all combinations, without those whose fast is not below the slow."""
    rng = np.random.default_rng(3)
    rows = [
        values
        for values in product(*(AXES[name] for name in names))
        if not sparse or (found := dict(zip(names, values, strict=True))).get("fast", 0)
        < found.get("slow", 1_000)
    ]  # fmt: skip
    values = rng.normal(size=(len(rows), len(METRIC_NAMES)))
    table = pd.DataFrame(values, columns=list(METRIC_NAMES))
    table["profit_factor"] = np.nan
    table.index = pd.MultiIndex.from_tuples(rows, names=names)
    return table


def drawn(table: pd.DataFrame, metric: str = "sharpe") -> dict[str, Any]:
    found = neighbourhood(pd.Series(table[metric]))
    figure = sweep_figure(table, metric, list(table.index.names), found)
    return json.loads(str(Figure(figure).to_json()), parse_constant=lambda name: pytest.fail(name))


def heat_maps(figure: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if trace["type"] == "heatmap"]


def assert_cells(heat: dict[str, Any], z: Sequence[Sequence[Any]], values: pd.Series) -> None:
    for row, slow in zip(z, heat["y"], strict=True):
        for cell, fast in zip(row, heat["x"], strict=True):
            key = (float(fast), float(slow))
            if key in values.index:
                assert cell == pytest.approx(values.loc[key], rel=1e-4)
            else:
                assert cell is None


def test_every_cell_of_the_map_is_its_combination() -> None:
    table = table_of("fast", "slow")
    figure = drawn(table)
    (heat,) = heat_maps(figure)
    assert heat["x"] == ["5", "9", "21"]
    assert heat["y"] == ["20", "50", "90", "200"]
    assert_cells(heat, heat["z"], pd.Series(table["sharpe"]))
    assert "sharpe" in heat["customdata"][3][0]


def test_the_menu_holds_every_metric_that_is_defined_somewhere() -> None:
    table = table_of("fast", "slow")
    (menu,) = drawn(table)["layout"]["updatemenus"]
    labels = [button["label"] for button in menu["buttons"]]
    assert labels == [name for name in METRIC_NAMES if name != "profit_factor"]
    assert labels[menu["active"]] == "sharpe"
    (heat,) = heat_maps(drawn(table))
    for button in menu["buttons"]:
        changes, look, traces = button["args"]
        assert all(len(values) == len(traces) for values in changes.values())
        assert_cells(heat, changes["z"][0], pd.Series(table[button["label"]]))
        assert look["coloraxis.cmin"] < look["coloraxis.cmax"]
        assert look["coloraxis.colorbar.title.text"] == button["label"]


def test_a_third_parameter_becomes_a_slider_that_begins_at_the_best() -> None:
    table = table_of("fast", "slow", "width")
    figure = drawn(table)
    best = table["sharpe"].idxmax()
    assert isinstance(best, tuple)
    (slider,) = figure["layout"]["sliders"]
    assert [step["label"] for step in slider["steps"]] == ["1", "1.5"]
    assert float(slider["steps"][slider["active"]]["label"]) == best[2]
    maps = heat_maps(figure)
    assert [heat["visible"] for heat in maps] == [width == best[2] for width in (1, 1.5)]
    for heat, width in zip(maps, (1, 1.5), strict=True):
        part = table.xs(width, level="width")
        assert_cells(heat, heat["z"], pd.Series(part["sharpe"]))
    for step in slider["steps"]:
        changes, traces = step["args"]
        assert len(changes["visible"]) == len(traces) == 4
        shown = [figure["data"][i]["type"] for i in traces if changes["visible"][i]]
        assert shown == ["heatmap", "scatter"]


def test_further_parameters_stay_at_the_best_combination() -> None:
    table = table_of("fast", "slow", "width", "days")
    best = table["sharpe"].idxmax()
    assert isinstance(best, tuple)
    for heat, width in zip(heat_maps(drawn(table)), (1, 1.5), strict=True):
        part = table.xs((width, best[3]), level=("width", "days"))
        assert_cells(heat, heat["z"], pd.Series(part["sharpe"]))


def test_the_curves_go_through_the_best_and_over_the_median_of_all() -> None:
    table = table_of("fast", "slow")
    figure = drawn(table)
    best = table["sharpe"].idxmax()
    assert isinstance(best, tuple)
    curves = [t for t in figure["data"] if t.get("name") == "other parameters at the best"]
    medians = [t for t in figure["data"] if t.get("name") == "median of all"]
    assert len(curves) == len(medians) == 2
    for i, (curve, median) in enumerate(zip(curves, medians, strict=True)):
        along = table.xs(best[1 - i], level=1 - i)["sharpe"]
        assert curve["x"] == along.index.tolist()
        assert curve["y"] == pytest.approx(along.tolist(), rel=1e-4)
        grouped = table.groupby(level=i)["sharpe"].median()
        assert median["x"] == grouped.index.tolist()
        assert median["y"] == pytest.approx(grouped.tolist(), rel=1e-4)


def test_one_parameter_has_a_curve_and_no_map() -> None:
    figure = drawn(table_of("fast"))
    assert heat_maps(figure) == []
    assert "sliders" not in figure["layout"]
    assert [trace["name"] for trace in figure["data"]] == [
        "other parameters at the best",
        "best combination",
    ]


def test_colours_turn_round_for_metrics_of_which_less_is_better() -> None:
    table = table_of("fast", "slow").abs()
    (menu,) = drawn(table)["layout"]["updatemenus"]
    scales = {b["label"]: b["args"][1]["coloraxis.colorscale"] for b in menu["buttons"]}
    assert [colour for _, colour in scales["fees_paid"]] == [
        colour for _, colour in reversed(scales["sharpe"])
    ]


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("total_return", 0.5, "50.0%"),
        ("sharpe", 0.5, "0.50"),
        ("trade_count", 1234.0, "1,234"),
        ("cagr", -0.1, "-10.0%"),
        ("fees_paid", 1234.5, "1,234"),
    ],
)
def test_numbers_are_written_in_their_unit(metric: str, value: float, text: str) -> None:
    assert format(value, number_format(metric)) == text


def page_of(table: pd.DataFrame, asset: str) -> str:
    found = neighbourhood(pd.Series(table["sharpe"]))
    subject = Subject("ema", asset, "1D", 9, date(2024, 1, 1), date(2024, 1, 9), "no costs")
    figure = sweep_figure(table, "sharpe", list(table.index.names), found)
    returns = np.random.default_rng(1).normal(0, 0.01, (200, len(table)))
    whole = Tried.of(returns, range(len(table)), found.best, 0.0)
    worth = selection(whole, len(table))
    return exploration_page(subject, figure, table, "sharpe", found, "Beware.", 7, worth)


def test_the_page_is_whole_ranks_and_warns() -> None:
    table = table_of("fast", "slow")
    table.iloc[0, table.columns.get_loc("sharpe")] = np.nan
    page = page_of(table, "BTC")
    assert "<h1>ema on BTC 1D</h1>" in page
    assert "Beware." in page
    assert "Combinations skipped because one parameter must be below another: 7." in page
    assert "Combinations whose sharpe is undefined: 1." in page
    ruined = np.count_nonzero(table["total_return"].to_numpy() <= -1)
    assert ruined
    assert f"lost all equity and were liquidated: {ruined}." in page
    best = table["sharpe"].idxmax()
    assert isinstance(best, tuple)
    assert f"fast {best[0]}, slow {best[1]}" in page
    assert page.count("<tr>") + page.count('<tr class="best">') == 1 + 10


def test_names_are_text_and_not_markup() -> None:
    page = page_of(table_of("fast", "slow"), "<script>alert(1)</script>")
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; 1D" in page


def test_the_surroundings_are_told_in_words() -> None:
    index = pd.MultiIndex.from_tuples([(n,) for n in range(5)], names=["fast"])
    alone = pd.Series([0.5, 0.4, 0.1, 2.0, 0.0], index, name="sharpe")
    told = neighbourhood_sentence(neighbourhood(alone), "sharpe")
    assert told.startswith("lone peak: its 2 neighbours have a median sharpe of 0.05 (worst 0.00)")
    assert "likely chance" in told
    nobody = pd.Series([np.nan, 1.0], index[:2], name="sharpe")
    told = neighbourhood_sentence(neighbourhood(nobody), "sharpe")
    assert told == "no neighbours: sharpe is undefined for all combinations one step away."
