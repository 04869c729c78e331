"""The project's Dagster instance, as Dagster's own commands open it in a fresh shell."""

from __future__ import annotations

import dagster as dg

from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.cli.conftest import CommandLine, cli

__all__ = ["cli"]


def test_dagster_finds_the_store_by_its_home_and_the_settings_alone(cli: CommandLine) -> None:
    assert cli("migrate").code == 0
    home = load_settings().home / "dagster"
    assert cli.database.conninfo not in (home / "dagster.yaml").read_text()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("asset", ["S-ALPHA"])
    with open_instance(load_settings(), cli.database) as instance:
        assert instance.get_dynamic_partitions("asset") == ["S-ALPHA"]
