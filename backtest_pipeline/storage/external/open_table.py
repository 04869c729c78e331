"""Opens the external feature table that the settings configure."""

from __future__ import annotations

from backtest_pipeline.market.errors import BacktestError, ConfigurationError
from backtest_pipeline.storage.external.probe import FeatureTable, probe
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline.storage.postgres.driver_errors import FEATURES_DSN
from backtest_pipeline.storage.settings import Settings


def open_table(settings: Settings, store: Database) -> FeatureTable:
    """Open the configured external table on separate read-only connections.

    Args:
        settings: settings with an external feature table.
        store: the open store, whose database holds the table unless another one is configured.

    Raises:
        ConfigurationError: where no table is configured.
        TableDrift: where a table does not have the required form.
        StoreUnavailable, StoreError: where the database does not respond.
    """
    names, dsn = settings.external, settings.features_dsn
    if names is None:
        raise ConfigurationError(
            "no external feature table is configured, so features are built from bars; set "
            "BACKTEST_FEATURES_TABLE to read your own table"
        )
    if dsn is None:
        database = connect_database(store.conninfo, read_only=True, revive=store.revive)
    else:
        database = connect_database(dsn.get_secret_value(), variable=FEATURES_DSN, read_only=True)
    try:
        return probe(database, names, joined=dsn is None)
    except BacktestError:
        database.close()
        raise
