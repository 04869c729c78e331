"""Runs to draw reports of: random walks with any number of bars and trades."""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.report.run_report.contents import (
    Closes,
    Doubts,
    Fan,
    ReportedRun,
    RunSeries,
)
from backtest_pipeline.simulation.metrics.equity import drawdowns
from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS, METRICS, metrics_of_series

HOSTILE = '<script>alert("x")</script>'
_START = 1_514_764_800_000_000  # 2018-01-01
ENVELOPE = [
    {
        "assumption": "costs" if (fee, slippage) != (10, 5) else "as run",
        "fee_bps": float(fee),
        "slippage_bps": float(slippage),
        "total_return": 0.5 - (fee + slippage) / 50,
    }
    for fee in (0, 5, 10, 20, 30)
    for slippage in (0, 2.5, 5, 10, 15)
]
ENVELOPE.sort(key=lambda scenario: scenario["assumption"])  # the run as it is comes first


def walk(n: int, seed: int = 3, step_us: int = DAY_US, **changed: Any) -> RunSeries:
    """Series of a random walk with a mark each step."""
    rng = np.random.default_rng(seed)
    share = step_us / DAY_US
    steps = rng.normal(0.0006 * share, 0.02 * share**0.5, n)
    equity = 10_000 * np.exp(np.cumsum(steps))
    equity[0] = 10_000.0
    benchmark = 10_000 * np.exp(np.cumsum(rng.normal(0.0004 * share, 0.03 * share**0.5, n)))
    usual = {
        "ts": _START + step_us * np.arange(1, n + 1) - 1000,
        "equity": equity,
        "drawdown": drawdowns(equity.reshape(1, -1), np.array([0, n]))[0],
        "exposure": rng.choice([-1.0, 0.0, 1.0], n),
        "benchmark": benchmark,
    }
    return RunSeries(**{**usual, **changed})


def trades_on(series: RunSeries, n_trades: int, *, stops: bool = True) -> list[dict[str, Any]]:
    """Trades one after the other, the last still open; every third lost."""
    n = len(series.ts)
    edges = np.linspace(0, n - 1, n_trades + 1).astype(int)
    return [
        {
            "trade_no": i + 1,
            "direction": "long" if i % 2 else "short",
            "entry_ts": int(series.ts[edges[i]]),
            "exit_ts": int(series.ts[edges[i + 1]]),
            "bars_held": int(edges[i + 1] - edges[i]),
            "entry_price": float(series.benchmark[edges[i]]),
            "exit_price": float(series.benchmark[edges[i + 1]]),
            "size": 1.0,
            "fees": 1.5,
            "slippage_cost": 0.5,
            "funding": 0.0,
            "pnl": -100.0 if i % 3 == 0 else 80.0,
            "pnl_pct": -0.01 if i % 3 == 0 else 0.008,
            "mae": -0.02 - i % 5 / 100,
            "mfe": 0.03,
            "entry_stop": float(series.benchmark[edges[i]]) * 0.9 if stops else None,
            "exit_stop": float(series.benchmark[edges[i]]) * 0.95 if stops else None,
            "exit_reason": "end_of_data" if i == n_trades - 1 else "stop_loss",
            "is_open": i == n_trades - 1,
        }
        for i in range(n_trades)
    ]


def reported(
    n: int = 900,
    n_trades: int = 39,
    *,
    step_us: int = DAY_US,
    assessed: bool = True,
    **changed: Any,
) -> ReportedRun:
    """A run with its metrics by the metric code, an assessment, and a blocked entry."""
    series = changed.pop("series", walk(n, step_us=step_us))
    drawn = series or walk(n, step_us=step_us)
    trades = changed.pop("trades", None)
    if trades is None:
        trades = trades_on(drawn, n_trades)
    rng = np.random.default_rng(5)
    usual: dict[str, Any] = {
        "run_id": "85cf19da-4151-5a53-b72e-2ebcece5c190",
        "name": "ema_21_50",
        "symbol": "AAA",
        "timeframe": "1D",
        "subject": f"{n:,} bars",
        "benchmark_name": "buy and hold",
        "warnings": (),
        "missing": (),
        "metrics": metrics_on(drawn, trades),
        "undefined": {"dsr": "constant daily returns"},
        "risk_free": 0.0,
        "liquidated": False,
        "series": series,
        "closes": Closes(drawn.ts, drawn.benchmark),
        "trades": trades,
        "blocked": [{"ts": int(drawn.ts[n // 2]), "side": "long", "reason": "insufficient_cash"}],
        "n_blocked": 1,
        "intervals": None,
        "fan": None,
        "doubts": None,
        "counting_rule": "parameter sets",
        "assess": "backtest-pipeline robustness --asset AAA",
        "settings": {"costs": {"fee_bps": 10.0}},
        "provenance": {"run_id": "85cf19da", "code_version": "engine 1"},
    }
    if assessed:
        usual["intervals"] = {
            "total_return": (-0.2, 3.1),
            "sharpe": (0.1, 1.4),
            "max_drawdown": (-0.7, -0.2),
        }
        percentiles = [drawn.equity * factor for factor in (0.5, 0.8, 1.3, 1.9)]
        usual["fan"] = Fan(drawn.ts, *percentiles)
        numbers = {
            "p_random_entries": 0.037,
            "random_entry_ruined": 0.0,
            "random_fill_low": 0.1,
            "p_drawdown": 0.4,
            "break_even_bps": 291.0,
            "fragile": False,
            "envelope": ENVELOPE,
            "undefined": {},
        }
        usual["doubts"] = Doubts(numbers, np.expm1(rng.normal(0, 1, 200)), 1000, 0)
    return ReportedRun(**{**usual, **changed})


def metrics_on(series: RunSeries, trades: list[dict[str, Any]]) -> dict[str, float | None]:
    """All metrics of a run, as they are stored."""
    kinds = {"is_open": np.bool_, "entry_ts": np.int64, "exit_ts": np.int64}
    names = (
        *("entry_ts", "exit_ts", "entry_price", "exit_price", "size", "fees", "slippage_cost"),
        *("funding", "pnl", "pnl_pct", "bars_held", "is_open"),
    )
    columns = {n: np.array([t[n] for t in trades], kinds.get(n, np.float64)) for n in names}
    n = len(series.ts)
    found = metrics_of_series(
        series.ts, np.array([0, n]), series.equity.reshape(1, -1).copy(), series.benchmark.copy(),
        columns, np.zeros(len(trades), np.int64), np.array([n]),
    )  # fmt: skip
    values = {name: float(value[0]) for name, value in found.items()}
    known = {m.name: None if np.isnan(values[m.name]) else values[m.name] for m in METRICS}
    family = {m.name: 1.0 if m.name.startswith("n_") else known["psr"] for m in FAMILY_METRICS}
    return {**known, **family}


def fold(number: int, **changed: Any) -> dict[str, Any]:
    """A fold of a walk-forward: a row of `walk_forward_folds`."""
    test = _START + (365 + 90 * number) * DAY_US
    usual = {
        "fold": number,
        "train_start": _START,
        "train_end": test - DAY_US,
        "test_start": test,
        "test_end": test + 90 * DAY_US,
        "params": {"fast": 5 + number, "slow": 30},
        "train_sharpe": 1.2,
        "test_sharpe": 0.3 * number,
        "test_total_return": -0.1,
        "test_max_drawdown": -0.2,
        "test_trade_count": 4.0,
    }
    return {**usual, **changed}
