"""Whoever removes artifacts and whoever writes some keep out of each other's way."""

from __future__ import annotations

import pytest
from psycopg.conninfo import make_conninfo

from backtest_pipeline.market.errors import StoreLocked
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline.storage.postgres.removals import block_removals, nobody_writing


def test_nobody_writes_where_no_writer_is_at_work_and_none_begins_meanwhile(
    database: Database,
) -> None:
    impatient = connect_database(make_conninfo(database.conninfo, options="-clock_timeout=50ms"))
    with database.begin() as writer:
        block_removals(writer)
        with nobody_writing(impatient) as alone:
            assert not alone
    with nobody_writing(database) as alone:
        assert alone
        with pytest.raises(StoreLocked), impatient.begin() as writer:
            block_removals(writer)
    impatient.close()
