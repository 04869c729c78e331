"""vectorbt follows every new run once, and names the one that differs."""

from __future__ import annotations

import pytest

from backtest_pipeline.pipeline.audits.engine_cross_check import second_opinion
from backtest_pipeline.pipeline.monitoring.counters import (
    ENGINE_CHECKS,
    ENGINE_DIFFERENCE,
    ENGINE_FOLLOWED,
    key_of,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.run_tables.engine_checks import engine_agreement
from backtest_pipeline.storage.tables.counts import read_counts
from backtest_pipeline_tests.sql import column, execute_sql

PLANTED = """
    UPDATE backtest_metrics m SET total_return = total_return + {} FROM backtest_runs r
    WHERE r.run_id = m.run_id AND r.is_current AND r.split = 'full'
    AND r.symbol = 'S-ZETA' AND r.tf = '1D' AND r.signal_name = 'ema_9_21'
"""


def test_every_new_run_is_followed_once_and_a_planted_difference_is_named(
    refreshed: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backtest_pipeline.pipeline.audits.engine_cross_check._RUNS_AT_ONCE", 50)
    (n_runs,) = column(refreshed, "SELECT count(*) FROM backtest_runs WHERE is_current")
    execute_sql(refreshed, PLANTED.format("1e-6"))
    first = second_opinion(refreshed)
    assert first.runs == first.standing.runs == n_runs
    assert list(first.differing) == ["ema_9_21 on S-ZETA|1D"]
    assert first.standing.disagreeing == ("ema_9_21 on S-ZETA|1D",)
    assert 1e-7 < first.worst < 1e-5
    assert first.agrees + first.not_followed.total() == n_runs - 1
    assert set(first.not_followed) <= {"liquidation"}
    assert first.standing.followed > 0.9
    assert first.standing.not_followed == first.not_followed
    assert first.standing.waiting == 0

    execute_sql(refreshed, PLANTED.format("-1e-6"))
    again = second_opinion(refreshed)
    assert (again.runs, again.agrees, again.standing.differs) == (1, 1, 0)
    assert again.standing.worst is not None
    assert again.standing.worst < 1e-9
    monkeypatch.setattr(
        "backtest_pipeline.pipeline.audits.engine_cross_check.fill_orders", pytest.fail
    )
    assert second_opinion(refreshed).runs == 0

    with refreshed.database.begin() as connection:
        numbers = {count.key: count.value for count in read_counts(connection)}
    assert numbers[key_of(ENGINE_CHECKS, {"verdict": "differs"})] == 1
    assert numbers[key_of(ENGINE_CHECKS, {"verdict": "agrees"})] == first.agrees + 1
    assert numbers[key_of(ENGINE_FOLLOWED)] == again.standing.followed
    assert numbers[key_of(ENGINE_DIFFERENCE)] == again.standing.worst


def test_a_changed_fill_is_named_and_another_result_is_checked_again(
    refreshed: Workspace,
) -> None:
    execute_sql(
        refreshed,
        "UPDATE backtest_trades t SET exit_price = exit_price * (1 + 1e-6) FROM backtest_runs r"
        " WHERE r.run_id = t.run_id AND r.symbol = 'S-ALPHA' AND r.tf = '1D'"
        " AND r.signal_name = 'ema_21_50' AND t.trade_no = 1",
    )
    assert list(second_opinion(refreshed).differing) == ["ema_21_50 on S-ALPHA|1D"]
    execute_sql(
        refreshed,
        "UPDATE backtest_runs SET result_fingerprint = 'another'"
        " WHERE symbol = 'S-ALPHA' AND tf = '1D' AND signal_name = 'ema_9_21'",
    )
    with refreshed.database.begin() as connection:
        assert engine_agreement(connection).waiting == 1
    assert second_opinion(refreshed).runs == 2
    execute_sql(
        refreshed,
        "UPDATE engine_checks c SET engine_version = '1.1.0' FROM backtest_runs r"
        " WHERE r.run_id = c.run_id AND r.symbol = 'S-ALPHA' AND r.tf = '1D'",
    )
    with refreshed.database.begin() as connection:
        before = engine_agreement(connection)
    assert before.waiting > 2
    assert before.disagreeing == ()
    assert second_opinion(refreshed).runs == before.waiting
