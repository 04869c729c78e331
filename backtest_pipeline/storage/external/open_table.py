"""The user's own table of features, opened as the settings say."""

from __future__ import annotations

from backtest_pipeline.market.errors import BacktestError, ConfigurationError
from backtest_pipeline.storage.external.probe import FeatureTable, probe
from backtest_pipeline.storage.postgres.database import FEATURES_DSN, Database, connect_database
from backtest_pipeline.storage.settings import Settings


def open_table(settings: Settings, store: Database) -> FeatureTable:
    """The table that the settings name, on read-only connections of its own.

    Args:
        settings: naming a table of features.
        store: the open store, which the table lies beside where no other database is named.

    Raises:
        ConfigurationError: where no table is named.
        TableDrift: where what is named is not as it must be.
        StoreUnavailable, StoreError: where the database does not answer.
    """
    names, dsn = settings.external, settings.features_dsn
    if names is None:
        raise ConfigurationError(
            "features are built here; set BACKTEST_FEATURES_TABLE to read a table of your own"
        )
    if dsn is None:
        database = connect_database(store.conninfo, read_only=True)
    else:
        database = connect_database(dsn.get_secret_value(), variable=FEATURES_DSN, read_only=True)
    try:
        return probe(database, names, joined=dsn is None)
    except BacktestError:
        database.close()
        raise
