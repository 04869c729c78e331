"""Partitions whose newest bar is too old are named, each by its own timeframe."""

from dataclasses import replace

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.freshness import freshness
from backtest_pipeline.pipeline.use_cases.refresh import refresh_features
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline_tests.pipeline.markets import us, whole


def test_a_partition_is_late_when_it_lacks_the_last_two_bars(workspace: Workspace) -> None:
    partitions = [Partition("S-ALPHA", "1D"), Partition("S-ALPHA", "1W"), Partition("S-MU", "1D")]
    list(refresh_features(workspace, replace(whole(), synthetic=False), partitions))
    with workspace.database.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO asset_identity (id, tf, trait, first_ts, last_ts, detail, related)"
            " SELECT id, '1D', 'ended', first_ts, last_ts, 'delisted', '' FROM dataset_versions"
            " JOIN dim_assets USING (id) WHERE dataset = 'bars' AND symbol = 'S-MU'"
        )

    def late(day: str) -> dict[str, float]:
        return {str(p): days for p, days in freshness(workspace, us(day)).late.items()}

    assert freshness(workspace, us("2026-01-01")).delisted == ("S-MU",)
    assert freshness(workspace, us("2026-01-01")).partitions == 2
    assert late("2026-01-02") == {}
    assert late("2026-01-03") == {"S-ALPHA|1D": 2.0}
    assert set(late("2026-01-13")) == {"S-ALPHA|1D", "S-ALPHA|1W"}


def test_the_synthetic_market_is_not_looked_at(refreshed: Workspace) -> None:
    assert freshness(refreshed, us("2027-01-01")).partitions == 0
