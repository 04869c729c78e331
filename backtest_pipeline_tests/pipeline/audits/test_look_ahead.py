"""What looks ahead is found, anywhere between root bars and signals; what does not, is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.features import build_features, rolling
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.pipeline.audits.look_ahead import probe_look_ahead, probed_before, record
from backtest_pipeline.pipeline.audits.other_histories import chain_of, probe_root, probe_strategies
from backtest_pipeline.pipeline.look_ahead_guard import refused_presets
from backtest_pipeline.pipeline.stages.conditions import signal_matrix
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.look_ahead.look_ahead import (
    Leak,
    changed_signals,
    differences,
    draw_cuts,
    leaks,
)
from backtest_pipeline.research.look_ahead.other_futures import FUTURES, other_futures
from backtest_pipeline.simulation.orders import condition_bits
from backtest_pipeline.simulation.windows import conditions_by_params
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.strategies.registry import strategies
from backtest_pipeline.strategies.strategy import Conditions, Params, Strategy, conditions_of
from backtest_pipeline_tests.leaky import planted
from backtest_pipeline_tests.own_strategies import DIP, own_strategies, write
from backtest_pipeline_tests.pipeline.markets import daily_panel, refresh, until, us, whole
from backtest_pipeline_tests.strategies.presets import REGISTERED

SHIPPED = tuple(
    SignalRow(i, f"{strategy}_{i}", strategy, params)
    for i, (strategy, params) in enumerate(REGISTERED)
)
Builder = Callable[[Panel], Panel]


def probed(
    source: BarSource,
    partitions: list[Partition],
    features: Builder = build_features,
) -> list[Leak]:
    reader = SourceReader(source, sorted({p.asset for p in partitions}))
    found: list[Leak] = []
    for computed, leaking, _, _ in probe_root(reader, partitions, SHIPPED, features=features):
        found += leaking
        for of_strategy, _, _ in probe_strategies(computed, SHIPPED):
            found += of_strategy
    return found


def with_leak(leak: Callable[[Panel], np.ndarray]) -> Builder:
    """A feature builder that adds one column to those of the project."""
    return lambda bars: build_features(bars).with_columns({"leak": leak(bars)})


def unfinished_week(bars: Panel) -> np.ndarray:
    """A merge of weekly closes that shows the week's last close on each of its days."""
    week = timeframe("1W").period_bounds(bars.ts)[0]
    last = pd.Series(bars["close"]).groupby([bars.segment_of_row, week]).transform("last")
    return last.to_numpy(np.float64)


def centred_mean(bars: Panel) -> np.ndarray:
    close = pd.Series(bars["close"])
    rolled = close.groupby(bars.segment_of_row).rolling(5, center=True).mean()
    return rolled.to_numpy(np.float64)


def full_sample_score(bars: Panel) -> np.ndarray:
    by_asset = pd.Series(bars["close"]).groupby(bars.segment_of_row)
    score = (bars["close"] - by_asset.transform("mean")) / by_asset.transform("std")
    return np.asarray(score, np.float64)


def filled_backwards(bars: Panel) -> np.ndarray:
    """An average whose warm-up shows its first value."""
    average = pd.Series(rolling.mean(bars["close"], bars.offsets, 20))
    return average.groupby(bars.segment_of_row).bfill().to_numpy(np.float64)


def share_of_history(bars: Panel) -> np.ndarray:
    """Values that do not leak, but how many there will be does."""
    return np.arange(len(bars)) / np.repeat(bars.lengths, bars.lengths)


@pytest.mark.parametrize("tf", ["12H", "1D", "3D"])
@pytest.mark.parametrize(
    "leak", [unfinished_week, centred_mean, full_sample_score, filled_backwards, share_of_history]
)
def test_a_leak_in_the_features_is_caught_and_named(
    leak: Callable[[Panel], np.ndarray], tf: str
) -> None:
    partitions = [Partition(asset, tf) for asset in ("S-ALPHA", "S-BETA")]
    found = probed(SampleMarket(), partitions, with_leak(leak))
    assert {f.output for f in found} == {"leak"}
    assert {f.asset for f in found} <= {"S-ALPHA", "S-BETA"}
    assert all(f.future in FUTURES and f.first_ts <= f.cut_us for f in found)


def test_a_merge_of_finished_weeks_is_no_leak() -> None:
    def finished_week(bars: Panel) -> np.ndarray:
        merged = []
        for asset in bars.assets:
            close = bars.frame(asset)["close"]
            days = pd.DatetimeIndex(close.index).normalize()
            weeks = close.resample("W-SUN", label="right").last().shift(1)
            merged.append(weeks.reindex(days, method="bfill").to_numpy())
        return np.concatenate(merged)

    partitions = [Partition("S-ALPHA", "1D"), Partition("S-GAMMA", "1D")]
    assert probed(SampleMarket(), partitions, with_leak(finished_week)) == []


def test_a_leak_in_the_resampling_is_caught() -> None:
    """Bars of a week that show on its first day how it ended: rows come and go with the future."""

    def compute(root: Panel) -> Panel:
        days = chain_of("1D", build_features, lambda panel: np.zeros((0, len(panel))), ())(root)
        return days.take(unfinished_week(days) >= days["close"])

    root = SampleMarket().read(["S-GAMMA"]).panels["1D"]
    rng = np.random.default_rng(1)
    computed = compute(root)
    cuts = draw_cuts(root, computed, (), 6, rng)
    assert "ts" in {leak.output for leak in leaks(compute, root, computed, cuts, rng)}


class Nothing(Params):
    """No parameters."""


def sides(up: np.ndarray) -> Conditions:
    return Conditions(up, ~up, ~up, up)


def shifted(panel: Panel, _: Nothing) -> Conditions:
    """Knows the next close."""
    tomorrow = pd.Series(panel["close"]).groupby(panel.segment_of_row).shift(-1)
    return sides((tomorrow > panel["close"]).to_numpy(bool))


def above_quantile(panel: Panel, _: Nothing) -> Conditions:
    """Compares with a threshold of the whole history."""
    closes = pd.Series(panel["close"]).groupby(panel.segment_of_row)
    return sides(panel["close"] > closes.transform("quantile", 0.7).to_numpy(np.float64))


@pytest.mark.parametrize("conditions", [shifted, above_quantile])
def test_a_leak_in_a_strategy_is_caught_by_both_probes(conditions: Any) -> None:
    leaky = Strategy("leaky", Nothing, lambda _: ("close",), conditions)

    def events(panel: Panel) -> np.ndarray:
        return condition_bits(conditions_of(leaky, panel, Nothing()))[None]

    root = SampleMarket().read(["S-ALPHA", "S-BETA", "S-GAMMA"]).panels["1D"]
    compute = chain_of("1D", build_features, events, ["signal leaky"])
    computed = compute(root)
    rng = np.random.default_rng(0)
    cuts = draw_cuts(root, computed, ["signal leaky"], 6, rng)
    found = leaks(compute, root, computed, cuts, rng)
    assert {leak.output for leak in found} == {"signal leaky"}
    changed, asked = changed_signals(computed, leaky, {}, "S-ALPHA")
    assert 0 < changed <= asked <= 24


def test_nothing_of_ours_looks_ahead_on_the_sample_market() -> None:
    """Holes, a delisting, a short history and two base timeframes are among the assets."""
    assets = ("S-DELTA", "S-MU", "S-ZETA")
    partitions = [
        Partition(asset, tf)
        for asset in assets
        for tf in ("4H", "12H", "1D", "3D", "1W", "1M_CAL", "2W_CAL_ANCHOR_ISO")
    ]
    assert {signal.strategy for signal in SHIPPED} == set(strategies())
    assert probed(SampleMarket(), partitions) == []


@pytest.mark.parametrize(
    ("file", "assets", "timeframes"),
    [
        ("binance_hourly", ("USDCUSDT", "SUSDUSDT"), ("4H", "1D", "1W")),
        ("cmc_daily", ("BTC", "DOGE", "XMR"), ("1D", "2D", "1W", "1M_CAL")),
        ("bybit_perp_daily", ("1000BONKUSDT", "USDCUSDT", "XCNUSDT"), ("1D", "3D", "1M")),
    ],
)
def test_nothing_of_ours_looks_ahead_on_real_bars(
    test_data: Path, file: str, assets: tuple[str, ...], timeframes: tuple[str, ...]
) -> None:
    partitions = [Partition(asset, tf) for asset in assets for tf in timeframes]
    assert probed(FileBars(test_data / f"{file}.parquet"), partitions) == []


@pytest.mark.parametrize("n", [1, 2, 3, 21])
def test_short_histories_are_probed_without_an_alarm(n: int) -> None:
    panel = daily_panel({"A": n, "B": 60})
    compute = chain_of("1D", build_features, lambda p: signal_matrix(p, SHIPPED), "abcdefghi")
    computed = compute(panel)
    rng = np.random.default_rng(0)
    cuts = draw_cuts(panel, computed, "abcdefghi", 6, rng)
    assert len(cuts) == 6
    assert leaks(compute, panel, computed, cuts, rng) == []
    for found, _, _ in probe_strategies(computed, SHIPPED):
        assert found == []


@given(st.integers(0, 10_000), st.lists(st.integers(0, 40), min_size=1, max_size=3))
@settings(max_examples=60)
def test_another_future_leaves_the_past_as_it_is(seed: int, lengths: list[int]) -> None:
    panel = daily_panel(dict(zip("ABC", lengths, strict=False)), seed)
    rng = np.random.default_rng(seed)
    panel = panel.take(rng.random(len(panel)) < 0.8)
    cut = us("2026-01-01") - 1000 - DAY_US * int(rng.integers(0, 45))
    before = panel.take(panel.ts <= cut)
    for name, changed in other_futures(panel, cut, rng):
        assert list(differences(before, changed.take(changed.ts <= cut))) == []
        after = changed.take(changed.ts > cut)
        for asset in after.assets:
            assert np.all(np.diff(after.ts[after.rows_of(asset)]) > 0)
        assert np.all(after["high"] >= np.maximum(after["open"], after["close"]))
        assert np.all((changed.ts - us("2026-01-01") + 1000) % DAY_US == 0)
        assert (name == "removed") == (len(after) == 0) or not (panel.ts > cut).any()


def test_the_features_of_unsigned_zeros_and_missing_values_are_compared_by_their_bits() -> None:
    panel = daily_panel({"A": 3})
    one = panel.with_columns({"x": np.array([0.0, np.nan, 1.0])})
    other = panel.with_columns({"x": np.array([-0.0, np.nan, 1.0])})
    assert [(name, rows) for _, name, rows, _ in differences(one, other)] == [("x", 1)]


def test_what_is_stored_is_probed_and_remembered_for_this_code(refreshed: Workspace) -> None:
    assert probed_before(refreshed, whole()) is None
    found = probe_look_ahead(refreshed, whole(), seed=3)
    assert (found.scope, found.partitions, found.leaks) == ("root_bars", 10, ())
    assert found.futures == 18 * 5
    assert found.signals > 100
    assert "no look-ahead; features and signals from source bars: 10 part" in found.verdict
    record(refreshed, whole(), found)
    assert probed_before(refreshed, whole()) is not None


def test_a_leaky_builder_is_caught_on_the_store_and_its_code_is_not_remembered_as_sound(
    refreshed: Workspace,
) -> None:
    found = probe_look_ahead(
        refreshed, whole(), assets=["S-ALPHA"], features=with_leak(centred_mean)
    )
    assert {leak.output for leak in found.leaks} == {"leak"}
    assert "1 outputs look ahead (leak)" in found.verdict
    record(refreshed, whole(), found)
    assert probed_before(refreshed, whole()) is None


def test_stored_features_that_are_not_those_of_their_bars_are_found(workspace: Workspace) -> None:
    def nudged(bars: Panel) -> Panel:
        built = build_features(bars)
        return built.with_columns({"rsi_14": built["rsi_14"] + 1e-12})

    refresh(workspace, until("2025-12-01"))
    found = probe_look_ahead(
        workspace, whole(), assets=["S-ALPHA"], timeframes=["1D"], features=nudged
    )
    assert {(leak.output, leak.future) for leak in found.leaks} == {("rsi_14", "stored")}


def test_of_external_features_only_the_strategies_can_be_probed(refreshed: Workspace) -> None:
    found = probe_look_ahead(refreshed, None)
    assert (found.scope, found.futures, found.leaks) == ("strategies", 0, ())
    assert found.signals > 100
    assert "the features come from an external table" in found.verdict


def test_a_preset_that_fails_is_named_and_the_others_are_tested(
    workspace: Workspace, tmp_path: Path
) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D"), Partition("S-MU", "1D")])
    close = '    close = features["close"]\n'
    fails = "    if abs(close.iloc[0] - 0.41546443) < 1e-9:\n        raise ValueError('no level')\n"
    write(tmp_path, "dip.py", DIP.replace(close, close + fails))
    with planted(tmp_path):
        presets = [SignalRow(98, "dip_2_20", "dip", {}), SignalRow(99, "peeker", "peeker", {})]
        probe = probe_look_ahead(workspace, whole(), presets=presets, cuts=3)
        record(workspace, whole(), probe)
        assert {leak.output for leak in probe.leaks} == {"signal peeker"}
        assert list(probe.failing) == ["dip_2_20"]
        assert re.match(r"on S-MU\|1D fails: dip.*ValueError: no level", probe.failing["dip_2_20"])
        assert "not tested where they fail: dip_2_20 on S-MU|1D" in probe.verdict
        assert list(refused_presets(workspace, presets)) == ["peeker"]
        again = probe_look_ahead(workspace, whole(), presets=presets[:1], cuts=3)
        assert (again.leaks, list(again.failing)) == ((), ["dip_2_20"])
        assert again.signals > 0, "it is tested where it does not fail"


def test_an_asset_that_is_not_stored_is_named_with_the_nearest(refreshed: Workspace) -> None:
    with pytest.raises(UnknownName, match="unknown stored asset 'S-ALPH'; did you mean S-ALPHA"):
        probe_look_ahead(refreshed, whole(), assets=["S-ALPH"])


def test_an_empty_store_has_nothing_to_probe(workspace: Workspace) -> None:
    found = probe_look_ahead(workspace, whole())
    record(workspace, whole(), found)
    assert found.verdict == "nothing tested: no features are stored; refresh them first"
    assert probed_before(workspace, whole()) is None


def test_signals_of_many_histories_at_once_are_those_of_each_alone() -> None:
    """Cutting inputs is sound only where a segment does not see its neighbours."""
    panel = build_features(daily_panel({"A": 300}))
    for signal in SHIPPED:
        strategy = strategies()[signal.strategy]
        cut = panel.windows([slice(0, 200), slice(0, 300)])
        together = conditions_by_params(cut, strategy, [signal.params])[0]
        alone = conditions_by_params(panel, strategy, [signal.params])[0]
        assert np.array_equal(together[200:], alone)
        assert np.array_equal(together[:200], alone[:200])


def test_ranks_are_probed_from_the_root_bars_of_all_tested_assets(tmp_path: Path) -> None:
    rank = "rank_pct(ret_arith)"
    rules = f'name = "ranked"\nlong_entry = "{rank} > 0.6"\nlong_exit = "{rank} < 0.5"'
    write(tmp_path, "ranked.toml", rules)
    partitions = [Partition(asset, "1D") for asset in ("S-ALPHA", "S-MU", "S-ZETA")]
    reader = SourceReader(SampleMarket(), [p.asset for p in partitions])
    preset = SignalRow(99, "ranked", "ranked", {})

    def tomorrows(bars: Panel) -> Panel:
        later = pd.Series(build_features(bars)["ret_arith"]).groupby(bars.segment_of_row).shift(-1)
        return build_features(bars).with_columns({"ret_arith": later.to_numpy()})

    with own_strategies(tmp_path):
        ((whole, honest, n_futures, failing),) = probe_root(reader, partitions, [preset], cuts=3)
        ((_, leaking, _, _),) = probe_root(reader, partitions, [preset], cuts=3, features=tomorrows)
    assert (rank in whole.columns, honest, n_futures, failing) == (True, [], 9, {})
    assert {rank, "signal ranked"} <= {leak.output for leak in leaking}
