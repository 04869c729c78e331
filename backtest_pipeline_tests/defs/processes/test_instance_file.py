"""An edited `dagster.yaml` stays as it is, one that nobody edited follows the package."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest

from backtest_pipeline.defs.instance import instance_file, open_instance, valid_instance_file
from backtest_pipeline.defs.processes.instance_file import DAGSTER_YAML, read_file, renew, sealed
from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.cli.conftest import CommandLine, cli

__all__ = ["cli"]

NOBODY = 65534
# What the last version wrote whose first line had no hash.
BEFORE = DAGSTER_YAML.replace(
    "instance_class: { module: backtest_pipeline.defs.dagster_storage, class: BatchingInstance }",
    "instance_class:\n  module: backtest_pipeline.defs.dagster_storage\n  class: BatchingInstance",
).replace(
    "run_launcher: { module: backtest_pipeline.defs.launcher, class: SupervisedRunLauncher }",
    "run_launcher:\n  module: backtest_pipeline.defs.launcher\n  class: SupervisedRunLauncher",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dagster" / "dagster.yaml"


def test_it_is_written_once_and_known_as_ours(path: Path) -> None:
    file = renew(path)
    assert path.read_text() == sealed(DAGSTER_YAML)
    assert (file.is_edited, list(file.lacking)) == (False, [])
    written = path.stat().st_mtime_ns
    assert renew(path) == file
    assert path.stat().st_mtime_ns == written
    assert [p.name for p in path.parent.iterdir()] == ["dagster.yaml"]


def test_one_of_another_version_that_nobody_edited_is_renewed(path: Path) -> None:
    path.parent.mkdir()
    for text in (sealed("run_storage: { module: older, class: Older }\n"), BEFORE):
        path.write_text(text)
        assert not renew(path).is_edited
        assert path.read_text() == sealed(DAGSTER_YAML)


@pytest.mark.parametrize("text", [sealed(DAGSTER_YAML), DAGSTER_YAML])
def test_an_edited_one_stays_and_is_used(
    database: Database, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    settings = load_settings(home=tmp_path)
    path = tmp_path / "dagster" / "dagster.yaml"
    path.parent.mkdir()
    edited = text.replace("limit: 2", "limit: 8")
    path.write_text(edited)
    for _ in range(2):
        with open_instance(settings, database) as instance:
            queue = instance.get_concurrency_config().run_queue_config
            assert queue is not None
            (limit,) = queue.tag_concurrency_limits
            assert limit["limit"] == 8
    assert path.read_text() == edited
    assert list(instance_file(settings).lacking) == []
    assert "stays so; it has all that is required" in instance_file(settings).summary


def test_what_an_edited_one_lacks_is_said_in_one_line(path: Path) -> None:
    path.parent.mkdir()
    lines = [x for x in sealed(DAGSTER_YAML).splitlines() if not x.startswith("event_log_storage")]
    kept = "\n".join(lines).replace("SupervisedRunLauncher", "DefaultRunLauncher")
    path.write_text(kept)
    file = renew(path)
    assert path.read_text() == kept
    assert [line.partition(":")[0] for line in file.lacking] == [
        "event_log_storage",
        "run_launcher",
    ]
    assert "\n" not in file.summary
    assert "the rest of it is yours" in file.summary
    elsewhere = "module: dagster_k8s, class: K8sRunLauncher"  # judges its runs itself
    path.write_text(
        DAGSTER_YAML.replace(
            "module: backtest_pipeline.defs.launcher, class: SupervisedRunLauncher", elsewhere
        )
    )
    assert elsewhere in path.read_text()
    assert list(renew(path).lacking) == []


def test_the_settings_of_an_edited_one_are_those_of_dagster_s_own_storages(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    path = tmp_path / "dagster" / "dagster.yaml"
    path.parent.mkdir()
    path.write_text("telemetry: {enabled: false}\n")
    with open_instance(load_settings(home=tmp_path), database) as instance:
        instance.add_dynamic_partitions("asset", ["AAA"])
    with dg.DagsterInstance.from_config(str(path.parent)) as instance:
        assert instance.get_dynamic_partitions("asset") == ["AAA"]


@pytest.mark.parametrize("text", ["concurrency: {", "- a list\n", "just words\n", "\x00"])
def test_broken_yaml_is_a_named_error_and_stays(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"dagster\.yaml is not valid: .*; correct it"):
        renew(path)
    assert path.read_text() == text


def test_a_setting_that_dagster_does_not_know_is_a_named_error(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    path = tmp_path / "dagster" / "dagster.yaml"
    path.parent.mkdir()
    path.write_text(f"{DAGSTER_YAML}launcher_of_runs: 8\n")
    with pytest.raises(ConfigurationError, match=r"(?s)dagster\.yaml is not valid:.*launcher_of_"):
        open_instance(load_settings(home=tmp_path), database)


LAUNCHER = "module: backtest_pipeline.defs.launcher, class: SupervisedRunLauncher"


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (LAUNCHER, LAUNCHER.replace("Supervised", "Superwised"), "SuperwisedRunLauncher"),
        (LAUNCHER, LAUNCHER.replace("defs.", "def."), r"backtest_pipeline\.def\.launcher"),
        (LAUNCHER, LAUNCHER + ", config: {fast: true}", "fast"),
        (LAUNCHER, "module: dagster, class: AssetKey", "AssetKey is no RunLauncher"),
        ("class: KeptRunStorage", "class: KeptScheduleStorage", "is no RunStorage"),
        ("class: BatchingInstance", "class: BatchingInstanse", "BatchingInstanse"),
        ("class: BatchingInstance", "class: KeptRunStorage", "KeptRunStorage"),
        ("limit: 2", "limit: two", "limit"),
        ("telemetry:", "nonsense: 1\ntelemetry:", "nonsense"),
        ("telemetry:", "storage: {sqlite: {base_dir: /x}}\ntelemetry:", "storage"),
    ],
)
def test_what_dagster_would_refuse_is_a_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, why: str
) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    text = DAGSTER_YAML.replace(before, after)
    assert text != DAGSTER_YAML
    (home / "dagster.yaml").write_text(text)
    refused = rf"dagster\.yaml is not valid: .*{why}[^\n]*; correct it, or "
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with pytest.raises(ConfigurationError, match=refused + "delete the file"):
        valid_instance_file(load_settings(home=tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with pytest.raises(ConfigurationError, match=refused + "unset DAGSTER_HOME"):
        valid_instance_file(load_settings(home=tmp_path / "another"))


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n# a document\n...\n"])
def test_a_file_that_sets_nothing_is_taken_as_dagster_takes_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(text)
    settings = load_settings(home=tmp_path / "of_the_store")
    assert len(valid_instance_file(settings).lacking) == 5
    with open_instance(settings, database) as instance:
        assert instance.root_directory == str(tmp_path)
    assert renew(tmp_path / "dagster.yaml").is_edited
    assert (tmp_path / "dagster.yaml").read_text() == text


def test_a_home_that_is_not_there_is_a_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for named in (str(tmp_path / "none"), "a/relative/one"):
        monkeypatch.setenv("DAGSTER_HOME", named)
        with pytest.raises(ConfigurationError, match="which is no folder by its absolute path"):
            valid_instance_file(load_settings(home=tmp_path))


def test_many_that_start_at_once_leave_one_whole_file(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(sealed("an older version\n" * 1000))
    with ThreadPoolExecutor(8) as threads:
        files = list(threads.map(renew, [path] * 40))
    assert not [file for file in files if file.lacking]
    assert [p.name for p in path.parent.iterdir()] == ["dagster.yaml"]
    assert path.read_text() == sealed(DAGSTER_YAML)


def test_a_read_only_home_is_used_as_it_is() -> None:
    """As in a container; where this is root, whom no mode keeps out, by a user who is not."""
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "dagster.yaml"
        path.write_text(sealed(DAGSTER_YAML.replace("limit: 2", "limit: 3")))
        folder.chmod(0o555)
        done = _renewed_by_nobody(path)
        assert done.stdout == "limit: 3, lacking 0\n", done.stderr
        folder.chmod(0o755)
        path.unlink()
        folder.chmod(0o555)
        assert "ConfigurationError: cannot write" in _renewed_by_nobody(path).stderr
        folder.chmod(0o755)


def _renewed_by_nobody(path: Path) -> subprocess.CompletedProcess[str]:
    program = f"""
import os, sys
from pathlib import Path
from backtest_pipeline.defs.processes.instance_file import renew
if os.getuid() == 0:
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
file = renew(Path({str(path)!r}))
limits = file.sections["concurrency"]["runs"]["tag_concurrency_limits"]
print(f"limit: {{limits[0]['limit']}}, lacking {{len(file.lacking)}}")
"""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_doctor_says_what_it_lacks(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert cli("migrate").code == 0
    path = load_settings().home / "dagster" / "dagster.yaml"
    assert cli("doctor").code == 0
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("instance_class")))
    told = cli("doctor")
    assert told.code != 0
    text = " ".join(told.out.split())
    assert "has been edited and stays so, but it lacks instance_class: { module:" in text
    assert "fix: add these, or delete the file to have a new one: the rest of it is yours" in text
    path.write_text(f"{DAGSTER_YAML}nonsense: 1\n")
    for command in ("doctor", "migrate"):
        done = cli(command)
        refused = " ".join(f"{done.out} {done.err}".split())
        assert done.code != 0
        assert "is not valid" in refused
        assert "nonsense" in refused
    path.write_text("concurrency: {")
    assert "is not valid" in " ".join(cli("doctor").out.split())
    assert read_file(path.with_name("none.yaml")).is_edited
