"""Cross-sections are asked for each night where there are some, and something to rank."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from backtest_pipeline.defs.partitions import RANGE_END, RANGE_START, register_partitions
from backtest_pipeline.defs.schedules import nightly_cross_sections
from backtest_pipeline.defs.sensors import BACKTESTS
from backtest_pipeline_tests.own_strategies import own_strategies

RULES = 'kind = "cross_section"\nname = "strength"\nscore = "rsi_14"\ncount = 1\n'


def tick(instance: dg.DagsterInstance) -> list[tuple[str, str]] | str:
    """The ranges that are asked for, or why there are none."""
    with dg.build_schedule_context(
        instance,
        scheduled_execution_time=datetime(2026, 1, 5, 2, tzinfo=UTC),
        instance_ref=instance.get_ref(),
    ) as context:
        found = nightly_cross_sections.evaluate_tick(context)
    requests = found.run_requests or []
    assert len({request.run_key for request in requests}) == len(requests)
    ranges = [(r.tags[RANGE_START], r.tags[RANGE_END]) for r in requests]
    return ranges or found.skip_message or ""


def test_cross_sections_are_asked_for_where_two_assets_are_stored(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    with dg.instance_for_test() as instance, own_strategies(folder) as own:
        register_partitions(instance, ["A", "B"], ["1D", "2D", "1W"])
        assert tick(instance) == "the folder of strategies has no cross-section"
        (own / "strength.toml").write_text(RULES)
        (own / "strength.toml").chmod(0o644)
        assert str(tick(instance)).startswith("no timeframe has stored backtests of two assets")
        for key in ("A|1D", "B|1D", "A|2D", "A|1W", "B|1W", "C|1W"):
            event = dg.AssetMaterialization(BACKTESTS, partition=key)
            instance.report_runless_asset_event(event)
        assert tick(instance) == [("1D", "1D"), ("1W", "1W")]
