"""Information coefficients: how well scores order the returns that follow; docs/cross-section.md.

Prices are never carried forward: an asset without a bar at either end of a return is not ranked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

INFORMATION_VERSION = 1
"""Raise it when the same scores and closes give other figures."""
FIGURES = {
    "mean_ic": "no date has two ranked assets whose scores and returns vary",
    "icir": "fewer than two dates with an information coefficient, or no variation",
    "ic_t_value": "fewer than two dates with an information coefficient, or no variation",
    "ic_hit_rate": "no date has two ranked assets whose scores and returns vary",
    "mean_ic_pearson": "no date has two ranked assets whose scores and returns vary",
    "icir_pearson": "fewer than two dates with an information coefficient, or no variation",
    "factor_return": "no date has a score that differs from the mean, and a return",
    "rank_autocorrelation": "no two dates in a row have ranks that vary",
    "quantile_spread": "no date has assets in the highest and the lowest quantile",
}
"""Summary figures, each with the reason when it is undefined."""


@dataclass(frozen=True)
class Information:
    """What scores foretold, date by date; all arrays are float64 `(n_dates,)` unless said.

    Attributes:
        ts: int64, close stamps, microseconds since 1970 UTC.
        ic: Spearman correlation of scores and forward returns, equal values with the mean of their
            ranks; NaN for fewer than two ranked assets, or where either does not vary.
        ic_pearson: Pearson correlation of the same.
        n_ranked: int64, assets with a score and a forward return.
        factor_return: forward return of weights (score - mean) / sum|score - mean|, of gross 1.
        rank_autocorrelation: Pearson correlation of ranks with those of the date before.
        quantile: int64 `(n_dates, n_assets)`, 1 the lowest scores; 0 for an asset without a score.
        quantile_return: `(n_dates, n_quantiles)`, mean forward return of each quantile.
        quantile_turnover: `(n_dates, n_quantiles)`, share of the assets of a quantile that were not
            in it at the date before; NaN where either is empty.
        horizon: bars that a forward return reaches.
    """

    ts: np.ndarray
    ic: np.ndarray
    ic_pearson: np.ndarray
    n_ranked: np.ndarray
    factor_return: np.ndarray
    rank_autocorrelation: np.ndarray
    quantile: np.ndarray
    quantile_return: np.ndarray
    quantile_turnover: np.ndarray
    horizon: int

    def figures(self) -> dict[str, float]:
        """The summary by the names of FIGURES, NaN where undefined."""
        spread = self.quantile_return[:, -1] - self.quantile_return[:, 0]
        defined = self.ic[np.isfinite(self.ic)]
        return {
            "mean_ic": _mean(self.ic),
            "icir": _ratio(self.ic),
            "ic_t_value": newey_west_t(self.ic, self.horizon - 1),
            "ic_hit_rate": float(np.mean(defined > 0)) if len(defined) else np.nan,
            "mean_ic_pearson": _mean(self.ic_pearson),
            "icir_pearson": _ratio(self.ic_pearson),
            "factor_return": _mean(self.factor_return),
            "rank_autocorrelation": _mean(self.rank_autocorrelation),
            "quantile_spread": _mean(spread),
        }

    def by_quantile(self) -> list[dict[str, float]]:
        """Mean forward return and turnover of each quantile, the lowest scores first."""
        columns = zip(self.quantile_return.T, self.quantile_turnover.T, strict=True)
        return [
            {"quantile": float(n), "mean_return": _mean(r), "turnover": _mean(t)}
            for n, (r, t) in enumerate(columns, 1)
        ]


def forward_returns(close: np.ndarray, horizon: int) -> np.ndarray:
    """Return from each date's close to that of `horizon` dates later; NaN where either is missing.

    Args:
        close: float64 `(n_dates, n_assets)`, NaN where an asset has no bar.
        horizon: dates, at least 1.

    Examples:
        >>> forward_returns(np.array([[100.0], [np.nan], [110.0], [121.0]]), 1).ravel().round(2)
        array([nan, nan, 0.1, nan])
    """
    found = np.full(close.shape, np.nan)
    found[:-horizon] = close[horizon:] / close[:-horizon] - 1.0
    return found


def information(
    ts: np.ndarray, score: np.ndarray, close: np.ndarray, *, horizon: int = 1, quantiles: int = 5
) -> Information:
    """Information coefficients of scores at each date.

    Args:
        ts: int64 `(n_dates,)`, microseconds since 1970 UTC.
        score: float64 `(n_dates, n_assets)`, NaN where an asset is not ranked.
        close: float64 of the same shape, NaN where it has no bar.
        horizon: bars that a forward return reaches.
        quantiles: parts that the ranked assets of a date are divided into.
    """
    returns = forward_returns(close, horizon)
    both = np.isfinite(score) & np.isfinite(returns)
    score_then, return_then = np.where(both, score, np.nan), np.where(both, returns, np.nan)
    ranks = _ranks(score)
    quantile = quantiles_of(score, quantiles)
    return Information(
        ts=ts,
        ic=correlation(_ranks(score_then), _ranks(return_then)),
        ic_pearson=correlation(score_then, return_then),
        n_ranked=both.sum(axis=1),
        factor_return=_factor_return(score_then, return_then),
        rank_autocorrelation=_with_before(ranks),
        quantile=quantile,
        quantile_return=_quantile_returns(quantile, returns, quantiles),
        quantile_turnover=quantile_turnover(quantile, quantiles),
        horizon=horizon,
    )


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row, float64 `(n_rows,)`; NaN where one of them does not vary.

    Args:
        a, b: float64 `(n_rows, n)`; a pair with a NaN is left out.
    """
    both = np.isfinite(a) & np.isfinite(b)
    n = both.sum(axis=1)
    varies = (n > 1) & _varies(a, both) & _varies(b, both)
    x, y = _centred(a, both, n), _centred(b, both, n)
    norm = np.sqrt((x * x).sum(axis=1)) * np.sqrt((y * y).sum(axis=1))
    return np.divide(
        (x * y).sum(axis=1), norm, out=np.full(len(a), np.nan), where=varies & (norm > 0)
    )


def _varies(a: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Exactly, not by a sum of squares, which rounding keeps from 0."""
    low = np.where(known, a, np.inf).min(axis=1, initial=np.inf)
    return low < np.where(known, a, -np.inf).max(axis=1, initial=-np.inf)


def _centred(a: np.ndarray, known: np.ndarray, n: np.ndarray) -> np.ndarray:
    filled = np.where(known, a, 0.0)
    mean = filled.sum(axis=1) / np.maximum(n, 1)
    return np.where(known, a - mean[:, None], 0.0)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of each row from 1, equal values with the mean of theirs; NaN is not ranked."""
    return pd.DataFrame(values).rank(axis=1).to_numpy()


def quantiles_of(score: np.ndarray, quantiles: int) -> np.ndarray:
    """The quantile of each asset at each date: its rank times `quantiles` over their number, up.

    Equal scores have the mean of their ranks and so are in one quantile.

    Examples:
        >>> quantiles_of(np.array([[3.0, 1.0, 2.0, np.nan, 4.0]]), 2)
        array([[2, 1, 1, 0, 2]])
    """
    twice = 2.0 * _ranks(score)  # a whole number
    known = np.isfinite(twice)
    whole = np.where(known, twice, 0.0).astype(np.int64)
    n = np.maximum(known.sum(axis=1), 1)[:, None]
    return np.where(known, -(-whole * quantiles // (2 * n)), 0)


def _quantile_returns(quantile: np.ndarray, returns: np.ndarray, quantiles: int) -> np.ndarray:
    found = np.full((len(quantile), quantiles), np.nan)
    for q in range(quantiles):
        there = (quantile == q + 1) & np.isfinite(returns)
        n = there.sum(axis=1)
        total = np.where(there, returns, 0.0).sum(axis=1)
        np.divide(total, n, out=found[:, q], where=n > 0)
    return found


def quantile_turnover(quantile: np.ndarray, quantiles: int) -> np.ndarray:
    """Share of the assets of each quantile that were not in it at the date before.

    Args:
        quantile: int64 `(n_dates, n_assets)`, from `quantiles_of`.
        quantiles: their number.

    Returns:
        float64 `(n_dates, n_quantiles)`, NaN where the quantile is or was empty.
    """
    found = np.full((len(quantile), quantiles), np.nan)
    for q in range(quantiles):
        there = quantile == q + 1
        n = there.sum(axis=1)
        new = (there[1:] & ~there[:-1]).sum(axis=1)
        np.divide(new, n[1:], out=found[1:, q], where=(n[1:] > 0) & (n[:-1] > 0))
    return found


def _with_before(ranks: np.ndarray) -> np.ndarray:
    found = np.full(len(ranks), np.nan)
    found[1:] = correlation(ranks[1:], ranks[:-1])
    return found


def _factor_return(score: np.ndarray, returns: np.ndarray) -> np.ndarray:
    known = np.isfinite(score)
    centred = _centred(score, known, known.sum(axis=1))
    gross = np.abs(centred).sum(axis=1)
    earned = (centred * np.where(known, returns, 0.0)).sum(axis=1)
    where = (gross > 0) & _varies(score, known)
    return np.divide(earned, gross, out=np.full(len(score), np.nan), where=where)


def _mean(values: np.ndarray) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else np.nan


def _ratio(values: np.ndarray) -> float:
    """Mean over standard deviation (ddof 1), not annualised; NaN without variation."""
    defined = values[np.isfinite(values)]
    if len(defined) < 2 or defined.min() == defined.max():
        return np.nan
    return float(defined.mean() / defined.std(ddof=1))


def newey_west_t(values: np.ndarray, lags: int) -> float:
    """The t value of the mean of a series with autocorrelation up to some lags (Newey, West 1987).

    The variance has Bartlett weights 1 - lag / (lags + 1); autocovariances are sums over the pairs
    of dates that are both defined, over the number of all defined dates.

    Args:
        values: float64 `(n_dates,)`; NaN is undefined.
        lags: 0 for a series without overlap; one less than the horizon of overlapping returns.

    Returns:
        NaN for fewer than two values, no variation, or a variance that is not positive.
    """
    known = np.isfinite(values)
    n = int(known.sum())
    if n < 2 or values[known].min() == values[known].max():
        return np.nan
    mean = values[known].mean()
    deviation = np.where(known, values - mean, 0.0)
    # No dot products: their last bit depends on how the memory lies.
    variance = float((deviation * deviation).sum())
    for lag in range(1, min(lags, len(values) - 1) + 1):
        pairs = float((deviation[lag:] * deviation[:-lag]).sum())
        variance += 2.0 * (1.0 - lag / (lags + 1.0)) * pairs
    return float(mean / np.sqrt(variance / n / n)) if variance > 0 else np.nan
