"""Connections that are cut in the middle of a refresh leave the old result or the new one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from backtest_pipeline.market.errors import StoreUnavailable
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.postgres.database import connect_database
from backtest_pipeline.storage.postgres.retry import Retry
from backtest_pipeline_tests.chaos.harness import (
    MARKETS,
    Judge,
    Tally,
    fresh,
    instants,
    random_of,
)
from backtest_pipeline_tests.chaos.proxy import Proxy, proxy_to
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.pipeline.processes import PARTITIONS


@pytest.fixture
def proxy(workspace: Workspace) -> Iterator[Proxy]:
    with proxy_to(workspace.database.conninfo) as proxy:
        yield proxy


@contextmanager
def behind(proxy: Proxy, workspace: Workspace, retry_s: float) -> Iterator[Workspace]:
    """The store through the proxy, as a process of its own sees it."""
    dsn = proxy.dsn(workspace.database.conninfo)
    database = connect_database(dsn, retry=Retry(retry_s))
    try:
        yield Workspace(database, fresh(workspace).artifacts)
    finally:
        database.close()


def refreshed(
    proxy: Proxy,
    workspace: Workspace,
    market: int,
    retry_s: float = 60,
    cut_at_commit: int | None = None,
) -> int:
    """Refresh through the proxy; returns how many COMMITs that took, those of opening left out."""
    with behind(proxy, workspace, retry_s) as through:
        before = proxy.commits
        if cut_at_commit is not None:
            proxy.cut_at_commit = before + cut_at_commit
        reports = refresh(through, MARKETS[market], PARTITIONS)
    assert not any(report.failed for report in reports.values())
    return proxy.commits - before


@pytest.mark.parametrize("cuts", [3, pytest.param(40, marks=pytest.mark.chaos)])
def test_a_connection_cut_anywhere_leaves_old_or_new(
    workspace: Workspace, proxy: Proxy, judge: Judge, cuts: int
) -> None:
    rng, tally = random_of("cuts"), Tally()
    refreshed(proxy, workspace, 0)
    before = proxy.carried
    refreshed(proxy, workspace, 1)
    in_all = proxy.carried - before
    for n, place in enumerate(instants(rng, cuts, in_all)):
        market = n % 2
        proxy.cut_at_byte = proxy.carried + 1 + int(place)
        try:
            refreshed(proxy, workspace, market, retry_s=0 if n % 4 < 2 else 60)
            tally.add("went on by itself" if proxy.cut_at_byte is None else "ended before the cut")
        except StoreUnavailable:
            tally.add("gave up at once, without a retry")
            judge.require_whole(workspace)
            refreshed(proxy, workspace, market)
        proxy.cut_at_byte = None
        judge.require_done(workspace, market)
    tally.add("bytes of one refresh", in_all)
    print(tally.told())  # noqa: T201


@pytest.mark.parametrize("cuts", [2, pytest.param(None, marks=pytest.mark.chaos)])
def test_a_commit_that_is_done_and_not_heard_of_is_done_once(
    workspace: Workspace, proxy: Proxy, judge: Judge, cuts: int | None
) -> None:
    """Without a number: each COMMIT of a refresh, one after the other."""
    rng = random_of("commits")
    refreshed(proxy, workspace, 0)
    in_all = refreshed(proxy, workspace, 1)
    places = np.arange(in_all) if cuts is None else rng.choice(in_all, cuts, replace=False)
    for n, place in enumerate(places):
        refreshed(proxy, workspace, n % 2, cut_at_commit=int(place) + 1)
        assert proxy.cut_at_commit is None  # it was cut
        judge.require_done(workspace, n % 2)
    print({"commits cut": len(places), "commits of one refresh": in_all})  # noqa: T201
