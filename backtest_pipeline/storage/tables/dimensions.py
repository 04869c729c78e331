"""The rows of `dim_assets` and `dim_signals`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import sqlalchemy as sa

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.sources.base import AssetInfo

_FIRST_ON_DEMAND = 100_001  # as in the sequence of 01_dimensions.sql
_LONGEST_NAME = 100
_SYNTHETIC = "SELECT symbol FROM dim_assets WHERE is_synthetic AND symbol = ANY(:symbols)"
REAL_RUNS = """EXISTS (
    SELECT FROM dataset_versions v JOIN dim_assets real USING (id)
    WHERE v.dataset = 'backtests' AND NOT real.is_synthetic)"""
"""Whether the store has runs of an asset that is not synthetic."""
LEFT_OUT = f"SELECT symbol FROM dim_assets WHERE is_synthetic AND {REAL_RUNS}"  # noqa: S608 - our own
"""The symbols that stay out of what is made of many assets: the synthetic ones beside real runs."""


def register_assets(
    connection: sa.Connection, assets: Iterable[AssetInfo], source: str
) -> dict[str, int]:
    """Register assets, each under an id; returns the ids by symbol.

    Raises:
        InvalidInput: if a source gives a known symbol a different id, which means that it is a
            different asset with the same ticker.
    """
    rows = sorted(assets, key=lambda a: a.symbol)
    if not rows:
        return {}
    connection.execute(
        sa.text("""
            INSERT INTO dim_assets AS d (id, symbol, name, asset_class, source, is_synthetic)
            SELECT coalesce(u.id, nextval('asset_id_seq')), symbol, name, asset_class, :source,
                   is_synthetic
            FROM unnest(CAST(:ids AS int[]), CAST(:symbols AS text[]), CAST(:names AS text[]),
                        CAST(:classes AS text[]), CAST(:synthetic AS bool[]))
                 AS u (id, symbol, name, asset_class, is_synthetic)
            ON CONFLICT (symbol) DO UPDATE SET
                name = excluded.name, asset_class = excluded.asset_class,
                source = excluded.source, is_synthetic = excluded.is_synthetic
            WHERE (d.name, d.asset_class, d.source, d.is_synthetic) IS DISTINCT FROM
                  (excluded.name, excluded.asset_class, excluded.source, excluded.is_synthetic)
        """),
        {
            "source": source,
            "ids": [a.asset_id for a in rows],
            "symbols": [a.symbol for a in rows],
            "names": [a.name for a in rows],
            "classes": [a.asset_class for a in rows],
            "synthetic": [a.synthetic for a in rows],
        },
    )
    ids = known_ids(connection, [a.symbol for a in rows])
    for asset in rows:
        if asset.asset_id is not None and ids[asset.symbol] != asset.asset_id:
            raise InvalidInput(
                f"asset {asset.symbol} is stored with id {ids[asset.symbol]}, but {source} gives "
                f"it id {asset.asset_id}, so it is a different asset; rename it in the source"
            )
    return ids


def asset_ids(connection: sa.Connection, symbols: Sequence[str]) -> dict[str, int]:
    """The id of each symbol, in the given order; raises UnknownName for an unknown symbol."""
    stored = known_ids(connection, symbols)
    for symbol in symbols:
        if symbol not in stored:
            raise UnknownName("asset", symbol, known_symbols(connection))
    return {symbol: stored[symbol] for symbol in symbols}


def known_symbols(connection: sa.Connection) -> tuple[str, ...]:
    """All stored symbols, sorted."""
    query = sa.text("SELECT symbol FROM dim_assets ORDER BY symbol")
    return tuple(connection.execute(query).scalars())


def asset_spans(connection: sa.Connection, dataset: str) -> list[dict[str, Any]]:
    """The assets with stored rows of a dataset, with their timeframes and first and last bar.

    Args:
        connection: any transaction.
        dataset: `bars` or `features`.
    """
    rows = connection.execute(
        sa.text("""
            SELECT a.symbol, a.is_synthetic,
                   array_agg(v.tf ORDER BY t.tf_days_nominal, t.tf) AS timeframes,
                   min(v.first_ts) AS first_ts, max(v.last_ts) AS last_ts
              FROM dataset_versions v JOIN dim_assets a USING (id) JOIN dim_timeframe t USING (tf)
             WHERE v.dataset = :dataset AND v.n_rows > 0
             GROUP BY a.symbol, a.is_synthetic ORDER BY a.symbol
        """),
        {"dataset": dataset},
    )
    return [
        {
            "asset": row.symbol,
            "synthetic": row.is_synthetic,
            "timeframes": list(row.timeframes),
            "first_ts": row.first_ts.astimezone(UTC).isoformat(),
            "last_ts": row.last_ts.astimezone(UTC).isoformat(),
        }
        for row in rows
    ]


def known_ids(connection: sa.Connection, symbols: Sequence[str]) -> dict[str, int]:
    """The id of each symbol that has one."""
    query = sa.text("SELECT symbol, id FROM dim_assets WHERE symbol = ANY(:symbols)")
    return {row.symbol: row.id for row in connection.execute(query, {"symbols": list(symbols)})}


def synthetic_among(connection: sa.Connection, symbols: Sequence[str]) -> list[str]:
    """The symbols with synthetic bars."""
    rows = connection.execute(
        sa.text(_SYNTHETIC),
        {"symbols": list(symbols)},
    )
    return list(rows.scalars())


def synthetic_beside_real(connection: sa.Connection, symbols: Sequence[str]) -> set[str]:
    """The symbols with synthetic bars, if the store has runs of real assets; else none."""
    rows = connection.execute(
        sa.text(f"{LEFT_OUT} AND symbol = ANY(:symbols)"),
        {"symbols": list(symbols)},
    )
    return set(rows.scalars())


@dataclass(frozen=True)
class SignalRow:
    """One row of `dim_signals`: a strategy with its parameters."""

    signal_id: int
    name: str
    strategy: str
    params: dict[str, Any]


def active_signals(connection: sa.Connection) -> tuple[SignalRow, ...]:
    """The presets that a refresh computes, in order of id."""
    rows = connection.execute(
        sa.text("""
            SELECT signal_id, name, strategy, params FROM dim_signals
            WHERE is_active ORDER BY signal_id
        """)
    )
    return tuple(SignalRow(*row) for row in rows)


@dataclass(frozen=True)
class PresetRow(SignalRow):
    """A preset, active or not, and the file or package that declares it."""

    is_active: bool
    declared_by: str | None


def all_presets(connection: sa.Connection) -> tuple[PresetRow, ...]:
    """All presets, in order of id, without the parameters that only ran on demand."""
    rows = connection.execute(
        sa.text(f"""
            SELECT signal_id, name, strategy, params, is_active, declared_by FROM dim_signals
            WHERE signal_id < {_FIRST_ON_DEMAND} OR is_active OR declared_by IS NOT NULL
            ORDER BY signal_id
        """)  # noqa: S608
    )
    return tuple(PresetRow(*row) for row in rows)


def add_preset(
    connection: sa.Connection,
    name: str,
    strategy: str,
    params: Mapping[str, Any],
    declared_by: str | None = None,
) -> None:
    """Add an active preset; nothing happens where one of this name was added meanwhile."""
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('presets'))"))
    connection.execute(
        sa.text(f"""
            INSERT INTO dim_signals (signal_id, name, strategy, params, declared_by)
            SELECT 1 + coalesce(max(signal_id), 0), :name, :strategy, CAST(:params AS jsonb), :by
              FROM dim_signals WHERE signal_id < {_FIRST_ON_DEMAND}
            ON CONFLICT (name) DO NOTHING
        """),  # noqa: S608
        {
            "name": name,
            "strategy": strategy,
            "params": json.dumps(params, allow_nan=False),
            "by": declared_by,
        },
    )


def follow_declaration(
    connection: sa.Connection, name: str, params: Mapping[str, Any], declared_by: str | None
) -> None:
    """Give a preset the parameters of its declaration, and activate it."""
    connection.execute(
        sa.text("""
            UPDATE dim_signals
               SET params = CAST(:params AS jsonb), declared_by = :by, is_active = TRUE
             WHERE name = :name
        """),
        {"name": name, "params": json.dumps(params, allow_nan=False), "by": declared_by},
    )


def deactivate_preset(connection: sa.Connection, name: str) -> None:
    """Let refreshes compute a preset no more; its rows stay."""
    connection.execute(
        sa.text("UPDATE dim_signals SET is_active = FALSE WHERE name = :name"), {"name": name}
    )


def signal_with(connection: sa.Connection, strategy: str, params: Mapping[str, Any]) -> SignalRow:
    """The signal with these parameters that is not a preset, for runs on demand.

    It is created if missing, because runs refer to it.
    """
    params_json = json.dumps(params, allow_nan=False)
    values = ", ".join(f"{name}={value}" for name, value in params.items())
    name = f"{strategy}({values})"
    if len(name) > _LONGEST_NAME:
        name = f"{strategy}({hashlib.sha256(params_json.encode()).hexdigest()[:16]})"
    signal = _signal_with(connection, strategy, params_json)
    if signal is None:
        connection.execute(
            sa.text("""
                INSERT INTO dim_signals (signal_id, name, strategy, params, is_active)
                VALUES (nextval('asked_signal_id_seq'), :name, :type, CAST(:params AS jsonb), FALSE)
                ON CONFLICT (name) DO NOTHING
            """),
            {"name": name, "type": strategy, "params": params_json},
        )
        signal = _signal_with(connection, strategy, params_json)
    assert signal is not None  # noqa: S101  (just added, by this process or another)
    return signal


def _signal_with(connection: sa.Connection, strategy: str, params: str) -> SignalRow | None:
    row = connection.execute(
        sa.text("""
            SELECT signal_id, name, strategy, params FROM dim_signals
            WHERE strategy = :type AND params = CAST(:params AS jsonb) AND NOT is_active
            ORDER BY signal_id LIMIT 1
        """),
        {"type": strategy, "params": params},
    ).one_or_none()
    return None if row is None else SignalRow(*row)
