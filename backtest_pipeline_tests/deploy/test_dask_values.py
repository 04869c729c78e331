"""The workers of Dask's chart are workers of this program, and reach its scheduler."""

from __future__ import annotations

from pathlib import Path

from backtest_pipeline.pipeline.pools import dask_worker
from backtest_pipeline.pipeline.pools.tls import environment_of, make_certificates
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.deploy.manifests import manifests, pods, settings
from deploy.images import read_values

VALUES = read_values("values-dask.yaml")
WORKER = VALUES["worker"]
ADDRESS = "tls://backtest-scheduler:8786"
OF_CLIENTS = {"BACKTEST_POOL", "BACKTEST_POOL_ADDRESS", "BACKTEST_POOL_TLS"}


def test_workers_have_all_settings_of_the_pods() -> None:
    given = {entry["name"]: entry for entry in WORKER["env"]}
    assert len(given) == len(WORKER["env"])
    for name in set(settings()) - OF_CLIENTS:
        reference = given[name]["valueFrom"]["configMapKeyRef"]
        assert reference == {"name": "backtest-settings", "key": name}
    dsn = given["BACKTEST_POSTGRES_DSN"]["valueFrom"]["secretKeyRef"]
    assert dsn == {"name": "backtest-secrets", "key": "BACKTEST_POSTGRES_DSN"}


def test_workers_have_the_certificates_as_our_own_command_gives_them(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    expected = {
        name: value.replace(str(tmp_path), "/certificates")
        for name, value in environment_of(ADDRESS, tmp_path).items()
        if "__SCHEDULER__" not in name
    }
    given = {entry["name"]: entry.get("value") for entry in WORKER["env"]}
    assert given.items() >= expected.items()
    mounts = {mount["name"]: mount["mountPath"] for mount in WORKER["mounts"]["volumeMounts"]}
    assert mounts["certificates"] == "/certificates"


def test_the_arguments_are_those_of_dask_worker() -> None:
    # `dask worker`, what the chart adds, and then these.
    assert (WORKER["image"]["dask_worker"], WORKER["custom_scheduler_url"]) == ("dask", "worker")
    assert WORKER["threads_per_worker"] == 1
    address, *options = WORKER["extraArgs"]
    assert address == ADDRESS
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given["--preload"] == dask_worker.__name__
    assert (given["--protocol"], given["--nworkers"]) == ("tls", "1")
    assert VALUES["scheduler"] == {"enabled": False}
    assert VALUES["jupyter"]["enabled"] is False


def test_the_scheduler_listens_where_workers_and_runs_look_for_it() -> None:
    (port,) = manifests()["Service/backtest-scheduler"]["spec"]["ports"]
    assert f"tls://backtest-scheduler:{port['port']}" == ADDRESS
    container = pods()["backtest-scheduler"]["spec"]["containers"][0]
    *command, host, _, listens_at = container["command"]
    assert command == ["backtest-pipeline", "pool", "scheduler", "--host"]
    assert (host, listens_at) == ("0.0.0.0", str(port["port"]))  # noqa: S104
    (tls,) = (entry for entry in container["env"] if entry["name"] == "BACKTEST_POOL_TLS")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert tls["value"] == mounts["certificates"]


def test_the_settings_that_the_document_names_have_runs_use_it(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    found = load_settings(pool="dask", pool_tls=tmp_path, pool_address=ADDRESS)
    assert found.pool_address == ADDRESS
    document = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text()
    text = " ".join(document.split())
    for term in ("BACKTEST_POOL: dask", f"BACKTEST_POOL_ADDRESS: {ADDRESS}"):
        assert term in text
    assert "BACKTEST_POOL_TLS: /certificates" in text
