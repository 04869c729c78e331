"""The assets that the store knows (`dim_assets`) and the signals to run (`dim_signals`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.sources.base import AssetInfo


def register_assets(
    connection: Connection, assets: Iterable[AssetInfo], source: str
) -> dict[str, int]:
    """Make assets known under an id each; returns the ids by symbol.

    Raises:
        InvalidInput: where a source gives an asset another id than the one it is known by: that
            is another asset with the same ticker.
    """
    rows = [
        {
            "symbol": a.symbol,
            "id": a.asset_id,
            "name": a.name,
            "asset_class": a.asset_class,
            "source": source,
            "is_synthetic": a.synthetic,
        }
        for a in sorted(assets, key=lambda a: a.symbol)
    ]
    if not rows:
        return {}
    connection.execute(
        text("""
            INSERT INTO dim_assets AS d (id, symbol, name, asset_class, source, is_synthetic)
            VALUES (coalesce(CAST(:id AS int), nextval('asset_id_seq')), :symbol, :name,
                    :asset_class, :source, :is_synthetic)
            ON CONFLICT (symbol) DO UPDATE SET
                name = excluded.name, asset_class = excluded.asset_class,
                source = excluded.source, is_synthetic = excluded.is_synthetic
            WHERE (d.name, d.asset_class, d.source, d.is_synthetic) IS DISTINCT FROM
                  (excluded.name, excluded.asset_class, excluded.source, excluded.is_synthetic)
        """),
        rows,
    )
    ids = asset_ids(connection, [row["symbol"] for row in rows])
    for row in rows:
        if row["id"] is not None and ids[row["symbol"]] != row["id"]:
            raise InvalidInput(
                f"asset {row['symbol']} is known by id {ids[row['symbol']]}, but {source} gives it "
                f"{row['id']}: that is another asset; rename it in the source"
            )
    return ids


def asset_ids(connection: Connection, symbols: Sequence[str]) -> dict[str, int]:
    """Ids by symbol, for those that are known."""
    rows = connection.execute(
        text("SELECT symbol, id FROM dim_assets WHERE symbol = ANY(:symbols)"),
        {"symbols": list(symbols)},
    )
    return {row.symbol: row.id for row in rows}


def known_symbols(connection: Connection) -> tuple[str, ...]:
    """All assets that the store knows, sorted."""
    return tuple(
        connection.execute(text("SELECT symbol FROM dim_assets ORDER BY symbol")).scalars()
    )


@dataclass(frozen=True)
class SignalRow:
    """One row of `dim_signals`: a strategy with its parameters."""

    signal_id: int
    name: str
    signal_type: str
    params: dict[str, Any]


def active_signals(connection: Connection) -> tuple[SignalRow, ...]:
    """The signals that a refresh computes, by id."""
    rows = connection.execute(
        text("""
            SELECT signal_id, name, signal_type, params FROM dim_signals
            WHERE is_active ORDER BY signal_id
        """)
    )
    return tuple(SignalRow(*row) for row in rows)


def find_signal(signals: Sequence[SignalRow], name: str) -> SignalRow:
    """A signal by its name, its type, or the beginning of its type (`rsi`).

    Raises:
        UnknownName: with the nearest names.
    """
    for matches in (
        lambda s: s.name == name,
        lambda s: s.signal_type == name,
        lambda s: s.signal_type.split("_")[0] == name,
    ):
        for signal in signals:
            if matches(signal):
                return signal
    raise UnknownName("signal", name, [s.name for s in signals] + [s.signal_type for s in signals])
