"""A slow and obvious book that trades towards target weights: one dictionary a thing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US, timeframe


@dataclass
class ReferenceBook:
    """Its equity and weights by stamp, and how often an asset was delisted."""

    equity: dict[int, float] = field(default_factory=dict)
    weights: dict[int, dict[str, float]] = field(default_factory=dict)
    turnover: dict[int, float] = field(default_factory=dict)
    delisted: list[tuple[int, str]] = field(default_factory=list)


def bars_of(panel: Panel) -> dict[str, dict[int, tuple[float, float]]]:
    """Open and close by asset and stamp."""
    found = {}
    for asset in panel.assets:
        rows = panel.rows_of(asset)
        stamps = panel.ts[rows].tolist()
        prices = zip(panel["open"][rows].tolist(), panel["close"][rows].tolist(), strict=True)
        found[asset] = dict(zip(stamps, prices, strict=True))
    return found


def costs_of(
    acting: dict[str, float],
    units: dict[str, float],
    mark: dict[str, float],
    after: float,
    fee: float,
    slippage: float,
) -> float:
    """Fees and slippage of trading to weights of an equity."""
    total = 0.0
    for asset, weight in acting.items():
        change = weight * after - units.get(asset, 0.0) * mark[asset]
        price = 1 + slippage if change > 0 else 1 - slippage
        total += abs(change) * (slippage + fee * price)
    return total


def reference_book(  # noqa: C901 - to be read from top to bottom
    panel: Panel,
    targets: dict[int, dict[str, float]],
    *,
    cash: float,
    fee: float,
    slippage: float,
    delisted_after: int,
    delisting_loss: float,
) -> ReferenceBook:
    """Trade the weights decided at each stamp, at the next open of each asset."""
    bars, book = bars_of(panel), ReferenceBook()
    units: dict[str, float] = {}
    mark: dict[str, float] = {}
    missed = dict.fromkeys(bars, 0)
    orders: dict[str, float] = {}
    for ts in sorted({ts for of_asset in bars.values() for ts in of_asset}):
        for asset, of_asset in bars.items():
            missed[asset] = 0 if ts in of_asset else missed[asset] + 1
            if ts in of_asset:
                mark[asset] = of_asset[ts][0]
            if missed[asset] == delisted_after:
                orders.pop(asset, None)
                if units.get(asset):
                    cash += units.pop(asset) * mark[asset] * (1 - delisting_loss)
                    book.delisted.append((ts, asset))
        worth = cash + sum(n * mark[a] for a, n in units.items())
        acting = {a: w for a, w in orders.items() if ts in bars[a]}
        acting = {a: w for a, w in acting.items() if units.get(a, 0) or w}
        for asset in list(acting):
            del orders[asset]
        if acting:
            stuck = sum(abs(n * mark[a]) for a, n in units.items() if a not in acting) / worth
            wanted = sum(map(abs, acting.values()))
            if wanted > 1 - stuck + 1e-12:
                acting = {a: w * max(1 - stuck, 0) / wanted for a, w in acting.items()}

            low, high = 0.0, worth
            for _ in range(200):  # the equity after costs, by halving
                middle = (low + high) / 2
                left = worth - costs_of(acting, units, mark, middle, fee, slippage)
                low, high = (middle, high) if middle < left else (low, middle)
            after = (low + high) / 2
            book.turnover[ts] = 0.0
            for asset, weight in acting.items():
                held, new = units.get(asset, 0.0), weight * after / mark[asset]
                change = new - held
                price = mark[asset] * (1 + slippage if change > 0 else 1 - slippage)
                cash -= change * price + abs(change) * price * fee
                book.turnover[ts] += abs(change) * mark[asset] / worth
                units[asset] = new
        units = {asset: n for asset, n in units.items() if n}
        for asset, of_asset in bars.items():
            if ts in of_asset:
                mark[asset] = of_asset[ts][1]
        worth = cash + sum(n * mark[a] for a, n in units.items())
        book.equity[ts] = worth
        book.weights[ts] = {a: n * mark[a] / worth for a, n in units.items()}
        if ts in targets:
            orders = {
                asset: targets[ts].get(asset, 0.0)
                for asset in bars
                if targets[ts].get(asset, 0.0) or units.get(asset)
            }
            orders = {a: w for a, w in orders.items() if missed[a] < delisted_after}
    return book


def universe(
    n_assets: int, n_days: int, seed: int, *, holes: float = 0.0, ending: int = 0
) -> Panel:
    """Daily bars of assets that begin on different days; the last `ending` of them end early."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {n: [] for n in ("open", "high", "low", "close", "volume")}
    stamps, offsets = [], [0]
    for i in range(n_assets):
        first = int(rng.integers(0, max(n_days // 4, 1)))
        last = n_days * 2 // 3 if i >= n_assets - ending else n_days
        there = np.arange(first, last)
        there = there[rng.random(len(there)) >= holes]
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.04, len(there))))
        open_ = np.append(close[:1], close[:-1]) * np.exp(rng.normal(0, 0.01, len(there)))
        parts["open"].append(open_)
        parts["close"].append(close)
        parts["high"].append(np.maximum(open_, close) * 1.01)
        parts["low"].append(np.minimum(open_, close) * 0.99)
        parts["volume"].append(rng.uniform(1e3, 1e5, len(there)))
        stamps.append((there + 18_001) * DAY_US - 1000)
        offsets.append(offsets[-1] + len(there))
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    names = tuple(f"A{i:03}" for i in range(n_assets))
    return Panel(timeframe("1D"), names, np.array(offsets), np.concatenate(stamps), columns)
