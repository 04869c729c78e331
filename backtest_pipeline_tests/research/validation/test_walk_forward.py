"""Walk-forward: choices that know no later bar, and out-of-sample bars that are used once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest_pipeline as bp
from backtest_pipeline.market.errors import InvalidInput, LooksAhead, UnknownName
from backtest_pipeline.market.features.rolling import ema
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.look_ahead.look_ahead import changed_signals, require_no_look_ahead
from backtest_pipeline.research.ranking.random_markets import (
    RandomMarket,
    bar_moves,
    random_markets,
)
from backtest_pipeline.research.validation.efficiency import WalkForwardVerdict, efficiency
from backtest_pipeline.research.validation.optimizer import Search
from backtest_pipeline.research.validation.schedule import (
    FixedDates,
    Schedule,
    tasks_of,
)
from backtest_pipeline.research.validation.walk_forward import (
    Chosen,
    batches_of_tasks,
    choose,
    stitched,
    trade_stitched,
)
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.strategies.ema_crossover import EmaCrossover
from backtest_pipeline.strategies.grid import parameter_space
from backtest_pipeline.strategies.registry import strategies
from backtest_pipeline.strategies.strategy import Strategy
from backtest_pipeline.trading.conditions import Conditions
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.pipeline.markets import daily_panel
from backtest_pipeline_tests.research.validation.walks import EMA, market, question
from backtest_pipeline_tests.simulation.markets import random_panel


def told(chosen: Chosen) -> tuple[object, ...]:
    """A choice in a form that NaN equals itself in."""
    return repr(chosen.combination), repr(chosen.score), repr(chosen.train), repr(chosen.test)


@given(st.integers(0, 10_000), st.sampled_from(["rolling", "expanding"]), st.integers(0, 5))
@settings(max_examples=25)
def test_out_of_sample_bars_are_contiguous_used_once_and_never_trained_on(
    seed: int, mode: str, purge: int
) -> None:
    panel, _ = market(seed)
    schedule = Schedule(120, 40, mode, purge)  # pyright: ignore[reportArgumentType]
    for asset in panel.assets:
        tasks, _ = tasks_of(panel, asset, schedule)
        windows = [task.windows(panel) for task in tasks]
        for train, test in windows:
            assert train.stop <= test.start - purge
        tested = np.concatenate([np.arange(test.start, test.stop) for _, test in windows])
        np.testing.assert_array_equal(tested, np.arange(tested[0], tested[-1] + 1))


@pytest.mark.parametrize(("method", "most"), [("grid", 8), ("random", 8), ("tpe", 2)])
def test_the_folds_of_one_asset_are_chosen_in_several_blocks(method: str, most: int) -> None:
    panel = random_panel(np.random.default_rng(1), (2924,))
    (asset,) = panel.assets
    tasks, _ = tasks_of(panel, asset, Schedule())
    asked = question(search=Search(method, 100))  # pyright: ignore[reportArgumentType]
    blocks = batches_of_tasks(tasks, asked)
    assert [task for block in blocks for task in block] == tasks
    assert len(tasks) == 28
    assert max(map(len, blocks)) == most


@given(st.integers(0, 10_000), st.data())
@settings(max_examples=8)
def test_bars_after_training_change_nothing_of_the_choice(seed: int, data: st.DataObject) -> None:
    panel, tasks = market(seed, (400,))
    n = data.draw(st.integers(0, len(tasks) - 1))
    train, _ = tasks[n].windows(panel)
    later = np.arange(len(panel)) >= train.stop
    columns = {
        name: np.where(later, values * 3.7, values) for name, values in panel.columns.items()
    }
    (before,), (after,) = (
        choose(p, [tasks[n]], question()) for p in (panel, panel.with_columns(columns))
    )
    assert repr(before.combination) == repr(after.combination)
    assert told(before)[1:3] == told(after)[1:3]


@given(st.integers(0, 10_000), st.randoms())
@settings(max_examples=6)
def test_a_fold_alone_is_what_it_is_among_others_in_any_order(seed: int, rng: object) -> None:
    panel, tasks = market(seed)
    together = dict(zip(map(id, tasks), choose(panel, tasks, question()), strict=True))
    shuffled = list(tasks)
    rng.shuffle(shuffled)  # pyright: ignore[reportAttributeAccessIssue]
    for task, found in zip(shuffled, choose(panel, shuffled, question()), strict=True):
        assert told(found) == told(together[id(task)])
    for task in shuffled[:2]:
        (alone,) = choose(panel.select([task.asset]), [task], question())
        assert told(alone) == told(together[id(task)])


def test_a_learning_search_does_not_depend_on_its_company_either() -> None:
    panel, tasks = market(3, (300,))
    learning = question(search=Search("tpe", most=5))
    together = choose(panel, tasks, learning)
    (alone,) = choose(panel, tasks[1:2], learning)
    assert told(alone) == told(together[1])
    assert all(c.n_combinations == 5 for c in together)


def test_each_figure_is_that_of_a_backtest_of_the_window_by_itself() -> None:
    bars = bp.load_bars(asset="S-ALPHA")
    asked = {"costs": CostModel(7.0, 3.0), "stops": StopRules(trailing_atr=3.0)}
    found = bp.walk_forward(
        bars, "ema", {"fast": [3, 9], "slow": [21, 40]}, flat_starts=True, **asked
    )
    assert len(found.folds) == 20
    for n in (0, 19):
        fold = found.folds.iloc[n]
        runs = {}
        for side in ("train", "test"):
            start, end = fold[f"{side}_start"].date(), fold[f"{side}_end"].date()
            sweep = bp.explore(
                bars,
                "ema",
                {"fast": [3, 9], "slow": [21, 40]},
                start=start,
                end=end + pd.Timedelta(days=1),
                **asked,
            )
            runs[side] = sweep.table
        assert fold["train_sharpe"] == runs["train"]["sharpe"].max() == fold["score"]
        chosen = runs["test"].loc[(fold["fast"], fold["slow"])]
        for name in ("total_return", "sharpe", "max_drawdown", "trade_count"):
            assert fold[f"test_{name}"] == pytest.approx(chosen[name], nan_ok=True, abs=0)


def waves(seed: int) -> pd.DataFrame:
    """Prices that swing with a period of 40 bars: averages of a few bars ride the swings."""
    rng = np.random.default_rng(seed)
    t = np.arange(1500)
    close = 100 * np.exp(0.25 * np.sin(2 * np.pi * t / 40) + np.cumsum(rng.normal(0, 0.004, 1500)))
    open_ = np.concatenate(([close[0]], close[:-1]))
    return pd.DataFrame(
        {
            "open": open_,
            "high": np.maximum(open_, close) * 1.001,
            "low": np.minimum(open_, close) * 0.999,
            "close": close,
            "volume": 1.0,
        },
        index=pd.date_range("2020-01-01", periods=1500, freq="D", tz="UTC"),
    )


def test_a_planted_edge_is_found_and_passes() -> None:
    found = bp.walk_forward(waves(1), "ema", {"fast": [3, 60], "slow": [8, 90]})
    assert set(zip(found.folds["fast"], found.folds["slow"], strict=True)) == {(3, 8)}
    assert found.efficiency.verdict is WalkForwardVerdict.PASSED
    assert found.efficiency.reason == ""
    assert (found.metrics["sharpe"] or 0) > 2


@pytest.mark.parametrize("kind", RandomMarket)
@pytest.mark.parametrize(
    ("n_bars", "n"), [(550, 100), (1461, 100), pytest.param(900, 300, marks=pytest.mark.slow)]
)
def test_of_walk_forwards_without_an_edge_at_most_one_in_twenty_passes(
    kind: RandomMarket, n_bars: int, n: int
) -> None:
    """Short histories too, on which every third world reaches the efficiency by luck."""
    universe = bar_moves(SampleMarket().read(("S-ALPHA", "S-BETA", "S-ETA")).panels["1D"])
    like = daily_panel({"world": n_bars})
    panel = random_markets(kind, universe, like, range(n), 17)
    tasks = [task for asset in panel.assets for task in tasks_of(panel, asset, Schedule())[0]]
    free = question(
        space=parameter_space(EMA, {"fast": [5, 12, 25], "slow": [30, 50, 90]}),
        config=SimulationConfig(costs=CostModel(0.0, 0.0)),
    )
    chosen = choose(panel, tasks, free)
    tested = stitched(panel, tasks, chosen, free)
    psr = trade_stitched([tested], free.config).metrics["psr"]
    verdicts, reached = [], 0
    for asset, probability in zip(panel.assets, psr, strict=True):
        own = [c for t, c in zip(tasks, chosen, strict=True) if t.asset == asset]
        sharpes = ([c.train["sharpe"] for c in own], [c.test["sharpe"] for c in own])
        judged = efficiency(*sharpes, float(probability), len(strategies()))
        reached += judged.ratio is not None and judged.ratio >= 0.6
        verdicts.append(judged.verdict)
    passed = verdicts.count(WalkForwardVerdict.PASSED)
    assert passed <= 0.05 * len(verdicts)
    assert reached > 2 * passed  # what the efficiency alone would have passed
    if n_bars == 550:
        assert passed == 0  # two folds say nothing


def test_windows_between_given_dates_are_trained_on_and_tested() -> None:
    bars = waves(1)
    dates = FixedDates(
        (("2020-01-01", "2021-01-01", "2021-04-01"), ("2020-06-01", "2021-06-01", "2021-09-01"))
    )
    found = bp.walk_forward(bars, "ema", {"fast": [3, 60], "slow": [8, 90]}, schedule=dates)
    assert [str(day.date()) for day in found.folds["test_start"]] == ["2021-01-01", "2021-06-01"]
    assert [str(day.date()) for day in found.folds["train_start"]] == ["2020-01-01", "2020-06-01"]
    with pytest.raises(InvalidInput, match="a window is"):
        bp.walk_forward(bars, "ema", schedule=FixedDates((("2020-01-01", "2021-01-01"),)))


def test_a_year_that_is_missing_costs_the_folds_in_it_and_not_the_asset() -> None:
    panel = random_panel(np.random.default_rng(3), (2924,))
    bars = panel.frame(panel.assets[0]).assign(volume=1.0)
    for hole in (325, 375):
        gappy = pd.DataFrame(bars.drop(bars.index[1000 : 1000 + hole]))
        found = bp.walk_forward(
            gappy, "ema", {"fast": [5], "slow": [20, 50]}, schedule=Schedule(mode="rolling")
        )
        assert len(found.left_out) >= 2
        assert len(found.folds) + len(found.left_out) + hole // 90 >= 27


def peeking(panel: Panel, params: EmaCrossover) -> Conditions:
    """Averages that know the next close."""
    tomorrow = np.append(panel["close"][1:], panel["close"][-1])
    last = panel.offsets[1:] - 1
    tomorrow[last] = panel["close"][last]
    above = ema(tomorrow, panel.offsets, params.fast) > ema(tomorrow, panel.offsets, params.slow)
    return Conditions(above, ~above, ~above, above)


def test_a_strategy_that_peeks_one_bar_ahead_is_caught() -> None:
    peeker = Strategy("peeker", EmaCrossover, lambda _: ("close",), peeking)
    panel, _ = market(2)
    with pytest.raises(LooksAhead, match=r"peeker on .*signals change when the bars after them"):
        require_no_look_ahead(panel, peeker, [{"fast": 2, "slow": 5}], panel.assets[0])


def vetoing(panel: Panel, params: EmaCrossover) -> Conditions:
    """Stays away from what falls at the next bar: every signal that it gives is an honest one."""
    next_open, next_close = (np.append(panel[name][1:], np.nan) for name in ("open", "close"))
    last = panel.offsets[1:] - 1
    next_open[last] = next_close[last] = np.nan
    up = ema(panel["close"], panel.offsets, params.fast) > ema(
        panel["close"], panel.offsets, params.slow
    )
    no = np.zeros(len(panel), bool)
    return Conditions(up & ~(next_close < next_open), ~up, no, no)


def test_a_strategy_that_vetoes_entries_by_the_next_bar_is_caught() -> None:
    vetoer = Strategy("vetoer", EmaCrossover, lambda _: ("open", "close"), vetoing)
    panel, _ = market(2)
    params = {"fast": 2, "slow": 5}
    assert changed_signals(panel, vetoer, params, panel.assets[0])[0] == 0
    with pytest.raises(LooksAhead, match="whether later prices rise or fall"):
        require_no_look_ahead(panel, vetoer, [params], panel.assets[0])


def test_a_peek_under_one_of_the_chosen_parameters_is_caught() -> None:
    def sometimes(panel: Panel, params: EmaCrossover) -> Conditions:
        return vetoing(panel, params) if params.fast == 4 else EMA.conditions(panel, params)

    names = lambda params: ("open", *EMA.columns(params))  # noqa: E731
    strategy = Strategy("sometimes", EmaCrossover, names, sometimes)
    panel, _ = market(2)
    panel = with_config_columns(panel, SimulationConfig())
    honest = [{"fast": fast, "slow": 12} for fast in (2, 8)]
    require_no_look_ahead(panel, strategy, honest, panel.assets[0])
    with pytest.raises(LooksAhead):
        require_no_look_ahead(panel, strategy, [{"fast": 4, "slow": 12}, *honest], panel.assets[0])


@pytest.mark.parametrize("strategy", strategies())
def test_no_strategy_of_ours_looks_ahead(strategy: str) -> None:
    bars = bp.load_bars(asset="S-BETA")
    found = bp.walk_forward(bars, strategy, search=Search("random", 6))
    assert set(found.folds["n_combinations"]) == {6}


def test_bad_input_is_refused() -> None:
    bars = bp.load_bars(asset="S-ALPHA")
    with pytest.raises(InvalidInput, match=r"155 more bars are needed"):
        bp.walk_forward(bars.iloc[:300], "ema")
    with pytest.raises(UnknownName, match="did you mean rolling"):
        bp.walk_forward(bars, "ema", schedule=Schedule(mode="roling"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UnknownName, match="did you mean fast"):
        bp.walk_forward(bars, "ema", {"fats": 3})
    with pytest.raises(InvalidInput, match="more than 500"):
        bp.walk_forward(bars, "ema", {"fast": range(1, 100)}, search=Search("grid"))
    with pytest.raises(InvalidInput, match="fast"):
        bp.walk_forward(bars, "ema", {"fast": 2.5})


def test_a_direction_that_is_not_allowed_is_not_traded() -> None:
    panel, tasks = market(5, (300,))
    asked = question(config=SimulationConfig(direction=Direction.SHORT))
    panel = with_config_columns(panel, asked.config)
    tested = stitched(panel, tasks, choose(panel, tasks, asked), asked)
    assert set(trade_stitched([tested], asked.config).trades.side.tolist()) == {-1}
