"""The presets that a store begins with, and two that it does not."""

from __future__ import annotations

from typing import Any

REGISTERED: list[tuple[str, dict[str, Any]]] = [
    ("ema_crossover", {"fast": 9, "slow": 21}),
    ("ema_crossover", {"fast": 21, "slow": 50}),
    ("ema_crossover", {"fast": 50, "slow": 200}),
    ("rsi_mean_revert", {"period": 14, "lower": 30, "upper": 70}),
    ("rsi_mean_revert", {"period": 14, "lower": 25, "upper": 75}),
    ("rsi_mean_revert", {"period": 14, "lower": 20, "upper": 80, "percentile_window": 100}),
    ("atr_breakout", {"lookback": 20, "atr_period": 14, "trail_mult": 2}),
    ("bollinger_revert", {"period": 20, "width": 2}),
    ("macd_crossover", {"fast": 21, "slow": 50, "signal": 9}),
]
