"""Random markets: valid bars, the volatility of the real ones, and nothing to predict."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.ranking.random_markets import (
    RandomMarket,
    bar_moves,
    random_markets,
)
from backtest_pipeline.sources.sample import SampleMarket

KINDS = pytest.mark.parametrize("kind", RandomMarket)
N = 1000


def real(*assets: str) -> Panel:
    return SampleMarket().read(assets).panels["1D"]


def calendar(n: int = N) -> Panel:
    bars = real("S-ALPHA")
    return bars.take(np.arange(len(bars)) < n)


def made(kind: RandomMarket, draws: range, seed: int = 0, *assets: str) -> Panel:
    return random_markets(
        kind, bar_moves(real(*(assets or ("S-ALPHA", "S-MU")))), calendar(), draws, seed
    )


def by_world(panel: Panel, column: str) -> np.ndarray:
    return panel[column].reshape(len(panel.assets), -1)


@KINDS
def test_every_bar_holds_its_open_and_close_between_low_and_high(kind: RandomMarket) -> None:
    panel = made(kind, range(20))
    assert len(panel) == 20 * N
    assert np.all(panel["low"] > 0)
    assert np.all(np.maximum(panel["open"], panel["close"]) <= panel["high"])
    assert np.all(np.minimum(panel["open"], panel["close"]) >= panel["low"])
    assert np.mean(panel["high"] > np.maximum(panel["open"], panel["close"])) > 0.5


@KINDS
def test_a_random_market_depends_on_its_seed_and_number_alone(kind: RandomMarket) -> None:
    together, alone, other = made(kind, range(6)), made(kind, range(4, 5)), made(kind, range(6), 1)
    np.testing.assert_array_equal(by_world(together, "close")[4], by_world(alone, "close")[0])
    assert not np.array_equal(together["close"], other["close"])
    assert not np.array_equal(by_world(together, "close")[0], by_world(together, "close")[2])


@KINDS
def test_random_markets_have_the_volatility_of_their_asset(
    kind: RandomMarket,
) -> None:
    for asset in ("S-ALPHA", "S-MU"):
        (moves,) = bar_moves(real(asset))
        returns = np.diff(np.log(by_world(made(kind, range(30), 0, asset), "close")), axis=1)
        assert returns.std() == pytest.approx(moves.volatility, rel=0.05)


@KINDS
def test_nothing_known_at_a_close_predicts_the_next_bar(kind: RandomMarket) -> None:
    panel = made(kind, range(200))
    close, open_ = by_world(panel, "close"), by_world(panel, "open")
    gap, body = open_[:, 1:] / close[:, :-1] - 1, close / open_ - 1
    known = {
        "a drift": np.ones_like(body[:, 1:]),
        "the last body": np.sign(body[:, :-1]),
        "a trend": np.sign(close[:, :-1] / close[:, :1] - 1),
    }
    for name, side in known.items():
        for earned in (body[:, 1:] * side, gap * side):
            error = earned.std() / np.sqrt(earned.size)
            assert abs(earned.mean()) <= 4 * error + 1e-12, name


def test_shuffled_bars_keep_the_clusters_of_volatility_and_random_walks_have_none() -> None:
    rng = np.random.default_rng(3)
    calm_and_wild = np.repeat(rng.choice([0.005, 0.05], 60), 50)
    body = rng.normal(0, calm_and_wild)
    close = 100 * np.exp(np.cumsum(body))
    open_ = close / np.exp(body)
    like = calendar()
    stamps = like.ts[0] + np.arange(len(close)) * 86_400_000_000
    bars = Panel(
        like.timeframe,
        ("A",),
        np.array([0, len(close)]),
        stamps,
        {
            "open": open_,
            "high": np.maximum(open_, close),
            "low": np.minimum(open_, close),
            "close": close,
        },
    )

    def clustering(kind: RandomMarket) -> float:
        panel = random_markets(kind, bar_moves(bars), like, range(20), 0)
        size = np.abs(np.diff(np.log(by_world(panel, "close")), axis=1))
        return float(np.corrcoef(size[:, 1:].ravel(), size[:, :-1].ravel())[0, 1])

    assert clustering(RandomMarket.SHUFFLED_BARS) > 0.2
    assert abs(clustering(RandomMarket.RANDOM_WALK)) < 0.03


def test_bars_that_never_move_or_are_too_few_make_no_world() -> None:
    few = calendar(50)
    with pytest.raises(InvalidInput, match="no asset has 100 stored bars at 1D"):
        bar_moves(few)
    still = calendar().with_columns(
        {name: np.full(N, 5.0) for name in ("open", "high", "low", "close")}
    )
    with pytest.raises(InvalidInput, match="whose price moves"):
        bar_moves(still)
