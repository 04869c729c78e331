"""A cross-section, simulated and measured: its rows, its files and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.runs.identity import Window, canonical_json, fingerprints
from backtest_pipeline.pipeline.runs.publish import results_of
from backtest_pipeline.pipeline.stages.benchmark_assets import rows_in
from backtest_pipeline.research.cross_section.information import (
    FIGURES,
    Information,
    information,
)
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.cross_section.ranked_book import RankedBook, simulate_ranked
from backtest_pipeline.strategies.cross_section.definition import KIND, CrossSection

FILES = ("daily_ic", "daily_signals", "daily_weights")
"""The Parquet files that only runs which rank a universe have."""


@dataclass(frozen=True)
class RankedAccount:
    """A cross-section, and what its scores foretold.

    Attributes:
        rule: the strategy.
        book: its book.
        information: information coefficients of its scores at every instant.
    """

    rule: CrossSection
    book: RankedBook
    information: Information

    @property
    def fingerprint(self) -> str:
        """Hash of trades, equity and benchmark, and of which asset each trade was in."""
        lines = [
            f"{symbol}|{'part' if part else ''}"
            for symbol, part in zip(self.book.symbols, self.book.is_part, strict=True)
        ]
        digest = hashlib.sha256(fingerprints(self.book.account)[0].encode())
        digest.update("\n".join(lines).encode() + b"\0")
        return digest.hexdigest()

    def trade_columns(self) -> dict[str, pa.Array]:
        """The columns of `backtest_trades` that only trades of several assets have."""
        return {
            "symbol": pa.array(self.book.symbols, pa.string()),
            "is_part": pa.array(self.book.is_part, pa.bool_()),
        }

    @cached_property
    def files(self) -> dict[str, pa.Table]:
        """The tables of FILES, one row a date, or a date and symbol."""
        return {
            "daily_ic": self._daily_ic(),
            "daily_signals": self._daily_signals(),
            "daily_weights": self._daily_weights(),
        }

    def results(self) -> str:
        """`backtest_runs.results`, as canonical JSON."""
        (common,) = results_of(self.book.account)
        figures = self.information.figures()
        rebalanced, targets = self.book.rebalanced, self.book.targets
        moved = rebalanced.turnover[rebalanced.turnover > 0]
        own = {
            "figures": {name: _number(value) for name, value in figures.items()},
            "undefined": {n: why for n, why in FIGURES.items() if np.isnan(figures[n])},
            "horizon": self.rule.horizon,
            "dates_with_ic": int(np.isfinite(self.information.ic).sum()),
            "quantiles": [
                {name: _number(value) for name, value in row.items()}
                for row in self.information.by_quantile()
            ],
            "rebalances": targets.counts(),
            "mean_turnover": _number(float(moved.mean()) if len(moved) else np.nan),
            "delisted": rebalanced.n_delisted,
            "delisting_return": 0.0 - self.rule.delisting_loss,
            "bars_left_out": dict(sorted(self.book.left.items())),
            "orders_dropped": rebalanced.n_dropped,
            # So that a replay, and a bundle's fingerprint of results, cover them.
            "files": {name: table_hash(table) for name, table in self.files.items()},
        }
        if self.book.dropped:
            own["dropped"] = list(self.book.dropped)
        return canonical_json({**json.loads(common), KIND: own})

    def _daily_ic(self) -> pa.Table:
        found, n = self.information, self.rule.quantiles
        by_quantile = {
            f"{name}_{q + 1}": values[:, q]
            for name, values in (
                ("quantile_return", found.quantile_return),
                ("quantile_turnover", found.quantile_turnover),
            )
            for q in range(n)
        }
        columns = {
            "ic": found.ic,
            "ic_pearson": found.ic_pearson,
            "factor_return": found.factor_return,
            "rank_autocorrelation": found.rank_autocorrelation,
            **by_quantile,
            "turnover": self.book.rebalanced.turnover,
        }
        return pa.table(
            {
                "ts": _stamps(found.ts),
                "n_ranked": pa.array(found.n_ranked, pa.int64()),
                **{name: _floats(values) for name, values in columns.items()},
            }
        )

    def _daily_signals(self) -> pa.Table:
        score = self.book.scores.score
        at, of = np.nonzero(np.isfinite(score))
        return (
            self._by_symbol(at, of)
            .append_column("score", _floats(score[at, of]))
            .append_column("quantile", pa.array(self.information.quantile[at, of], pa.int64()))
        )

    def _daily_weights(self) -> pa.Table:
        weight = self.book.rebalanced.weight
        at, of = np.nonzero(weight)
        return self._by_symbol(at, of).append_column("weight", _floats(weight[at, of]))

    def _by_symbol(self, at: np.ndarray, of: np.ndarray) -> pa.Table:
        names = pa.DictionaryArray.from_arrays(
            pa.array(of, pa.int32()), pa.array(self.book.assets, pa.string())
        )
        return pa.table({"ts": _stamps(self.book.scores.ts[at]), "symbol": names})


def ranked_account(
    rule: CrossSection, panel: Panel, config: SimulationConfig, window: Window, label: str
) -> RankedAccount:
    """Simulate a cross-section, and measure its scores; arguments and errors as `simulate_ranked`.

    Args:
        rule, panel, config, label: as `simulate_ranked` takes them.
        window: dates to trade; the bars before are history.
    """
    book = simulate_ranked(rule, panel, config, label, window=rows_in(panel, window))
    scores = book.scores
    found = information(
        scores.ts, scores.score, scores.close, horizon=rule.horizon, quantiles=rule.quantiles
    )
    return RankedAccount(rule, book, found)


def table_hash(table: pa.Table) -> str:
    """Hash of a table's names and values: numbers as little-endian, NULL and NaN as one NaN."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        digest.update(f"{name}\0{len(column)}\0".encode())
        if pa.types.is_dictionary(column.type):
            digest.update("\0".join(column.cast(pa.string()).to_pylist()).encode())
        elif pa.types.is_floating(column.type):
            values = column.to_numpy(zero_copy_only=False).astype("<f8")
            digest.update(np.where(np.isnan(values), np.nan, values).tobytes())
        else:
            digest.update(column.cast(pa.int64()).to_numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _stamps(ts_us: np.ndarray) -> pa.Array:
    return pa.array(ts_us, pa.timestamp("us", "UTC"))


def _floats(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)
