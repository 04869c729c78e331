"""The list of columns is the contract's, and the documentation is the list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backtest_pipeline.market.features import EMA_PERIODS, FEATURE_COLUMNS, build_features
from backtest_pipeline.market.features.catalogue import markdown
from backtest_pipeline_tests.market.features.panels import random_bars

RETURNS = (
    *("delta1", "delta2", "ret_arith", "delta_ret_arith", "ret_log", "delta_ret_log"),
    *("range", "range_pct", "true_range", "true_range_pct"),
)
VOLATILITIES = [
    f"vol_{name}_{n}" for name in ("parkinson", "gk", "rs", "log_roll") for n in (20, 63, 126)
]
CONTRACT = [
    *("id", "ts", "tf", "tf_days", "asset_class"),
    *("open", "high", "low", "close", "volume", "gap_bars"),
    *RETURNS,
    *(f"{name}_roll" for name in RETURNS),
    *(
        f"{name}{roll}_zscore_{n}"
        for name in ("ret_arith", "delta_ret_arith", "ret_log", "delta_ret_log")
        for roll in ("", "_roll")
        for n in (30, 90, 365)
    ),
    "ret_is_outlier",
    *VOLATILITIES,
    "atr_14",
    *(f"{name}_zscore" for name in VOLATILITIES[:9]),
    *(f"{name}_is_outlier" for name in (*VOLATILITIES, "atr_14")),
    *("rsi_7", "rsi_14", "rsi_21", "rsi_14_zscore", "adx_14"),
    *("macd_12_26", "macd_signal_9", "macd_hist_12_26_9"),
    *("macd_8_17", "macd_signal_9_fast", "macd_hist_8_17_9"),
    *("stoch_k_14", "stoch_d_3", "bb_ma_20", "bb_up_20_2", "bb_lo_20_2", "bb_width_20"),
    *("ta_is_outlier", "has_price_gap", "has_outlier", "updated_at"),
]


def test_the_table_has_the_112_columns_of_the_contract_in_its_order() -> None:
    assert [name for name, _ in FEATURE_COLUMNS] == CONTRACT
    assert len(FEATURE_COLUMNS) == 112


def test_the_sql_types_are_those_of_the_contract() -> None:
    types = dict(FEATURE_COLUMNS)
    keys = {"id": "INTEGER", "ts": "TIMESTAMPTZ", "tf": "TEXT", "tf_days": "INTEGER"}
    others = {"asset_class": "TEXT", "gap_bars": "INTEGER", "updated_at": "TIMESTAMPTZ"}
    for name, sql_type in types.items():
        flag = name.endswith("_is_outlier") or name.startswith("has_")
        expected = "BOOLEAN" if flag else "DOUBLE PRECISION"
        assert sql_type == {**keys, **others}.get(name, expected), name


def test_features_are_the_table_without_its_keys_and_then_the_emas() -> None:
    built = build_features(random_bars([5]))
    keys = {"id", "ts", "tf", "tf_days", "asset_class", "updated_at"}
    emas = ["ema_9", "ema_10", "ema_21", "ema_50", "ema_200"]
    assert list(built.columns) == [name for name in CONTRACT if name not in keys] + emas
    assert [f"ema_{n}" for n in EMA_PERIODS] == emas


def test_flags_are_bool_and_all_else_is_float64() -> None:
    built = build_features(random_bars([40]))
    types = dict(FEATURE_COLUMNS)
    for name, column in built.columns.items():
        assert column.dtype == (bool if types.get(name) == "BOOLEAN" else float), name


def test_the_documentation_is_what_the_catalogue_says() -> None:
    page = Path(__file__).parents[3] / "docs" / "features.md"
    assert page.read_text(encoding="utf-8") == markdown(), "run `make reference`"


def test_the_list_of_columns_comes_without_the_compiler() -> None:
    program = "import sys, backtest_pipeline.market.features; sys.exit('numba' in sys.modules)"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
