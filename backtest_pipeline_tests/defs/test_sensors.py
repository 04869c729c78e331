"""Portfolios are asked for where backtests were stored, and nowhere else."""

from collections.abc import Sequence

import dagster as dg

from backtest_pipeline.defs.partitions import RANGE_END, RANGE_START
from backtest_pipeline.defs.sensors import BACKTESTS, portfolio_rollups_after_backtests


def stored(instance: dg.DagsterInstance, *keys: str) -> None:
    for key in keys:
        instance.report_runless_asset_event(dg.AssetMaterialization(BACKTESTS, partition=key))


def tick(
    instance: dg.DagsterInstance, cursor: str | None = None
) -> tuple[Sequence[tuple[str, str]], Sequence[str | None], str | None]:
    """The ranges that are asked for, their run keys, and the cursor."""
    context = dg.build_sensor_context(instance, cursor)
    result = portfolio_rollups_after_backtests(context)
    if isinstance(result, dg.SkipReason):
        return [], [], cursor
    assert isinstance(result, dg.SensorResult)
    requests = result.run_requests or []
    ranges = [(r.tags[RANGE_START], r.tags[RANGE_END]) for r in requests]
    return ranges, [r.run_key for r in requests], result.cursor


def test_the_timeframes_that_were_stored_are_rolled_up_once(instance: dg.DagsterInstance) -> None:
    assert tick(instance)[0] == []
    stored(instance, "S-ALPHA|1D", "S-BETA|1D", "S-ALPHA|1W")
    ranges, keys, cursor = tick(instance)
    assert ranges == [("1D", "1D"), ("1W", "1W")]
    assert tick(instance, cursor)[0] == []
    stored(instance, "S-ALPHA|1W")
    ranges, again, _ = tick(instance, cursor)
    assert ranges == [("1W", "1W")]
    assert not set(again) & set(keys)


def test_portfolios_wait_for_the_run_that_stores_backtests(instance: dg.DagsterInstance) -> None:
    asked: list[object] = []

    @dg.op(out=dg.Out(dg.Nothing))
    def storing(context: dg.OpExecutionContext) -> None:
        context.log_event(dg.AssetMaterialization(BACKTESTS, partition="S-ALPHA|1D"))

    @dg.op(ins={"before": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
    def after(context: dg.OpExecutionContext) -> None:
        asked.append(tick(context.instance)[0])

    @dg.job
    def refreshing() -> None:
        after(storing())

    assert refreshing.execute_in_process(instance=instance).success
    assert asked == [[]]
    assert tick(instance)[0] == [("1D", "1D")]
