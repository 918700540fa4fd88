"""`distprune doctor`: what it prints for each fault, and its exit code."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from distprune.cli.doctor import doctor
from distprune.errors import ConfigError
from distprune.search import doctor as examination
from distprune.search.address import explain_refusal
from distprune.search.examination import Answer, Clock
from distprune.search.node_checks import NodeExaminer
from distprune.search.spec import ResourcesSpec
from distprune.store.paths import PATHS
from tests.cli.conftest import WriteStudy
from tests.search.test_diagnosis import GIB, VERSIONS, make_answer

pytestmark = [
    pytest.mark.xdist_group("mlflow"),
    pytest.mark.filterwarnings("ignore"),
]

ADDRESS = "10.77.0.1:6379"
FOUND = {"place": "/models/tiny", "fingerprint": "f", "num_bytes": None, "problem": ""}
NOT_THERE = "checkpoint: folder '/models/tiny' does not exist; correct the path"


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Stand for a cluster of three nodes; what is changed of their answers, by name."""
    changes: dict[str, dict[str, Any]] = {}

    @contextmanager
    def connect(address: str | None, *_: Any) -> Iterator[None]:
        if "refused" in changes:
            raise explain_refusal(address, changes["refused"]["error"])
        yield

    def answer(name: str) -> Answer:
        return replace(make_answer(name, checkpoint=FOUND), **changes.get(name, {}))

    def ask_all(_: Any) -> tuple[Answer, tuple[Answer, ...]]:
        return answer("driver"), (answer("10.77.0.1"), answer("10.77.0.2"), answer("10.77.0.3"))

    monkeypatch.setattr(examination, "ask_all", ask_all)
    monkeypatch.setattr(examination, "connect_cluster", connect)
    monkeypatch.setattr(examination, "resolve_resources", lambda _: ResourcesSpec(gpus_per_stage=0))
    monkeypatch.setattr(examination, "check_resources", lambda _: None)
    monkeypatch.setattr(examination, "uses_token", lambda: True)
    return changes


@pytest.fixture
def call(write_study: WriteStudy) -> Callable[..., Result]:
    """Call the doctor on the tiny search, at an address."""
    app = typer.Typer()
    app.command()(doctor)

    def call(*arguments: str, **changes: Any) -> Result:
        study = write_study({"tracking.uri": None, **changes})
        return CliRunner().invoke(app, [str(study), "--address", ADDRESS, *arguments])

    return call


def lines_of(result: Result, name: str) -> str:
    """Return what is printed about one name, advice included."""
    lines, kept = result.stdout.splitlines(), []
    for number, line in enumerate(lines):
        if line[6:].startswith(f"{name} "):
            kept.append(line)
            kept += [line for line in lines[number + 1 : number + 2] if "->" in line]
    return "\n".join(kept)


def test_well_cluster(nodes: dict[str, Any], call: Callable[..., Result]) -> None:
    result = call()
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.stdout
    assert "all 3 nodes: python 3.11.9, distprune 0.1.0" in lines_of(result, "versions")
    assert result.stdout.splitlines()[-1] == "the study would run; 1 to look at"
    assert "warn  tracking" in result.stdout  # no server is named


def check_fault(result: Result, name: str, *words: str) -> None:
    """Check that the fault is told as a failure, with the words, and that it is the only one."""
    assert result.exit_code == 1, result.output
    told = lines_of(result, name)
    assert told.startswith("FAIL")
    assert all(word in told for word in words), told
    assert result.stdout.count("FAIL") == 1, result.stdout
    assert result.stdout.splitlines()[-1] == "1 to mend before the study is started"


def test_wrong_token(
    nodes: dict[str, Any], call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef")
    nodes["refused"] = {"error": RuntimeError("InvalidAuthToken: missing or incorrect")}
    result = call()
    check_fault(
        result,
        "token",
        f"the cluster at '{ADDRESS}' refuses that of this machine (from RAY_AUTH_TOKEN)",
        "-> print the cluster's with `ray get-auth-token` on its head node",
    )
    assert "0123456789abcdef" not in result.output


def test_wrong_version_on_one_node(nodes: dict[str, Any], call: Callable[..., Result]) -> None:
    nodes["10.77.0.2"] = {"versions": {**VERSIONS, "transformers": "5.22.0"}}
    check_fault(
        call(),
        "versions",
        "10.77.0.2: transformers 5.22.0; the driver has 5.23.0",
        "-> install the versions of constraints.txt on every node",
        "ok    versions",
    )


def test_unshared_storage(nodes: dict[str, Any], call: Callable[..., Result]) -> None:
    gone = "No such file or directory"
    nodes["10.77.0.3"] = {
        "unread": {"driver": gone, "10.77.0.1": gone, "10.77.0.2": gone},
    }
    nodes["driver"] = {"unread": {"10.77.0.3": gone}}
    nodes["10.77.0.1"] = nodes["10.77.0.2"] = {"unread": {"10.77.0.3": gone}}
    check_fault(
        call(),
        "storage",
        "10.77.0.3: ",
        "is not shared: it does not see the driver's files and the driver does not see its files",
        "-> mount one file system under this path on every node, or set storage to s3://",
    )


def test_no_tracking_server(nodes: dict[str, Any], call: Callable[..., Result]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    check_fault(
        call(**{"tracking.uri": f"http://127.0.0.1:{port}"}),
        "tracking",
        f"http://127.0.0.1:{port} does not answer (connection refused)",
        "-> start the server, correct tracking.uri",
    )


@pytest.mark.parametrize("place", ["10.77.0.2", "driver"])
def test_full_disk(nodes: dict[str, Any], call: Callable[..., Result], place: str) -> None:
    nodes[place] = {"written": "No space left on device"}
    check_fault(
        call(),
        "storage",
        f"{place}: ",
        "cannot be written (No space left on device)",
        "-> free space there, or name another storage",
    )


def test_disk_that_will_be_full(nodes: dict[str, Any], call: Callable[..., Result]) -> None:
    disk = {"place": "/mnt/studies", "free": 5 << 20, "total": 10 * GIB}
    nodes["driver"] = {"disks": {"storage": disk}}
    check_fault(call(), "disk", "/mnt/studies has 5 MiB free; the dense model alone takes 256 MiB")


def test_missing_checkpoint(nodes: dict[str, Any], call: Callable[..., Result]) -> None:
    nodes["10.77.0.2"] = {"checkpoint": {**FOUND, "place": None, "problem": NOT_THERE}}
    check_fault(
        call(),
        "checkpoint",
        "10.77.0.2: folder '/models/tiny' does not exist",
        "-> put it under the same path on every node, or on the shared file system",
    )


def test_checkpoint_that_is_missing_everywhere(
    nodes: dict[str, Any], call: Callable[..., Result]
) -> None:
    missing = {"checkpoint": NodeExaminer().find_checkpoint("/nowhere/bert", True)}
    nodes |= dict.fromkeys(("driver", "10.77.0.1", "10.77.0.2", "10.77.0.3"), missing)
    result = call(**{"trial.checkpoint": "/nowhere/bert"})
    told = lines_of(result, "checkpoint")
    assert result.exit_code == 1
    assert "driver: folder '/nowhere/bert' does not exist" in told
    assert "all 3 nodes: folder '/nowhere/bert' does not exist" in told


def test_no_memory(nodes: dict[str, Any], call: Callable[..., Result]) -> None:
    nodes["10.77.0.3"] = {"memory": {"total": 2 * GIB, "available": 200 << 20}}
    check_fault(
        call(),
        "memory",
        "10.77.0.3: 200 MiB of 2.0 GiB memory are available; one stage takes 70",
        "-> free memory there, take the node out of the cluster",
    )


def test_stale_lease(nodes: dict[str, Any], call: Callable[..., Result], tmp_path: Path) -> None:
    leases = tmp_path / "studies" / "store" / PATHS.leases
    leases.mkdir(parents=True)
    lease = leases / f"{'a' * 64}.json"
    lease.write_text('{"host": "n9.01234567", "pid": 4711, "start": 1, "token": "t"}')
    os.utime(lease, (1.0, 1.0))
    result = call()
    told = lines_of(result, "leases")
    assert result.exit_code == 0, result.output
    assert told.startswith("warn")
    assert "1 of 1 leases in " in told
    assert "(process 4711 on n9.01234567, silent for " in told
    assert "-> nothing to do: whoever needs these stages takes them over" in told


def test_clock_skew(nodes: dict[str, Any], call: Callable[..., Result]) -> None:
    nodes["10.77.0.2"] = {"clock": Clock(95.2, 0.01)}
    check_fault(
        call(),
        "clock",
        "10.77.0.2: its clock is 95.2 s ahead of the driver's",
        "-> synchronise it (chrony or ntpd)",
    )


def test_json_is_for_programs(nodes: dict[str, Any], call: Callable[..., Result]) -> None:
    nodes["10.77.0.2"] = {"clock": Clock(95.2, 0.01)}
    result = call("--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["ok"] is False
    (finding,) = [f for f in told["findings"] if f["severity"] == "failure"]
    assert (finding["name"], finding["node"]) == ("clock", "10.77.0.2")
    assert set(finding) == {"name", "node", "severity", "what", "advice"}
    nodes.clear()
    assert json.loads(call("--json").stdout)["ok"] is True


def test_job_server_is_told_how_to_run_it_there(write_study: WriteStudy) -> None:
    app = typer.Typer()
    app.command()(doctor)
    study = write_study()
    result = CliRunner().invoke(app, [str(study), "--address", "http://127.0.0.1:8265"])
    assert isinstance(result.exception, ConfigError)
    assert "ray job submit" in str(result.exception)
