"""Checks the external tables once, when they are opened.

Real tables differ in their name, in columns added to the key, and in additional columns. All of
that is accepted if it is configured, and nothing is guessed: a key column without a filter would
silently duplicate rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.exc import DataError

from backtest_pipeline.market.errors import TableDrift, UnknownName
from backtest_pipeline.market.features import READ_COLUMNS, is_given_by_bars
from backtest_pipeline.storage.external.names import ExternalNames
from backtest_pipeline.storage.postgres.database import Database

KNOWN_KEYS = ("alignment_source", "venue_id")
"""Key columns of known tables; they need a filter even if no unique index contains them."""

FIRST_STAMP, LAST_STAMP = "1900-01-01 00:00+00", "2262-01-01 00:00+00"
"""Of bars; what is outside, such as infinity, is nobody's market."""

_KEY = ("id", "ts", "tf")
_INTEGERS = ("smallint", "integer", "bigint")
_NUMBERS = (*_INTEGERS, "double precision", "real", "numeric")
_TEXTS = ("text", "character varying")
_STAMP = "timestamp with time zone"
_KEY_TYPES = {"id": _INTEGERS, "ts": (_STAMP,), "tf": _TEXTS}
_SHOWN = 20


@dataclass(frozen=True)
class Relation:
    """One external table.

    Attributes:
        name: its name, for messages.
        identifier: its quoted name.
        columns: type of each column, in order.
        filtered: the filters that apply, as SQL; TRUE without any.
    """

    name: str
    identifier: sql.Identifier = field(repr=False)
    columns: Mapping[str, str] = field(repr=False)
    filtered: sql.Composable = field(repr=False)

    @property
    def condition(self) -> sql.Composable:
        """The filters, of rows that have a stamp and an id that can be used."""
        return sql.SQL("({} AND {})").format(self.filtered, self.usable)

    @property
    def usable(self) -> sql.Composable:
        """Whether a row's stamp is one of the calendar, and its id one that an asset can have."""
        if "ts" not in self.columns or "id" not in self.columns:
            return sql.SQL("TRUE")
        by_id = (
            " AND id BETWEEN -2147483648 AND 2147483647" if self.columns["id"] == "bigint" else ""
        )
        return sql.SQL(f"(ts >= '{FIRST_STAMP}' AND ts < '{LAST_STAMP}' AND id IS NOT NULL{by_id})")


@dataclass(frozen=True)
class FeatureTable:
    """The external feature table with its EMA and asset tables; never written to.

    Attributes:
        database: its database, with read-only sessions.
        features: the table itself.
        keys: key columns other than id, ts and tf.
        emas: the EMA table; None if EMAs are computed from closes.
        assets: the table with the symbols of assets; None without one.
        filters: the configured filters.
        joined: whether the store's own sessions can reach it, so that both can be joined.
    """

    database: Database
    features: Relation
    keys: tuple[str, ...]
    emas: Relation | None
    assets: Relation | None
    filters: Mapping[str, tuple[str, ...]]
    joined: bool

    @property
    def stamped(self) -> bool:
        """Whether rows have an `updated_at` timestamp of when they were written."""
        return self.features.columns.get("updated_at") == _STAMP

    @property
    def own_columns(self) -> tuple[str, ...]:
        """Its numeric and boolean columns that are neither key nor feature, sorted."""
        apart = (*_KEY, "tf_days", *self.keys)
        return tuple(
            sorted(
                name
                for name, kind in self.features.columns.items()
                if kind in (*_NUMBERS, "boolean")
                and name not in apart
                and not is_given_by_bars(name)
            )
        )

    @property
    def identity(self) -> str:
        """The table and its filters as text: the same for the same configuration."""
        filters = ",".join(f"{name}={'|'.join(v)}" for name, v in sorted(self.filters.items()))
        return f"{self.features.name}[{filters}]"

    def close(self) -> None:
        """Close the connections."""
        self.database.close()


def probe(database: Database, names: ExternalNames, *, joined: bool) -> FeatureTable:
    """Check the configured tables.

    Args:
        database: their database, whose sessions should be read-only.
        names: their names and the filters.
        joined: whether the store's own sessions can reach the database.

    Raises:
        TableDrift: for a missing or wrong table, column, type, filter or privilege, with what
            exists instead.
        StoreUnavailable, StoreError: where the database does not respond.
    """
    with database.begin() as connection:
        features = _relation(connection, "BACKTEST_FEATURES_TABLE", names.features, names.filters)
        if joined:
            _refuse_own(connection, features)
        _require(features, _KEY_TYPES | dict.fromkeys(READ_COLUMNS, _NUMBERS))
        _refuse_unknown_filters(features, names.filters)
        keys = _keys(connection, features, _KEY)
        _require_filters(connection, features, keys, names.filters)
        emas = assets = None
        if names.emas:
            emas = _relation(connection, "BACKTEST_FEATURES_EMA_TABLE", names.emas, names.filters)
            _require(emas, _KEY_TYPES | {"period": _INTEGERS, "ema": _NUMBERS})
            ema_keys = _keys(connection, emas, (*_KEY, "period"))
            _require_filters(connection, emas, ema_keys, names.filters)
        if names.assets:
            assets = _relation(connection, "BACKTEST_FEATURES_ASSETS_TABLE", names.assets, {})
            _require(assets, {"id": _INTEGERS, "symbol": _TEXTS})
    return FeatureTable(database, features, keys, emas, assets, names.filters, joined)


def _relation(
    connection: sa.Connection,
    variable: str,
    parts: Sequence[str],
    filters: Mapping[str, tuple[str, ...]],
) -> Relation:
    name, identifier = ".".join(parts), sql.Identifier(*parts)
    oid = connection.scalar(
        sa.text("SELECT to_regclass(:name)::oid"), {"name": identifier.as_string()}
    )
    if oid is None:
        unknown = UnknownName("table", name, _tables(connection))
        raise TableDrift(f"{variable}: {unknown}; write table or schema.table with its exact case")
    if not connection.scalar(
        sa.text("SELECT has_any_column_privilege(CAST(:oid AS oid), 'SELECT')"), {"oid": oid}
    ):
        role = connection.scalar(sa.text("SELECT current_user"))
        raise TableDrift(
            f"{variable}: the role {role!r} may not read {name}; "
            f"GRANT SELECT ON {identifier.as_string()} TO {sql.Identifier(str(role)).as_string()}"
        )
    rows = connection.execute(
        sa.text(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        ),
        {"oid": oid},
    )
    columns = {row[0]: row[1] for row in rows}
    conditions = [
        sql.SQL("{} IN ({})").format(
            sql.Identifier(column), sql.SQL(", ").join(sql.Literal(value) for value in values)
        )
        for column, values in filters.items()
        if column in columns
    ]
    condition = sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("TRUE")
    return Relation(name, identifier, columns, condition)


def _tables(connection: sa.Connection) -> list[str]:
    """Tables and views that the role may read, spelled as in the setting."""
    rows = connection.execute(
        sa.text("""
            SELECT CASE WHEN pg_table_is_visible(c.oid) THEN c.relname
                        ELSE n.nspname || '.' || c.relname END
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^(pg_|information_)'
              AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
        """)
    )
    return list(rows.scalars())


def _refuse_own(connection: sa.Connection, features: Relation) -> None:
    same = connection.scalar(
        sa.text("SELECT to_regclass(:name) = to_regclass('cmc_features')"),
        {"name": features.identifier.as_string()},
    )
    if same:
        raise TableDrift(
            f"BACKTEST_FEATURES_TABLE: {features.name} is the table that this project builds; give"
            " the schema of your own table, or unset the variable to build features from bars"
        )


def _require(relation: Relation, required: Mapping[str, Sequence[str]]) -> None:
    """Raise TableDrift for columns that are missing or of the wrong type, all in one message."""
    problems = []
    for name, types in required.items():
        if name not in relation.columns:
            problems.append(str(UnknownName("column", name, relation.columns)))
        elif relation.columns[name] not in types:
            problems.append(f"column {name} is {relation.columns[name]}, not {' or '.join(types)}")
    if problems:
        raise TableDrift(
            f"{relation.name}: {'; '.join(problems)}; configure a view with the columns of"
            " docs/features.md instead, so that the table need not change"
        )


def _refuse_unknown_filters(relation: Relation, filters: Mapping[str, tuple[str, ...]]) -> None:
    for column in filters:
        if column not in relation.columns:
            unknown = UnknownName("column", column, relation.columns)
            raise TableDrift(f"BACKTEST_FEATURES_FILTERS: {relation.name}: {unknown}")


def _keys(connection: sa.Connection, relation: Relation, key: Sequence[str]) -> tuple[str, ...]:
    """Further key columns: those of unique indexes, and those in KNOWN_KEYS."""
    rows = connection.execute(
        sa.text("""
            SELECT array_agg(a.attname::text)
            FROM pg_index i JOIN pg_attribute a
                ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
            WHERE i.indrelid = to_regclass(:name) AND i.indisunique AND i.indisvalid
              AND i.indpred IS NULL AND i.indexprs IS NULL
            GROUP BY i.indexrelid
        """),
        {"name": relation.identifier.as_string()},
    )
    # An index without the whole key, such as one on a row number, says nothing about it.
    unique = [set(columns) for columns in rows.scalars() if set(key) <= set(columns)]
    in_index = set() if set(key) in unique else {c for index in unique for c in index} - set(key)
    known = set(KNOWN_KEYS) & set(relation.columns)
    return tuple(name for name in relation.columns if name in in_index | known)


def _require_filters(
    connection: sa.Connection,
    relation: Relation,
    keys: Sequence[str],
    filters: Mapping[str, tuple[str, ...]],
) -> None:
    missing = [column for column in keys if column not in filters]
    if missing:
        values = "; ".join(f"{c} holds {_values(connection, relation, c)}" for c in missing)
        raise TableDrift(
            f"{relation.name}: the key has {', '.join(missing)} besides id, ts and tf, but no"
            f" filter selects their values ({values}); set BACKTEST_FEATURES_FILTERS, such as"
            f" {','.join(f'{column}=...' for column in missing)}"
        )
    for column in filters:
        if column in relation.columns:
            _require_values(connection, relation, column, filters[column])


def _require_values(
    connection: sa.Connection, relation: Relation, column: str, values: Sequence[str]
) -> None:
    for value in values:
        query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} = {})").format(
            relation.identifier, sql.Identifier(column), sql.Literal(value)
        )
        # A value that does not fit the column's type fails only the nested transaction.
        try:
            with connection.begin_nested():
                exists = connection.exec_driver_sql(query.as_string().replace("%", "%%")).scalar()
        except DataError:
            exists = False
        if not exists:
            raise TableDrift(
                f"BACKTEST_FEATURES_FILTERS: {relation.name} has no row with {column}={value};"
                f" use one of its values: {_values(connection, relation, column)}"
            )


def _values(connection: sa.Connection, relation: Relation, column: str) -> str:
    query = sql.SQL("SELECT DISTINCT {}::text FROM {} LIMIT {}").format(
        sql.Identifier(column), relation.identifier, sql.Literal(_SHOWN)
    )
    text = query.as_string().replace("%", "%%")
    values = sorted(str(value) for value in connection.exec_driver_sql(text).scalars())
    return ", ".join(values) or "nothing"
