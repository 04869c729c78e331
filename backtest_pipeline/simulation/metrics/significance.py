"""Significance of Sharpe ratios.

All Sharpe ratios are per period (mean over standard deviation with ddof 1, not annualised). Skew
and kurtosis are those of the returns with ddof 0; kurtosis is Pearson's (3 for a normal).

Every function takes numbers, or arrays that broadcast with the first argument. In arrays, undefined
elements (a Sharpe ratio, skew or kurtosis of NaN, fewer than two returns) give NaN and leave the
others alone. If all arguments are numbers, they raise InvalidInput.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from backtest_pipeline.market.errors import InvalidInput

Number = TypeVar("Number", float, np.ndarray)


def probabilistic_sharpe_ratio(
    sharpe: Number,
    n_obs: float | np.ndarray,
    skew: float | np.ndarray,
    kurtosis: float | np.ndarray,
    benchmark_sharpe: float | np.ndarray = 0.0,
) -> Number:
    """Probability that the true Sharpe ratio exceeds a benchmark (PSR).

        normal_cdf((sharpe - benchmark) * sqrt(n_obs - 1) / sqrt(v))
        v = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe ** 2

    Args:
        sharpe: observed Sharpe ratio, per period.
        n_obs: number of returns.
        skew: skew of the returns.
        kurtosis: Pearson's kurtosis of the returns, 3 for a normal.
        benchmark_sharpe: Sharpe ratio to exceed, per period.

    Returns:
        Probability from 0 to 1; NaN if v is not positive, which takes returns with only two values.

    Raises:
        InvalidInput: for fewer than two returns, a kurtosis below 1 or below skew ** 2 + 1, which
            no returns can have, anything infinite or NaN.

    Source: Bailey and Lopez de Prado 2012, "The Sharpe Ratio Efficient Frontier", eq. 8.

    Examples:
        >>> round(probabilistic_sharpe_ratio(0.1, n_obs=500, skew=-0.5, kurtosis=5.0), 4)
        0.985
    """
    _check(n_obs=n_obs, kurtosis=kurtosis)
    _check_shape(skew, kurtosis)
    values = _aligned(
        sharpe=sharpe, n_obs=n_obs, skew=skew, kurtosis=kurtosis, benchmark_sharpe=benchmark_sharpe
    )
    return _as_given(_probability_above(*values))


def expected_maximum_sharpe(trials_variance: Number, n_trials: float | np.ndarray) -> Number:
    """Expected maximum Sharpe ratio of `n_trials` independent strategies without skill.

        sqrt(trials_variance) * ((1 - g) * z(1 - 1 / n_trials) + g * z(1 - 1 / (n_trials * e)))

    where z is the normal quantile and g the Euler-Mascheroni constant. It is 0 for one trial, and
    never less: the approximation would be negative between 1 and 1.4 trials.

    Args:
        trials_variance: variance of the trials' Sharpe ratios, per period.
        n_trials: number of independent trials; may be fractional.

    Raises:
        InvalidInput: for a negative variance, less than one trial, anything infinite or NaN.

    Source: Bailey and Lopez de Prado 2014, "The Deflated Sharpe Ratio", eq. 1 and 2.
    """
    _check(trials_variance=trials_variance, n_trials=n_trials)
    return _as_given(
        _expected_maximum(*_aligned(trials_variance=trials_variance, n_trials=n_trials))
    )


def deflated_sharpe_ratio(
    sharpe: Number,
    n_obs: float | np.ndarray,
    skew: float | np.ndarray,
    kurtosis: float | np.ndarray,
    trials_variance: float | np.ndarray,
    n_trials: float | np.ndarray,
) -> Number:
    """Probability that the best of many trials has a true Sharpe ratio above zero (DSR).

    The probabilistic Sharpe ratio against `expected_maximum_sharpe(trials_variance, n_trials)`.

    Args:
        sharpe: Sharpe ratio of the chosen trial, per period.
        n_obs: number of its returns.
        skew: skew of its returns.
        kurtosis: Pearson's kurtosis of its returns, 3 for a normal.
        trials_variance: variance of the Sharpe ratios of all trials, per period.
        n_trials: number of all trials, including those discarded.

    Returns:
        Probability from 0 to 1; NaN as in `probabilistic_sharpe_ratio`.

    Raises:
        InvalidInput: as in `probabilistic_sharpe_ratio` and `expected_maximum_sharpe`.

    Source: Bailey and Lopez de Prado 2014, "The Deflated Sharpe Ratio", eq. 2.

    Examples:
        >>> dsr = deflated_sharpe_ratio(
        ...     0.1, n_obs=500, skew=-0.5, kurtosis=5.0, trials_variance=1 / 499, n_trials=10
        ... )
        >>> round(dsr, 4)
        0.739
    """
    _check(n_obs=n_obs, kurtosis=kurtosis, trials_variance=trials_variance, n_trials=n_trials)
    _check_shape(skew, kurtosis)
    values = _aligned(
        sharpe=sharpe,
        n_obs=n_obs,
        skew=skew,
        kurtosis=kurtosis,
        trials_variance=trials_variance,
        n_trials=n_trials,
    )
    sr, periods, skew_, kurtosis_, variance, trials = values
    bar = _expected_maximum(variance, trials)
    return _as_given(_probability_above(sr, periods, skew_, kurtosis_, bar))


def minimum_track_record_length(
    sharpe: Number,
    skew: float | np.ndarray,
    kurtosis: float | np.ndarray,
    benchmark_sharpe: float | np.ndarray = 0.0,
    confidence: float = 0.95,
) -> Number:
    """Minimum track record length (MinTRL): returns needed for a significant Sharpe ratio.

        1 + v * (normal_quantile(confidence) / (sharpe - benchmark)) ** 2

    with v as in `probabilistic_sharpe_ratio`, which equals `confidence` at this length.

    Args:
        sharpe: Sharpe ratio, per period.
        skew: skew of the returns.
        kurtosis: Pearson's kurtosis of the returns, 3 for a normal.
        benchmark_sharpe: Sharpe ratio to exceed, per period.
        confidence: between 0.5 and 1.

    Returns:
        Number of returns, not rounded; NaN if the Sharpe ratio does not exceed the benchmark, as no
        length would suffice.

    Raises:
        InvalidInput: for a kurtosis below 1 or below skew ** 2 + 1, a confidence outside (0.5, 1),
            anything infinite or NaN.

    Source: Bailey and Lopez de Prado 2012, "The Sharpe Ratio Efficient Frontier", eq. 11.
    """
    from scipy.special import ndtri

    if not 0.5 < confidence < 1:
        raise InvalidInput(f"confidence must be between 0.5 and 1, not {confidence}")
    _check(kurtosis=kurtosis)
    _check_shape(skew, kurtosis)
    sr, skew_, kurtosis_, benchmark = _aligned(
        sharpe=sharpe, skew=skew, kurtosis=kurtosis, benchmark_sharpe=benchmark_sharpe
    )
    excess = np.where(sr > benchmark, sr - benchmark, np.nan)
    variance = _variance_of_sharpe(sr, skew_, kurtosis_)
    return _as_given(1 + variance * (ndtri(confidence) / excess) ** 2)


@dataclass(frozen=True)
class SharpeMoments:
    """Sharpe ratio and moments of each column of returns.

    Attributes:
        sharpe: float64 `(n_strategies,)`, per period, ddof 1; NaN for constant returns.
        skew: float64 `(n_strategies,)`, ddof 0; NaN likewise.
        kurtosis: float64 `(n_strategies,)`, Pearson's, ddof 0; NaN likewise.
        n_obs: number of returns, one for all or int64 `(n_strategies,)`.
    """

    sharpe: np.ndarray
    skew: np.ndarray
    kurtosis: np.ndarray
    n_obs: int | np.ndarray


def sharpe_moments(returns: np.ndarray) -> SharpeMoments:
    """Sharpe ratio, skew and kurtosis of each column of returns.

    Args:
        returns: float64 `(n_obs, n_strategies)`, simple returns per period, all finite.
    """
    n_obs = len(returns)
    deviation = returns - returns.mean(axis=0)
    m2 = (deviation**2).mean(axis=0)
    # Constant returns differ by rounding only; their variance must not be divided by.
    m2 = np.where(m2 > 1e-14**2, m2, np.nan)
    return SharpeMoments(
        sharpe=returns.mean(axis=0) / np.sqrt(m2 * n_obs / max(n_obs - 1, 1)),
        skew=(deviation**3).mean(axis=0) / m2**1.5,
        kurtosis=(deviation**4).mean(axis=0) / m2**2,
        n_obs=n_obs,
    )


def _variance_of_sharpe(sr: np.ndarray, skew: np.ndarray, kurtosis: np.ndarray) -> np.ndarray:
    """Variance of the estimated Sharpe ratio, times n_obs - 1; NaN unless positive."""
    variance = 1 - skew * sr + (kurtosis - 1) / 4 * sr**2
    return np.where(variance > 0, variance, np.nan)


def _probability_above(
    sr: np.ndarray, n_obs: np.ndarray, skew: np.ndarray, kurtosis: np.ndarray, bar: np.ndarray
) -> np.ndarray:
    from scipy.special import ndtr

    periods = np.where(n_obs >= 2, n_obs - 1, np.nan)
    return ndtr((sr - bar) * np.sqrt(periods) / np.sqrt(_variance_of_sharpe(sr, skew, kurtosis)))


def _expected_maximum(trials_variance: np.ndarray, n_trials: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    several = np.where(n_trials <= 1, np.e, n_trials)
    # -z(p) is z(1 - p) without the digits that 1 - p loses for many trials.
    best = -(1 - np.euler_gamma) * ndtri(1 / several)
    best -= np.euler_gamma * ndtri(1 / (several * np.e))
    return np.sqrt(trials_variance) * np.where(n_trials <= 1, 0.0, np.maximum(best, 0.0))


_LEAST = {
    "n_obs": (2, "a Sharpe ratio needs at least two returns"),
    # Two-valued returns have a kurtosis of 1, give or take the last digits.
    "kurtosis": (
        1 - 1e-9,
        "give Pearson's kurtosis, 3 for a normal; add 3 to an excess kurtosis",
    ),
    "trials_variance": (0, "a variance cannot be negative"),
    "n_trials": (1, "the chosen strategy counts as a trial, so give at least 1"),
}


def _check(**arguments: float | np.ndarray) -> None:
    """Raise InvalidInput for values that no data can have."""
    for name, value in arguments.items():
        least, why = _LEAST[name]
        if name == "n_obs" and np.ndim(value) > 0:
            continue  # in arrays, an element with too few returns is NaN
        below = np.asarray(value, float) < least
        if below.any():
            raise InvalidInput(f"{name} is {np.asarray(value)[below].min()}: {why}")


def _check_shape(skew: float | np.ndarray, kurtosis: float | np.ndarray) -> None:
    """Refuse a pair that no returns can have (Pearson 1916: kurtosis >= skew ** 2 + 1)."""
    least = np.asarray(skew, float) ** 2 + 1
    impossible = np.asarray(kurtosis, float) < least * (1 - 1e-9)
    if impossible.any():
        pair = np.broadcast_arrays(np.asarray(skew, float), np.asarray(kurtosis, float))
        found_skew, found_kurtosis = (float(values[impossible].flat[0]) for values in pair)
        raise InvalidInput(
            f"skew {found_skew:g} with kurtosis {found_kurtosis:g}: kurtosis is at least skew ** 2 "
            f"+ 1, here {found_skew**2 + 1:g}; Pearson's is meant, of which a normal has 3"
        )


def _aligned(**arguments: float | np.ndarray) -> list[np.ndarray]:
    """The arguments broadcast to one shape, float64; raises for NaN if all of them are numbers."""
    arrays = {name: np.asarray(value, float) for name, value in arguments.items()}
    for name, value in arrays.items():
        if np.isinf(value).any():
            raise InvalidInput(f"{name} is infinite; pass NaN if it is undefined")
        if np.isnan(value).any() and all(array.ndim == 0 for array in arrays.values()):
            raise InvalidInput(f"{name} is NaN; the result would be undefined")
    try:
        return [*np.broadcast_arrays(*arrays.values())]
    except ValueError as error:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
        raise InvalidInput(f"arrays cannot be broadcast together: {shapes}") from error


def _as_given(values: np.ndarray) -> Any:
    """A float if all arguments were numbers, else the array."""
    return values if np.ndim(values) else float(values)
