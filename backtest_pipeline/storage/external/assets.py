"""Symbols of the assets in the external table, which identifies them by id only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from psycopg import sql

from backtest_pipeline.market.errors import TableDrift
from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.postgres.database import Database

FIRST_OWN_ID = 100_001
"""First id that a store assigns itself; lower ids are CoinMarketCap's."""
SOURCE = "external"


@dataclass(frozen=True)
class KnownAsset:
    """An asset in the store: its id, its symbol, and the source that registered it."""

    id: int
    symbol: str
    source: str | None


def asset_names(store: Database, table: FeatureTable, ids: Iterable[int]) -> dict[int, str]:
    """The symbol of each id in the table; see `names_of`."""
    with store.begin() as connection:
        rows = connection.execute(sa.text("SELECT id, symbol, source FROM dim_assets")).all()
    return names_of(sorted(set(ids)), [KnownAsset(*row) for row in rows], _offered(table))


def names_of(
    ids: Iterable[int], known: Iterable[KnownAsset], offered: Mapping[int, str]
) -> dict[int, str]:
    """A permanent, unique symbol for each id.

    A known id keeps its symbol, because runs and partitions are named by it. A new id gets the key
    of its symbol in the external asset table, or `ID-<id>` if that has none. If another asset
    already has the symbol, it becomes `<symbol>-<id>`: two coins with one ticker are two assets.

    Raises:
        TableDrift: for an id that the store has assigned to an asset of another source.
    """
    symbol_of = {asset.id: asset for asset in known}
    taken = {asset.symbol for asset in symbol_of.values()}
    names: dict[int, str] = {}
    for id_ in sorted(ids):
        asset = symbol_of.get(id_)
        if asset is not None:
            if id_ >= FIRST_OWN_ID and asset.source != SOURCE:
                raise TableDrift(
                    f"the external feature table has id {id_}, which is {asset.symbol} from"
                    f" {asset.source} in this store; use a separate store for this table, for"
                    " example another schema in BACKTEST_POSTGRES_DSN"
                )
            names[id_] = asset.symbol
            continue
        name = _as_key(offered.get(id_), id_)
        if name in taken:
            name = _as_key(f"{name}-{id_}", id_)
        names[id_] = name
        taken.add(name)
    return names


def _as_key(symbol: str | None, id_: int) -> str:
    return key_of(symbol) if symbol else f"ID-{id_}"


def _offered(table: FeatureTable) -> dict[int, str]:
    if table.assets is None:
        return {}
    query = sql.SQL("SELECT id, symbol FROM {} WHERE symbol IS NOT NULL").format(
        table.assets.identifier
    )
    with table.database.begin() as connection:
        rows = connection.exec_driver_sql(query.as_string()).all()
    return {row[0]: str(row[1]).strip() for row in rows}
