"""The rows of assets that are taken away altogether."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

_OF_ASSETS = (
    *("signals", "signal_state", "cmc_features", "cmc_ema_multi_tf_u", "feature_checkpoints"),
    *(
        "external_watermarks",
        "source_states",
        "restatements",
        "walk_forward_folds",
        "portfolio_weights",
    ),
    *("data_quality", "asset_identity", "dataset_versions", "dataset_snapshots"),
)
_BY_SYMBOL = ("trials",)


def assets_of_source(connection: Connection, source: str) -> dict[str, int]:
    """The synthetic assets of a source: id by symbol."""
    rows = connection.execute(
        text("SELECT symbol, id FROM dim_assets WHERE is_synthetic AND source = :source"),
        {"source": source},
    )
    return {row.symbol: row.id for row in rows}


def capture_assets(connection: Connection, assets: Mapping[str, int]) -> None:
    """Mark all runs of these assets, and delete what holds any of them.

    That is portfolios, boards and plan books.

    Nobody reads the runs any more; `run_tables.retention.delete_captured` deletes them.
    """
    given = {"ids": list(assets.values()), "symbols": list(assets)}
    connection.execute(
        text("""
            WITH RECURSIVE gone AS (
                SELECT run_id FROM backtest_runs WHERE id = ANY(:ids) OR symbols && :symbols
                UNION
                SELECT p.run_id FROM portfolio_runs p
                JOIN gone g ON g.run_id = ANY (p.member_run_ids)
            )
            DELETE FROM portfolio_runs WHERE run_id IN (SELECT run_id FROM gone)
        """),
        given,
    )
    connection.execute(
        text("""
            DELETE FROM leaderboards WHERE board_id IN (
                SELECT board_id FROM leaderboard JOIN dim_assets USING (symbol)
                WHERE id = ANY(:ids))
        """),
        given,
    )
    connection.execute(
        text("DELETE FROM dataset_versions WHERE id = ANY(:ids)"),
        given,
    )
    connection.execute(
        text("""
            UPDATE backtest_runs SET deleting_since = now()
            WHERE (id = ANY(:ids) OR symbols && :symbols) AND deleting_since IS NULL
        """),
        given,
    )
    connection.execute(text("DELETE FROM plan_books WHERE symbols && :symbols"), given)


def delete_assets(connection: Connection, assets: dict[str, int]) -> None:
    """Delete the assets, and every row of theirs; their runs have to be gone."""
    for table in _OF_ASSETS:
        connection.execute(
            text(f"DELETE FROM {table} WHERE id = ANY(:ids)"),  # noqa: S608 - our own literals
            {"ids": list(assets.values())},
        )
    for table in _BY_SYMBOL:
        connection.execute(
            text(f"DELETE FROM {table} WHERE symbol = ANY(:symbols)"),  # noqa: S608
            {"symbols": list(assets)},
        )
    connection.execute(
        text("DELETE FROM dim_assets WHERE id = ANY(:ids)"), {"ids": list(assets.values())}
    )
