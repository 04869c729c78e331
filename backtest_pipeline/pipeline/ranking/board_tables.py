"""A stored board as rows and figures to be shown."""

from __future__ import annotations

from typing import Any

import pandas as pd

from backtest_pipeline.pipeline.ranking.leaderboard import StoredBoard
from backtest_pipeline.pipeline.runs.summary import Summary, rounded
from backtest_pipeline.report.number_formats import written


def shown_rows(
    stored: StoredBoard, *, scheme: str | None = None, tf: str | None = None, limit: int = 20
) -> list[dict[str, Any]]:
    """Ranked runs as rows for display, by rank, or by a scheme's score if one is given.

    Args:
        stored: the leaderboard.
        scheme: name of a scheme in `research.ranking.leaderboard.SCHEMES`.
        tf: only runs at this timeframe; ranks remain those of the whole board.
        limit: maximum number of rows.
    """
    ranked = [row for row in stored.rows if row["rank"] and tf in (None, row["tf"])]
    if scheme is not None:
        ranked.sort(key=lambda row: (-row["scores"][scheme], row["rank"]))
    return [
        {
            "rank": row["rank"],
            "signal": row["signal_name"],
            "asset": row["symbol"],
            "timeframe": row["tf"],
            "dsr": rounded(row["dsr"]),
            "sharpe": rounded(row["sharpe"]),
            "max_drawdown": rounded(row["max_drawdown"]),
            "trade_count": row["trade_count"],
            "trials": row["n_trials"],
            "engine": row["engine"],
            **({scheme: rounded(row["scores"][scheme])} if scheme else {}),
            "fails": ", ".join(n for n, passed in row["gates"].items() if not passed) or "nothing",
            "asset_is": ", ".join(row["identity"]),
        }
        for row in ranked[:limit]
    ]


def _short_rows(stored: StoredBoard, limit: int) -> list[dict[str, str]]:
    """The best runs in the five columns that Dagster's pages show uncut, as text."""
    ranked = [row for row in stored.rows if row["rank"]]
    return [
        {
            "run": f"{row['signal_name']} {row['symbol']}|{row['tf']}",
            "Sharpe": written(row["sharpe"], "ratio"),
            "deflated": written(row["dsr"], "percent"),
            "drawdown": written(row["max_drawdown"], "percent"),
            "fails": ", ".join(n for n, passed in row["gates"].items() if not passed) or "nothing",
        }
        for row in ranked[:limit]
    ]


def leaderboard_summary(stored: StoredBoard) -> Summary:
    """Numbers of ranked and passing runs, the ten best, and reasons for missing ranks."""
    about = stored.about
    reasons = pd.Series([r["unranked"] for r in stored.rows if r["unranked"]]).value_counts()
    return Summary(
        {
            "ranked": about["n_ranked"],
            "passed_all_gates": about["n_passed"],
            "gate_set": about["gate_set"],
            "registered_after_results": about["registered_after_results"],
            "open_gate_sets": len(about["open_gate_sets"]),
            "is_new": stored.is_new,
            "followed_by_vectorbt": rounded(stored.agreement.followed),
            "waiting_for_vectorbt": stored.agreement.waiting,
            "worst_difference_to_vectorbt": stored.agreement.worst,
            "differ_from_vectorbt": stored.agreement.differs,
        },
        {
            "best_by_significance": _short_rows(stored, limit=10),
            "gate_sets_not_shown": [{"gate_set": name} for name in stored.gate_sets_not_shown],
            "runs_that_differ_from_vectorbt": [
                {"run": name} for name in stored.agreement.disagreeing
            ],
            "not_followed_by_vectorbt": [
                {"reason": why, "runs": n} for why, n in stored.agreement.not_followed.items()
            ],
            "unranked": [{"reason": str(r), "runs": int(n)} for r, n in reasons.items()],
        },
    )
