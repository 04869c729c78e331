"""The catalogue of feature columns, in the order of the table `cmc_features`.

The table's DDL, the checks when reading it, the builder and docs/features.md all follow it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backtest_pipeline.market.panel import OHLCV

FEATURES_VERSION = 2
"""Raise it when the same bars give other features, or the strategies' own indicators change."""
EMA_PERIODS = (9, 10, 21, 50, 200)
RETURN_Z_WINDOWS = (30, 90, 365)
VOLATILITY_WINDOWS = (20, 63, 126)
Z_WINDOW = 365  # bars in the z-score of a volatility or an RSI
OUTLIER_Z = 4.0  # standard deviations; a normal variable exceeds them once in 16,000 bars

READ_COLUMNS = (*OHLCV, "gap_bars", "rsi_7", "rsi_14", "rsi_21", "atr_14", "adx_14")
"""Columns of the table that strategies and the simulation read; EMAs are stored beside it."""

RETURNS = (
    "delta1",
    "delta2",
    "ret_arith",
    "delta_ret_arith",
    "ret_log",
    "delta_ret_log",
    "range",
    "range_pct",
    "true_range",
    "true_range_pct",
)
Z_SCORED_RETURNS = ("ret_arith", "delta_ret_arith", "ret_log", "delta_ret_log")


@dataclass(frozen=True)
class Feature:
    """One feature column.

    Attributes:
        name: column name.
        definition: formula; `x'` is x of the previous bar.
        rows: bars needed for the first value, the current one included.
        unit: unit of the value; `price` is the quote currency.
        source: publication that defines it.
        recursive: True if the value depends on all earlier bars, False if on the last `rows`.
        sql_type: type in the table.
    """

    name: str
    definition: str
    rows: int
    unit: str
    source: str = ""
    recursive: bool = False
    sql_type: str = "DOUBLE PRECISION"


def _flag(name: str, definition: str, rows: int, recursive: bool = False) -> Feature:
    return Feature(name, definition, rows, "flag", "this project", recursive, "BOOLEAN")


def _bars() -> Iterator[Feature]:
    for name in ("open", "high", "low", "close"):
        yield Feature(name, "as in the bars", 1, "price")
    yield Feature("volume", "as in the bars", 1, "as in the bars")
    definition = "bars missing just before this bar"
    yield Feature("gap_bars", definition, 1, "bars", sql_type="INTEGER")


def _returns() -> Iterator[Feature]:
    wilder = "Wilder 1978"
    measures = (
        Feature("delta1", "close - close'", 2, "price"),
        Feature("delta2", "delta1 - delta1'", 3, "price"),
        Feature("ret_arith", "close / close' - 1", 2, "fraction"),
        Feature("delta_ret_arith", "ret_arith - ret_arith'", 3, "fraction"),
        Feature("ret_log", "ln(close) - ln(close')", 2, "fraction"),
        Feature("delta_ret_log", "ret_log - ret_log'", 3, "fraction"),
        Feature("range", "high - low", 1, "price"),
        Feature("range_pct", "range / close", 1, "fraction"),
        Feature("true_range", "max(high, close') - min(low, close')", 2, "price", wilder),
        Feature("true_range_pct", "true_range / close", 2, "fraction", wilder),
    )
    yield from measures
    for measure in measures:
        definition = f"equal to {measure.name}, since every row of the table is a complete bar"
        rows, unit, source = measure.rows, measure.unit, measure.source
        yield Feature(f"{measure.name}_roll", definition, rows, unit, source)


def _return_zscores() -> Iterator[Feature]:
    for name in Z_SCORED_RETURNS:
        first = 3 if name.startswith("delta") else 2
        for column in (name, f"{name}_roll"):
            for n in RETURN_Z_WINDOWS:
                definition = f"({column} - mean) / std over {n} bars, ddof 1"
                yield Feature(
                    f"{column}_zscore_{n}", definition, first + n - 1, "std", "standard score"
                )
    yield _flag("ret_is_outlier", f"abs(ret_log_zscore_90) > {OUTLIER_Z:g}", 91)


def _volatilities() -> Iterator[Feature]:
    estimators = (
        ("parkinson", "sqrt(mean(ln(high/low)^2) / (4 ln 2) * bars_per_year)", "Parkinson 1980"),
        (
            "gk",
            "sqrt(mean(ln(high/low)^2 / 2 - (2 ln 2 - 1) ln(close/open)^2) * bars_per_year)",
            "Garman and Klass 1980",
        ),
        (
            "rs",
            "sqrt(mean(ln(high/close) ln(high/open) + ln(low/close) ln(low/open)) * bars_per_year)",
            "Rogers and Satchell 1991",
        ),
        ("log_roll", "std(ret_log, ddof 1) * sqrt(bars_per_year)", "close to close"),
    )
    named = [
        Feature(
            f"vol_{name}_{n}",
            definition,
            n + 1 if name == "log_roll" else n,
            "fraction per sqrt(year)",
            source,
        )
        for name, definition, source in estimators
        for n in VOLATILITY_WINDOWS
    ]
    atr = Feature("atr_14", "Wilder average of true_range", 15, "price", "Wilder 1978", True)
    yield from (*named, atr)
    for volatility in named:
        if "log_roll" not in volatility.name:
            yield _own_zscore(volatility)
    for volatility in (*named, atr):
        yield _flag(
            f"{volatility.name}_is_outlier",
            f"abs(z-score of {volatility.name} over {Z_WINDOW} bars) > {OUTLIER_Z:g}",
            volatility.rows + Z_WINDOW - 1,
            volatility.recursive,
        )


def _own_zscore(of: Feature) -> Feature:
    definition = f"({of.name} - mean) / std over {Z_WINDOW} bars, ddof 1"
    rows = of.rows + Z_WINDOW - 1
    return Feature(f"{of.name}_zscore", definition, rows, "std", "standard score", of.recursive)


def _technical() -> Iterator[Feature]:
    wilder, appel, lane, bands = "Wilder 1978", "Appel 1979", "Lane 1984", "Bollinger 2001"
    definition = "100 gain / (gain + loss), Wilder averages of the rises and falls of close"
    rsi = [Feature(f"rsi_{n}", definition, n + 1, "0 to 100", wilder, True) for n in (7, 14, 21)]
    yield from (*rsi, _own_zscore(rsi[1]))
    definition = "Wilder average of 100 abs(plus - minus) / (plus + minus) directional movement"
    yield Feature("adx_14", definition, 28, "0 to 100", wilder, True)
    for fast, slow, signal in ((12, 26, "macd_signal_9"), (8, 17, "macd_signal_9_fast")):
        macd, hist = f"macd_{fast}_{slow}", f"macd_hist_{fast}_{slow}_9"
        definition = f"EMA({fast}) - EMA({slow}) of close, seeded with means"
        yield Feature(macd, definition, slow, "price", appel, True)
        yield Feature(signal, f"EMA(9) of {macd}", slow + 8, "price", appel, True)
        yield Feature(hist, f"{macd} - {signal}", slow + 8, "price", appel, True)
    definition = "100 (close - lowest low) / (highest high - lowest low) of 14 bars, fast %K"
    yield Feature("stoch_k_14", definition, 14, "0 to 100", lane)
    yield Feature("stoch_d_3", "mean of stoch_k_14 over 3 bars", 16, "0 to 100", lane)
    yield Feature("bb_ma_20", "mean of close over 20 bars", 20, "price", bands)
    yield Feature("bb_up_20_2", "bb_ma_20 + 2 std of close, ddof 0", 20, "price", bands)
    yield Feature("bb_lo_20_2", "bb_ma_20 - 2 std of close, ddof 0", 20, "price", bands)
    yield Feature("bb_width_20", "(bb_up_20_2 - bb_lo_20_2) / bb_ma_20", 20, "fraction", bands)
    yield _flag("ta_is_outlier", f"abs(rsi_14_zscore) > {OUTLIER_Z:g}", 379, True)


def _flags() -> Iterator[Feature]:
    yield _flag("has_price_gap", "gap_bars > 0", 1)
    yield _flag("has_outlier", "any of the *_is_outlier flags", 91, True)


def _emas() -> Iterator[Feature]:
    for n in EMA_PERIODS:
        definition = f"EMA of close, weight 2 / {n + 1}, seeded with the mean of the first {n}"
        yield Feature(f"ema_{n}", definition, n, "price", "SMA-seeded, as TA-Lib", True)


_IN_TABLE = (
    *_bars(),
    *_returns(),
    *_return_zscores(),
    *_volatilities(),
    *_technical(),
    *_flags(),
)

FEATURES: tuple[Feature, ...] = (*_IN_TABLE, *_emas())
"""All feature columns: those of the table, then the EMAs stored beside it."""

FEATURE_COLUMNS: tuple[tuple[str, str], ...] = (
    ("id", "INTEGER"),
    ("ts", "TIMESTAMPTZ"),
    ("tf", "TEXT"),
    ("tf_days", "INTEGER"),
    ("asset_class", "TEXT"),
    *((feature.name, feature.sql_type) for feature in _IN_TABLE),
    ("updated_at", "TIMESTAMPTZ"),
)
"""Name and SQL type of each column of `cmc_features`, in order; names as in SQL, unquoted."""


def markdown() -> str:
    """The page docs/features.md."""
    head = f"""\
# Features

Every column computed from bars, in the order of the table `cmc_features`; the EMAs at the end are
stored beside it. `x'` is x of the previous bar of the same asset. A window always includes the
current bar and never a later one.

- **rows**: bars needed for the first value. `+` marks a recursive feature, which depends on all
  earlier bars; every other feature depends on exactly that many bars.
- A number is NULL where it is undefined: during warm-up, for a price that is not positive, and for
  a division by zero (the z-score of a constant series, the RSI and stochastics of a constant
  price). It is never infinite. ADX is 0 for a constant price.
- A flag is false where it is undefined. An outlier is more than {OUTLIER_Z:g} standard deviations
  from the mean: of the last 90 bars for a return, of the last {Z_WINDOW} for anything else.
- `bars_per_year` follows from the timeframe, with 365 days a year.
- A missing price restarts the warm-up of a recursive feature.

| column | definition | rows | unit | source |
| --- | --- | --- | --- | --- |
"""
    lines = [
        f"| `{f.name}` | {f.definition} | {f.rows}{'+' if f.recursive else ''} "
        f"| {f.unit} | {f.source} |\n"
        for f in FEATURES
    ]
    return head + "".join(lines)
