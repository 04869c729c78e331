"""A table of features such as a user has, made by the server: 112 columns, two more in the key."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import Connection, sql

from backtest_pipeline.market.features import FEATURE_COLUMNS, FEATURES

ALIGNMENT, VENUE = "multi_tf", 1
_WARM_UP = {feature.name: feature.rows for feature in FEATURES}
_MADE = {
    "id": "id",
    "ts": "timestamptz '2016-01-01 00:00+00' + n * tf_days * interval '1 day' - interval '1 ms'",
    "tf": "tf",
    "tf_days": "tf_days",
    "asset_class": "'crypto'",
    "open": "open",
    "high": "greatest(open, close) * (1 + 0.02 * random())",
    "low": "least(open, close) * (1 - 0.02 * random())",
    "close": "close",
    "volume": "1e6 * random()",
    "gap_bars": "0",
    "atr_14": "CASE WHEN n > 15 THEN 0.03 * close END",
    "updated_at": "now()",
}


def make_external_table(
    connection: Connection,
    schema: str = "theirs",
    table: str = "features",
    *,
    assets: int,
    rows: int,
    timeframes: Sequence[tuple[str, int]] = (("1D", 1),),
) -> None:
    """Create `schema.table` with random walks, and features that are NULL while they warm up.

    Args:
        connection: of the owner; the table is committed.
        schema, table: names; the schema is created where it is missing.
        assets: how many, with ids from 1 on.
        rows: of each asset and timeframe.
        timeframes: name and days of each.
    """
    name = sql.Identifier(schema, table)
    columns = [*FEATURE_COLUMNS, ("alignment_source", "TEXT"), ("venue_id", "INTEGER")]
    values = [_value(column, kind) for column, kind in FEATURE_COLUMNS]
    values += [sql.Literal(ALIGNMENT), sql.Literal(VENUE)]
    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    connection.execute(
        sql.SQL("CREATE TABLE {} ({})").format(
            name,
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind))  # pyright: ignore[reportArgumentType]
                for column, kind in columns
            ),
        )
    )
    connection.execute("SELECT setseed(0.42)")
    for tf, days in timeframes:
        connection.execute(
            sql.SQL("""
                WITH steps AS (
                    SELECT id, n, {tf}::text AS tf, {days}::int AS tf_days, 100 * exp(0.05 * sum(
                        random() + random() + random() - 1.5) OVER (PARTITION BY id ORDER BY n)
                    ) AS close
                    FROM generate_series(1, {assets}) id, generate_series(1, {rows}) n
                ), bars AS (
                    SELECT *, coalesce(lag(close) OVER (PARTITION BY id ORDER BY n), close) AS open
                    FROM steps
                )
                INSERT INTO {name} SELECT {values} FROM bars
            """).format(
                tf=sql.Literal(tf),
                days=sql.Literal(days),
                assets=sql.Literal(assets),
                rows=sql.Literal(rows),
                name=name,
                values=sql.SQL(", ").join(values),
            )
        )
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id, ts, tf, alignment_source, venue_id)").format(
            name
        )
    )
    connection.commit()
    connection.autocommit = True
    connection.execute(sql.SQL("VACUUM ANALYZE {}").format(name))


def grant_reading(connection: Connection, role: str, password: str, schema: str = "theirs") -> None:
    """Create a role that may log in and read the tables of the schema, and nothing else."""
    who, where = sql.Identifier(role), sql.Identifier(schema)
    connection.execute(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(who, sql.Literal(password))
    )
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(where, who))
    connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(where, who))
    connection.commit()


def _value(column: str, kind: str) -> sql.Composable:
    if column in _MADE:
        return sql.SQL(_MADE[column])  # pyright: ignore[reportArgumentType]
    made = "random() < 0.02" if kind == "BOOLEAN" else "100 * random()"
    return sql.SQL("CASE WHEN n > {} THEN {} END").format(
        sql.Literal(_WARM_UP[column]),
        sql.SQL(made),  # pyright: ignore[reportArgumentType]
    )
