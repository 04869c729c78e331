"""Plans as JSON values, which tests change one field of."""

from __future__ import annotations

from typing import Any

DIP: dict[str, Any] = {
    "symbol": "S-ALPHA",
    "timeframe": "1D",
    "category": "mean_reversion",
    "direction": "long",
    "entry": "rsi_14 < 30",
    "exit": "rsi_14 > 50",
    "stop_loss_pct": 5.0,
}
CROSSING: dict[str, Any] = {
    "symbol": "S-ALPHA",
    "timeframe": "1D",
    "category": "trend_continuation",
    "direction": "both",
    "strategy": "ema_crossover",
    "stop_loss_pct": 3.0,
}
LEAVE: dict[str, Any] = {
    "symbol": "S-ALPHA",
    "timeframe": "1D",
    "category": "emergency_exit",
    "direction": "both",
    "exit": "close < lowest(low, 20, prior=True)",
}
PLAN: dict[str, Any] = {
    "generated_at": "2024-01-31T23:59:59.999Z",
    "effective_ts": "2024-01-31T23:59:59.999Z",
    "valid_until": "2024-02-29T23:59:59.999Z",
    "regime": "range",
    "stance": "active",
    "triggers": [DIP, CROSSING, LEAVE],
}
