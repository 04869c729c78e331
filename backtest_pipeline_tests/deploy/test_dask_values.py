"""The workers of Dask's chart are workers of this program, and reach its scheduler."""

from __future__ import annotations

from pathlib import Path

from backtest_pipeline.pipeline.pools import dask_worker
from backtest_pipeline.pipeline.pools.tls import environment_of, make_certificates
from backtest_pipeline.storage.settings import Settings, load_settings
from backtest_pipeline_tests.deploy.manifests import OF_BUCKETS, manifests, pods, settings
from deploy.images import read_values

VALUES = read_values("values-dask.yaml")
WORKER = VALUES["worker"]
ADDRESS = "tls://pipeline-scheduler:8786"
SECRETS = {"BACKTEST_POSTGRES_DSN", "BACKTEST_FEATURES_DSN"}
OF_CLIENTS = {f"BACKTEST_POOL{name}" for name in ("", "_ADDRESS", "_TLS", "_WORKERS")}


def test_workers_have_all_settings_of_the_pods() -> None:
    given = {entry["name"]: entry["valueFrom"] for entry in WORKER["env"] if "value" not in entry}
    assert len({entry["name"] for entry in WORKER["env"]}) == len(WORKER["env"])
    known = {f"BACKTEST_{name.upper()}" for name in Settings.model_fields} - OF_CLIENTS
    of_settings = known - SECRETS | {"NUMBA_CACHE_DIR"}
    of_secrets = known & SECRETS | OF_BUCKETS
    assert set(given) == of_settings | of_secrets
    places = {
        "configMapKeyRef": ("backtest-settings", of_settings),
        "secretKeyRef": ("backtest-secrets", of_secrets),
    }
    for kind, (place, names) in places.items():
        for name in names:
            reference = given[name][kind]
            is_there = {"name": place, "key": name}
            assert reference in (is_there, {**is_there, "optional": True})
            needed = name in ("BACKTEST_POSTGRES_DSN", *settings())
            assert needed or "optional" in reference, name


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
    (port,) = manifests()["Service/pipeline-scheduler"]["spec"]["ports"]
    assert f"tls://pipeline-scheduler:{port['port']}" == ADDRESS
    container = pods()["backtest-scheduler"]["spec"]["containers"][0]
    *command, host, listens_at, health = container["command"]
    assert command == ["backtest-pipeline", "pool", "scheduler"]
    assert (host, listens_at) == ("--host=0.0.0.0", f"--port={port['port']}")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["exec"]["command"][-1]
        assert f"127.0.0.1:{health.removeprefix('--health-port=')}/health" in asked
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
