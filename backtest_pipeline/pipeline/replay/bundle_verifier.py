"""Verify an exported run: recompute every file's hash, the result's fingerprint, and its metrics.

The metrics are computed here a second time, in plain Python, from the trades and the equity that
the fingerprint covers. A bundle holds this file as verify.py. It needs only pyarrow:

    python verify.py [BUNDLE]

BUNDLE is the .zip file, or the folder it was unpacked to; by default the folder of this file. The
exit code is 0 if nothing has changed since the export, and 1 otherwise, with one line per problem;
also where the metrics are of another version than the formulas here, which proves nothing of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import sys
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import NormalDist, stdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
RUN = "run.json"
CONFIG = "config.json"
TRADES = "trades.parquet"
EQUITY = "equity.parquet"
METRICS = "metrics.parquet"
MONTHS = "monthly_returns.parquet"
FOLDS = "folds.json"
BLOCKS = "blocks.parquet"
"""Blocked entries; only a run that follows plans has them in its fingerprint."""
OF_PLANS = ("symbol", "trigger_id", "category", "exit_trigger_id", "is_part")
"""Further columns of trades under plans, which enter the fingerprint too."""
OF_RANKS = ("symbol", "is_part")
"""Those of a run that ranks a universe."""
OF_UNIVERSE = ("daily_ic.parquet", "daily_signals.parquet", "daily_weights.parquet")
"""Tables of a run that ranks a universe; `results` has their hashes, and what follows from them."""
METRICS_VERSION = 2
"""The version of the formulas below."""
LEDGER = ("dsr", "dsr_effective", "n_trials", "n_trials_effective")
"""Metrics that count the other trials of the store; the manifest says when."""
_TAKEN_AS_GIVEN = "; n_walk_forwards, declared_at and threshold of the verdict NOT proven"
"""Of a walk-forward: what it is one of, and the setting that it was judged by."""
# The columns of a trade, in the order in which they enter the fingerprint.
FINGERPRINTED = (
    *("trade_no", "entry_bar", "entry_ts", "exit_ts", "entry_price", "exit_price", "direction"),
    *("size", "fees", "slippage_cost", "funding", "pnl", "pnl_pct", "mae", "mfe", "bars_held"),
    *("entry_stop", "entry_stop_kind", "exit_stop", "exit_stop_kind"),
    *("exit_reason", "is_open", "entry_after_gap"),
)


def fingerprint_of(files: dict[str, bytes], about: dict[str, Any]) -> str:
    """The sha256 of trades, equity, benchmark and the run's final state, in canonical bytes.

    Numbers are little-endian float64, with a single NaN and a single zero; timestamps are
    microseconds since 1970 UTC; long is 1 and short -1; an exit reason and a kind of stop are their
    positions in the manifest's lists, and no stop is -1.
    """
    trades, equity = _table(files[TRADES]), _table(files[EQUITY])
    codes: dict[str, dict[str | None, int]] = {"direction": {"long": 1, "short": -1}}
    codes["exit_reason"] = {name: i for i, name in enumerate(about["exit_reasons"])}
    stops = {None: -1, **{name: i for i, name in enumerate(about["stop_kinds"])}}
    codes["entry_stop_kind"] = codes["exit_stop_kind"] = stops
    columns = [
        [codes[name][value] for value in trades[name].to_pylist()]
        if name in codes
        else _numbers(trades[name])
        for name in FINGERPRINTED
    ]
    digest = hashlib.sha256()
    for row in zip(*columns, strict=True):
        digest.update(_canonical(row))
    digest.update(_canonical(_numbers(equity["equity"])))
    digest.update(_canonical(_numbers(equity["benchmark"])))
    digest.update(_canonical(about["ends"]))
    if BLOCKS not in files:
        is_ranked = set(OF_RANKS) <= set(trades.column_names)
        return _with_symbols(digest.hexdigest(), trades) if is_ranked else digest.hexdigest()
    return _with_plans(digest.hexdigest(), trades, _table(files[BLOCKS]))


def _with_symbols(of_account: str, trades: Any) -> str:
    """The fingerprint of a run that ranks a universe: with the asset of each trade."""
    digest = hashlib.sha256(of_account.encode())
    traded = [trades[name].to_pylist() for name in OF_RANKS]
    lines = [f"{symbol}|{'part' if part else ''}" for symbol, part in zip(*traded, strict=True)]
    digest.update("\n".join(lines).encode() + b"\0")
    return digest.hexdigest()


def _with_plans(of_account: str, trades: Any, blocks: Any) -> str:
    """The fingerprint of a run under plans: with who asked for each trade, and what was blocked."""
    digest = hashlib.sha256(of_account.encode())
    asked = [trades[name].to_pylist() for name in OF_PLANS]
    lines = [
        "|".join((symbol, trigger, category, exit_ or "", "part" if part else ""))
        for symbol, trigger, category, exit_, part in zip(*asked, strict=True)
    ]
    digest.update("\n".join(lines).encode() + b"\0")
    lines = [
        "|".join(
            (
                str(row["event_no"]),
                row["ts"].isoformat(),
                *(row[name] for name in ("symbol", "timeframe", "trigger_id", "side")),
                *(repr(row["qty"]), row["reason"], row["class"], row["detail"]),
            )
        )
        for row in blocks.to_pylist()
    ]
    digest.update("\n".join(lines).encode() + b"\0")
    return digest.hexdigest()


def _table(data: bytes) -> Any:
    # Without threads: a thread pool can abort a process that exits right afterwards.
    return pq.ParquetFile(io.BytesIO(data)).read(use_threads=False)


def _numbers(column: Any) -> list[float]:
    is_stamp = str(column.type).startswith("timestamp")
    values = column.cast("int64") if is_stamp else column
    return [float("nan") if value is None else float(value) for value in values.to_pylist()]


def _stamps(column: Any) -> list[int]:
    return column.cast(pa.timestamp("us", "UTC")).cast("int64").to_pylist()


def _canonical(values: Any) -> bytes:
    numbers = [float("nan") if v != v else float(v) + 0.0 for v in values]
    return struct.pack(f"<{len(numbers)}d", *numbers)


_DAY_US = 86_400_000_000
_YEAR = 365
_FEWEST_DAYS_A_YEAR = 90
_FEWEST_FOLDS = 5
_CONSTANT = 1e-14**2  # a variance that is rounding alone


def metrics_of(files: dict[str, bytes]) -> dict[str, float | None]:
    """Every metric of docs/metrics.md, from trades, equity and benchmark; None where undefined."""
    run, config = json.loads(files[RUN]), json.loads(files[CONFIG])
    trades, table = _table(files[TRADES]), _table(files[EQUITY])
    ts, equity = _stamps(table["ts"]), table["equity"].to_pylist()
    daily = _by_day(ts, equity)
    found = _equity_metrics(
        ts, equity, daily, _by_day(ts, table["benchmark"].to_pylist()), config["risk_free"]
    )
    columns = {name: trades[name].to_pylist() for name in trades.column_names}
    columns |= {name: _stamps(trades[name]) for name in ("entry_ts", "exit_ts")}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    found |= _trade_metrics(rows)
    filled = [row["size"] * (row["entry_price"] + _exit_price(row)) for row in rows]
    found["turnover"] = _ratio(math.fsum(filled) * _YEAR, _mean(daily) * (len(daily) - 1))
    found["exposure"] = _exposure(files, rows, ts, run)
    return {name: v if v is not None and math.isfinite(v) else None for name, v in found.items()}


def _exposure(
    files: dict[str, bytes], rows: Sequence[dict[str, Any]], ts: Sequence[int], run: dict[str, Any]
) -> float | None:
    """Share of the bars that positions were held at the close of; of a book, any position."""
    if BLOCKS in files or "is_part" in _table(files[TRADES]).column_names:
        held = [
            any(row["entry_ts"] < at and (row["is_open"] or row["exit_ts"] > at) for row in rows)
            for at in ts
        ]
        return _ratio(sum(held), len(ts))
    bars = _table(files[f"inputs/{run['symbol']}-{run['timeframe']}.parquet"])
    n_bars = len({*_stamps(bars["ts"])} & {*ts})
    return _ratio(math.fsum(row["bars_held"] for row in rows), n_bars)


def _by_day(ts: Sequence[int], values: Sequence[float]) -> list[float]:
    """The first value, then the last of each UTC day; a day without any repeats the one before."""
    days = [stamp // _DAY_US for stamp in ts]
    first = days[0] - 1 if days[:1] == days[1:2] else days[0]
    daily = [values[0]]
    for day, value in zip(days, values, strict=True):
        daily += [daily[-1]] * (day - first + 1 - len(daily))
        daily[day - first] = value
    return daily


def _returns(values: Sequence[float]) -> list[float]:
    return [after / before - 1 if before > 0 else 0.0 for before, after in pairwise(values)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _ratio(above: float, below: float) -> float | None:
    return above / below if below else None


def _yearly(growth: float, years: float) -> float | None:
    try:
        return growth**years - 1
    except OverflowError:
        return None


def _equity_metrics(
    ts: Sequence[int],
    equity: Sequence[float],
    daily: Sequence[float],
    held: Sequence[float],
    risk_free: float,
) -> dict[str, float | None]:
    r, b = _returns(daily), _returns(held)
    n, growth = len(r), daily[-1] / daily[0]
    found: dict[str, float | None] = dict.fromkeys(
        ("annual_volatility", "sharpe", "sortino", "omega", "value_at_risk_95", "skew", "kurtosis",
         "expected_shortfall_95", "alpha", "beta", "information_ratio", "tracking_error", "psr",
         "min_track_record_length")
    )  # fmt: skip
    lasting = n >= _FEWEST_DAYS_A_YEAR
    found["total_return"] = growth - 1
    found["benchmark_return"] = held[-1] / held[0] - 1
    found["cagr"] = cagr = _yearly(growth, _YEAR / n) if lasting else None
    found["max_drawdown"], found["max_drawdown_duration_days"] = _drawdown(ts, equity)
    deepest = -(found["max_drawdown"] or 0.0)
    found["calmar"] = None if cagr is None else _ratio(cagr, deepest)
    if n < 2:
        return found
    found |= _shape(r, risk_free)
    _add_significance(found, n)
    steps = [after // _DAY_US - before // _DAY_US for before, after in pairwise(ts)]
    if min(steps) > 1:  # no day but the bars' own is marked: tails are of returns from bar to bar
        tails = _shape(_returns(equity), risk_free) if len(steps) > 1 else {}
        names = ("value_at_risk_95", "expected_shortfall_95", "skew", "kurtosis")
        found |= {name: tails.get(name) for name in names}
    difference = [x - y for x, y in zip(r, b, strict=True)]
    mean_r, mean_b, mean_d = _mean(r), _mean(b), _mean(difference)
    variance = math.fsum((y - mean_b) ** 2 for y in b)
    if variance / n > _CONSTANT:
        pairs = zip(r, b, strict=True)
        beta = math.fsum((x - mean_r) * (y - mean_b) for x, y in pairs) / variance
        excess = mean_r - risk_free - beta * (mean_b - risk_free)
        found["beta"], found["alpha"] = beta, _yearly(1 + excess, _YEAR) if lasting else None
    active = math.fsum((d - mean_d) ** 2 for d in difference)
    found["tracking_error"] = math.sqrt(active / (n - 1) * _YEAR)
    if active / n > _CONSTANT:
        found["information_ratio"] = mean_d / math.sqrt(active / (n - 1)) * math.sqrt(_YEAR)
    return found


def _shape(r: Sequence[float], risk_free: float) -> dict[str, float | None]:
    n, mean, year = len(r), _mean(r), math.sqrt(_YEAR)
    found: dict[str, float | None] = {}
    m2, m3, m4 = (math.fsum((x - mean) ** power for x in r) / n for power in (2, 3, 4))
    if m2 > _CONSTANT:
        deviation = math.sqrt(m2 * n / (n - 1))
        at = 0.05 * (n - 1)
        k, lowest = int(at), sorted(r)
        found = {
            "annual_volatility": deviation * year,
            "sharpe": (mean - risk_free) / deviation * year,
            "skew": m3 / m2**1.5,
            "kurtosis": m4 / m2**2,
            "value_at_risk_95": lowest[k] + (lowest[k + 1] - lowest[k]) * (at - k),
            "expected_shortfall_95": _mean(lowest[: k + 1]),
        }
    excess = [x - risk_free for x in r]
    downside = math.fsum(min(x, 0) ** 2 for x in excess)
    if downside > 0:
        found["sortino"] = (mean - risk_free) / math.sqrt(downside / n) * year
        losses = -math.fsum(min(x, 0) for x in excess)
        found["omega"] = math.fsum(max(x, 0) for x in excess) / losses
    return found


def _add_significance(found: dict[str, float | None], n: int) -> None:
    """The probabilistic Sharpe ratio and the minimum track record length, of daily returns."""
    sharpe, skew, kurtosis = found["sharpe"], found["skew"], found["kurtosis"]
    if sharpe is None or skew is None or kurtosis is None:
        return
    per_day, normal = sharpe / math.sqrt(_YEAR), NormalDist()
    variance = 1 - skew * per_day + (kurtosis - 1) / 4 * per_day**2
    if variance <= 0:
        return
    found["psr"] = normal.cdf(per_day * math.sqrt(n - 1) / math.sqrt(variance))
    if per_day > 0:
        found["min_track_record_length"] = 1 + variance * (normal.inv_cdf(0.95) / per_day) ** 2


def _drawdown(ts: Sequence[int], equity: Sequence[float]) -> tuple[float, float]:
    """The deepest drawdown, and the longest, in days, from a peak to its recovery or the end."""
    peak, peak_at, before, deepest, longest = equity[0], ts[0], ts[0], 0.0, 0
    for at, value in zip(ts, equity, strict=True):
        if value < peak or before > peak_at:  # below the peak, or just recovered to it
            longest = max(longest, at - peak_at)
        if value < peak:
            deepest = min(deepest, value / peak - 1)
        else:
            peak, peak_at = value, at
        before = at
    return deepest, longest / _DAY_US


def _exit_price(trade: dict[str, Any]) -> float:
    return 0.0 if trade["is_open"] else trade["exit_price"]


def _trade_metrics(trades: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    closed = [trade for trade in trades if not trade["is_open"]]
    won = [trade for trade in closed if trade["pnl"] > 0]
    lost = [trade for trade in closed if not trade["pnl"] > 0]

    def average(of: Sequence[dict[str, Any]], name: str) -> float | None:
        return _mean([trade[name] for trade in of]) if of else None

    held = [(trade["exit_ts"] - trade["entry_ts"]) / _DAY_US for trade in closed]
    gains, losses = (math.fsum(trade["pnl"] for trade in of) for of in (won, lost))
    return {
        "trade_count": float(len(trades)),
        "win_rate": _ratio(len(won), len(closed)),
        "profit_factor": _ratio(gains, -losses),
        "expectancy": average(closed, "pnl_pct"),
        "avg_win": average(won, "pnl_pct"),
        "avg_loss": average(lost, "pnl_pct"),
        "avg_holding_days": _mean(held) if held else None,
        "fees_paid": math.fsum(trade["fees"] for trade in trades),
        "slippage_cost": math.fsum(trade["slippage_cost"] for trade in trades),
        "funding_paid": math.fsum(trade["funding"] for trade in trades),
    }


def _monthly(table: Any) -> dict[str, float | None]:
    """Returns by UTC month, such as `2024-02`; the first month's is from the first equity."""
    months: dict[str, float | None] = {}
    last, start = "", 0.0
    latest = table["equity"][0].as_py()
    for at, value in zip(_stamps(table["ts"]), table["equity"].to_pylist(), strict=True):
        month = f"{datetime.fromtimestamp(at // 1_000_000, UTC):%Y-%m}"
        if month != last:
            last, start = month, latest
        months[month] = value / start - 1 if start > 0 else 0.0
        latest = value
    return months


def _drawdowns(table: Any) -> dict[str, float | None]:
    """Equity over its running maximum, minus 1, by number of the mark."""
    equity = table["equity"].to_pylist()
    peaks = enumerate(accumulate(equity, max))
    return {f"drawdown {i}": equity[i] / peak - 1 for i, peak in peaks}


def _wrong_figures(files: dict[str, bytes]) -> Iterator[str]:
    """The figures of the bundle that do not follow from its trades and equity, in words."""
    run, stored = json.loads(files[RUN]), _table(files[METRICS])
    metrics, months, equity = metrics_of(files), _table(files[MONTHS]), _table(files[EQUITY])
    listed = dict(zip(stored["metric"].to_pylist(), stored["value"].to_pylist(), strict=True))
    results = {**run["results"]["summary"], "trade_count": run["results"]["trades"]}
    claimed = {
        METRICS: listed,
        f"{RUN}, metrics": run["metrics"],
        f"{RUN}, significance": {**metrics, **run["significance"]},
        f"{RUN}, results": {**metrics, **results},
    }
    for where, figures in claimed.items():
        own = {name: value for name, value in figures.items() if name not in LEDGER}
        yield from _differences(where, own, metrics)
    if (run["walk_forward"] is not None) != (FOLDS in files):
        yield f"{RUN} and {FOLDS}: one tells of a walk-forward, and the other does not"
    elif FOLDS in files:
        yield from _wrong_summary(run["walk_forward"], json.loads(files[FOLDS]), metrics["psr"])
    if "cross_section" in run["results"]:
        yield from _wrong_ranking(run["results"]["cross_section"], files)
    by_month = [f"{month:%Y-%m}" for month in months["month"].to_pylist()]
    returns = dict(zip(by_month, months["return"].to_pylist(), strict=True))
    yield from _differences(MONTHS, returns, _monthly(equity))
    drawdowns = {f"drawdown {i}": v for i, v in enumerate(equity["drawdown"].to_pylist())}
    yield from _differences(EQUITY, drawdowns, _drawdowns(equity))


def _wrong_ranking(given: dict[str, Any], files: dict[str, bytes]) -> Iterator[str]:
    """What a run that ranks a universe says of its scores that its daily tables do not give."""
    where = f"{RUN}, results.cross_section"
    for name in OF_UNIVERSE:
        found, listed = _hash_of_table(_table(files[name])), given["files"][name.split(".")[0]]
        if found != listed:
            yield f"{name} has values with hash {found}, but {where} has {listed}"
    table = _table(files[OF_UNIVERSE[0]])
    daily = {name: table[name].to_pylist() for name in table.column_names}
    ic = _known(daily["ic"])
    n = len(given["quantiles"])
    ends = zip(daily[f"quantile_return_{n}"], daily["quantile_return_1"], strict=True)
    expected = {
        "mean_ic": _mean(ic) if ic else None,
        "icir": _mean_over_deviation(ic),
        "ic_t_value": _newey_west(daily["ic"], given["horizon"] - 1),
        "ic_hit_rate": sum(value > 0 for value in ic) / len(ic) if ic else None,
        "icir_pearson": _mean_over_deviation(_known(daily["ic_pearson"])),
        "quantile_spread": _mean_of([None if None in pair else pair[0] - pair[1] for pair in ends]),
        "mean_ic_pearson": _mean_of(daily["ic_pearson"]),
        **{name: _mean_of(daily[name]) for name in ("factor_return", "rank_autocorrelation")},
    }
    figures, by = dict(given["figures"]), OF_UNIVERSE[0]
    counts = {"dates_with_ic": given["dates_with_ic"]}
    yield from _differences(where, figures | counts, expected | {"dates_with_ic": len(ic)}, by)
    for row in given["quantiles"]:
        q = int(row["quantile"])
        means = {
            "mean_return": _mean_of(daily[f"quantile_return_{q}"]),
            "turnover": _mean_of(daily[f"quantile_turnover_{q}"]),
        }
        own = {name: row[name] for name in means}
        yield from _differences(f"{where}, quantile {q}", own, means, by)


def _hash_of_table(table: Any) -> str:
    """Hash of names and values: numbers as little-endian, NULL and NaN as one NaN."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table[name]
        digest.update(f"{name}\0{len(column)}\0".encode())
        if pa.types.is_dictionary(column.type) or pa.types.is_string(column.type):
            digest.update("\0".join(column.cast(pa.string()).to_pylist()).encode())
        elif pa.types.is_floating(column.type):
            values = [math.nan if v is None or v != v else v for v in column.to_pylist()]
            digest.update(struct.pack(f"<{len(values)}d", *values))
        else:
            values = column.cast(pa.int64()).to_pylist()
            digest.update(struct.pack(f"<{len(values)}q", *values))
    return digest.hexdigest()


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and not math.isnan(value)]


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return _mean(known) if known else None


def _mean_over_deviation(known: Sequence[float]) -> float | None:
    if len(known) < 2 or min(known) == max(known):
        return None
    return _mean(known) / stdev(known)


def _newey_west(values: Sequence[float | None], lags: int) -> float | None:
    """The t value of a mean, with Bartlett weights."""
    known = _known(values)
    if len(known) < 2 or min(known) == max(known):
        return None
    mean = _mean(known)
    off = [0.0 if value is None or math.isnan(value) else value - mean for value in values]
    variance = math.fsum(value * value for value in off)
    for lag in range(1, min(lags, len(off) - 1) + 1):
        pairs = math.fsum(a * b for a, b in zip(off[lag:], off[:-lag], strict=True))
        variance += 2.0 * (1.0 - lag / (lags + 1.0)) * pairs
    return mean / math.sqrt(variance) * len(known) if variance > 0 else None


def _wrong_summary(
    given: dict[str, Any], folds: Sequence[dict[str, Any]], psr: float | None
) -> Iterator[str]:
    """What a walk-forward says of itself that does not follow from its folds and its own run."""
    sharpes = [(fold["train_sharpe"], fold["test_sharpe"]) for fold in folds]
    both = [pair for pair in sharpes if None not in pair]
    trained, tested = (_mean(means) for means in zip(*both, strict=True)) if both else (None, None)
    ratio = tested / trained if trained is not None and tested is not None and trained > 0 else None
    expected = {
        "n_folds": len(folds),
        "n_judged": len(both),
        "train_sharpe": trained,
        "test_sharpe": tested,
        "efficiency": ratio,
    }
    where = f"{RUN}, walk_forward"
    by = "the folds and the run's psr"
    yield from _differences(where, {name: given[name] for name in expected}, expected, by)
    n, threshold = given["n_walk_forwards"], given["threshold"]
    if type(n) is not int or n < 1:
        yield f"{where}: n_walk_forwards is {n}, and must be a whole number of at least 1"
    elif type(threshold) not in (int, float) or not 0 <= threshold < math.inf:
        yield f"{where}: threshold is {threshold}, and must be a number of at least 0"
    else:
        judged = _walk_forward_verdict(ratio, trained, len(both), psr, n, threshold)
        for name, value in zip(("verdict", "reason"), judged, strict=True):
            if given[name] != value:
                yield f"{where}: {name} is {given[name]}, but {by} give {value}"


def _walk_forward_verdict(
    ratio: float | None,
    trained: float | None,
    n_judged: int,
    psr: float | None,
    n_walk_forwards: int,
    threshold: float,
) -> tuple[str, str]:
    """The verdict and its reason."""
    if trained is None:
        return "undefined", "no fold has both a training and a test Sharpe"
    if ratio is None:
        return "undefined", "the mean training Sharpe is not above 0"
    flags = [f"efficiency {ratio:.2f} is below {threshold:g}"] if ratio < threshold else []
    if n_judged < _FEWEST_FOLDS:
        few = f"{n_judged} folds have both Sharpe ratios, at least {_FEWEST_FOLDS} are needed"
        return "undefined", "; ".join([few, *flags])
    needed = 1 - (1 - 0.95) / n_walk_forwards
    if psr is not None and psr >= needed:
        return "passed", "; ".join(flags)
    luck = "the out-of-sample run has no Sharpe ratio"
    if psr is not None:
        of_how_many = f", as one of {n_walk_forwards} walk-forwards" if n_walk_forwards > 1 else ""
        luck = (
            f"probabilistic Sharpe ratio out of sample {psr:.3f}, {needed:.3f} needed{of_how_many}"
        )
    return "overfit" if flags else "insignificant", "; ".join([*flags, luck])


def _differences(
    where: str,
    given: dict[str, float | None],
    expected: dict[str, float | None],
    by: str = "trades and equity",
) -> Iterator[str]:
    for name in sorted(given.keys() | expected.keys()):
        one, other = given.get(name), expected.get(name)
        if one is None or other is None:
            same = one is other
        else:
            # Sums in another order differ in the last digits.
            same = math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-11)
        if not same:
            yield f"{where}: {name} is {one}, but {by} give {other}"


def problems_of(files: dict[str, bytes]) -> list[str]:
    """The problems of a bundle, in words; empty where it is unchanged since its export."""
    if MANIFEST not in files or SEAL not in files:
        return [f"{name} is missing" for name in (MANIFEST, SEAL) if name not in files]
    if hashlib.sha256(files[MANIFEST]).hexdigest().encode() != files[SEAL].strip():
        return [f"{MANIFEST} is not the one that was exported"]
    manifest = json.loads(files[MANIFEST])
    listed = manifest["files"]
    problems = [f"{name} is missing" for name in sorted(listed.keys() - files.keys())]
    problems += [
        f"{name} does not belong to the bundle"
        for name in sorted(files.keys() - listed.keys() - {MANIFEST, SEAL})
    ]
    problems += [
        f"{name} has changed: its sha256 differs"
        for name in sorted(listed.keys() & files.keys())
        if hashlib.sha256(files[name]).hexdigest() != listed[name]["sha256"]
    ]
    if problems:
        return problems
    fingerprint = fingerprint_of(files, manifest)
    if fingerprint != manifest["result_fingerprint"]:
        problems.append(
            f"trades and equity have fingerprint {fingerprint}, but the run was stored with "
            f"{manifest['result_fingerprint']}"
        )
    elif _metrics_version(files) == METRICS_VERSION:
        problems += _wrong_figures(files)
    return problems


def _metrics_version(files: dict[str, bytes]) -> int:
    return json.loads(files[RUN])["provenance"]["metrics_version"]


def is_proven(files: dict[str, bytes]) -> bool:
    """Whether the metrics of a bundle without problems are recomputed; of another version not.

    Otherwise anybody could have written them, with a version that this file does not know.
    """
    return _metrics_version(files) == METRICS_VERSION


def verdict(files: dict[str, bytes]) -> str:
    """What was verified of a bundle without problems, in words."""
    manifest, version = json.loads(files[MANIFEST]), _metrics_version(files)
    if is_proven(files):
        metrics = f"{len(metrics_of(files))} metrics recomputed"
    else:
        metrics = f"metrics NOT recomputed: they are of version {version}, not {METRICS_VERSION}"
    of_others = " and ".join(
        name for name in (FOLDS, "robustness.json", *OF_UNIVERSE) if name in files
    )
    as_of = manifest["ledger_as_of"]
    return (
        f"{'OK' if is_proven(files) else 'NOT PROVEN'}: {manifest['name']}, run "
        f"{manifest['run_id']}: {len(manifest['files'])} files, "
        f"fingerprint {manifest['result_fingerprint']}, {metrics}; trials of the ledger "
        f"{f'counted at {as_of}' if as_of else 'not dated'}"
        f"{f'; figures in {of_others} NOT recomputed' if of_others else ''}"
        f"{_TAKEN_AS_GIVEN if FOLDS in files else ''}"
    )


def read_bundle(path: Path) -> dict[str, bytes]:
    """The files of a bundle by name; raises OSError or BadZipFile where it cannot be read."""
    if path.is_dir():
        paths = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in paths}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def main() -> int:
    """Verify the bundle that the command line names."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    try:
        files = read_bundle(path)
    except (OSError, zipfile.BadZipFile, zipfile.zlib.error) as error:  # pyright: ignore[reportAttributeAccessIssue]
        print(f"cannot read {path}: {error}")  # noqa: T201
        return 1
    problems = problems_of(files)
    print("\n".join(problems or [verdict(files)]))  # noqa: T201
    return 1 if problems or not is_proven(files) else 0


if __name__ == "__main__":
    sys.exit(main())
