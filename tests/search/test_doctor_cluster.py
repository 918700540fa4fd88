"""The doctor on a real cluster: a wrong token, a wrong version, a storage of one node alone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.tiny_search import tiny_values
from tests.search.raylets import Raylets, raylets

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Raylets]:
    """Two nodes, of which one has an older distprune."""
    with raylets() as cluster:
        cluster.start()
        old = cluster.folder / "old" / "distprune"
        old.mkdir(parents=True)
        (old / "__init__.py").write_text('__version__ = "0.0.9"\n')
        cluster.start(PYTHONPATH=str(old.parent))
        yield cluster


@pytest.fixture
def study(cluster: Raylets, tmp_path: Path, mlm_checkpoint: Path, word_task: Path) -> Path:
    path = tmp_path / "study.yaml"
    values = tiny_values(tmp_path / "studies", mlm_checkpoint, word_task)
    path.write_text(yaml.safe_dump(values))
    return path


def consult(
    cluster: Raylets, study: Path, *options: str, **environment: str
) -> tuple[int, list[dict[str, Any]]]:
    """Run the doctor as a driver of the cluster; return its exit code and what it found amiss."""
    script = (
        "import typer; from distprune.cli.doctor import doctor; "
        "app = typer.Typer(); app.command()(doctor); app()"
    )
    arguments = [str(study), "--address", cluster.address, "--json", *options]
    told = cluster.run("-c", script, *arguments, **environment)
    assert told.stdout.startswith("{"), told.stdout + told.stderr
    findings = json.loads(told.stdout)["findings"]
    return told.returncode, [f for f in findings if f["severity"] == "failure"]


def test_node_with_another_version_is_named(cluster: Raylets, study: Path) -> None:
    code, (finding,) = consult(cluster, study)
    assert code == 1
    assert finding["name"] == "versions"
    assert finding["what"].startswith("distprune 0.0.9; the driver has ")
    assert "--ship-code" in finding["advice"]
    assert list((study.parent / "studies").glob("**/.probe-*")) == []


def test_shipped_code_replaces_it(cluster: Raylets, study: Path) -> None:
    assert consult(cluster, study, "--ship-code") == (0, [])


def test_search_refuses_the_cluster(cluster: Raylets, study: Path) -> None:
    """Before anything was trained."""
    told = cluster.run("-m", "distprune", "search", str(study), "--address", cluster.address)
    assert told.returncode == 2, told.stderr
    assert "error: versions on " in told.stderr
    assert not any((study.parent / "studies" / "tiny").glob("history*"))


def test_wrong_token(cluster: Raylets, study: Path) -> None:
    wrong = "f" * 32
    code, (finding,) = consult(cluster, study, RAY_AUTH_TOKEN=wrong)
    assert code == 1
    assert finding["name"] == "token"
    assert "refuses that of this machine (from RAY_AUTH_TOKEN)" in finding["what"]
    assert "ray get-auth-token" in finding["advice"]
    assert wrong not in json.dumps(finding)


def test_no_token(cluster: Raylets, study: Path) -> None:
    code, (finding,) = consult(cluster, study, RAY_AUTH_TOKEN="", RAY_AUTH_MODE="")
    assert code == 1
    assert finding["name"] == "token"
    assert "this machine has none" in finding["what"]


def can_mount() -> bool:
    """Say whether this process may mount something for itself alone."""
    try:
        command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(os.geteuid() != 0 or not can_mount(), reason="mounting needs root")
@pytest.mark.parametrize(
    ("options", "words"),
    [("size=8m", "is not shared"), ("size=4k,nr_inodes=3", "No space left on device")],
    ids=["unshared", "full"],
)
def test_storage_of_one_node(
    options: str, words: str, tmp_path: Path, mlm_checkpoint: Path, word_task: Path
) -> None:
    storage = tmp_path / "studies"
    (storage / "store").mkdir(parents=True)
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(tiny_values(storage, mlm_checkpoint, word_task)))
    fill = f"; head -c 8k /dev/zero > {storage}/store/fill" if "4k" in options else ""
    script = (
        f"mount -t tmpfs -o {options} none {storage} && mkdir {storage}/store {fill}; "
        'exec "$0" "$@"'
    )
    with raylets() as cluster:
        cluster.start()
        cluster.start(wrapper=("unshare", "--mount", "sh", "-c", script))
        code, (finding,) = consult(cluster, study)
    assert code == 1
    assert finding["name"] == "storage"
    assert words in finding["what"]
