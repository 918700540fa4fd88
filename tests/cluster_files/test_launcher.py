"""Files of Ray's cluster launcher: Ray's own validation, and what they start on a node."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster_files.files import IMAGE, LAUNCHER_FILES, read_documents

LAUNCHER = pytest.mark.parametrize("path", LAUNCHER_FILES, ids=lambda path: path.stem)


def read_launcher(path: Path) -> dict[str, Any]:
    (document,) = read_documents(path)
    return dict(document)


def check(config: dict[str, Any]) -> dict[str, Any]:
    """Check a launcher's file as `ray up` does, before it asks the cloud."""
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return dict(prepared)


@LAUNCHER
def test_ray_takes_it(path: Path) -> None:
    prepared = check(read_launcher(path))
    assert prepared["max_workers"] >= 1
    assert prepared["head_node_type"] in prepared["available_node_types"]


@LAUNCHER
@pytest.mark.parametrize("change", ["unknown", "negative", "no provider"])
def test_the_check_sees_a_mistake(path: Path, change: str) -> None:
    config = read_launcher(path)
    if change == "unknown":
        config["idle_timeout"] = 5
    elif change == "negative":
        config["idle_timeout_minutes"] = -1
    else:
        config["provider"].pop("type")
    with pytest.raises((jsonschema.ValidationError, KeyError, ValueError)):
        check(config)


@LAUNCHER
def test_every_node_wants_the_token(path: Path) -> None:
    config = read_launcher(path)
    starts = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert all("ray start" in command for command in starts)
    options = config.get("docker", {}).get("run_options", [])
    by_container = "--env=RAY_AUTH_MODE=token" in options
    by_shell = all("RAY_AUTH_MODE=token" in command for command in starts)
    assert by_container or by_shell


@LAUNCHER
def test_dashboard_is_on_the_loopback(path: Path) -> None:
    config = read_launcher(path)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


@LAUNCHER
def test_secrets_come_from_the_platform(path: Path) -> None:
    """A file that only its owner reads, fetched by the node's own role or laid there by hand."""
    config = read_launcher(path)
    commands = " ".join(config["initialization_commands"])
    stores = {"aws": "aws secretsmanager get-secret-value", "gcp": "gcloud secrets versions access"}
    store = stores.get(config["provider"]["type"])
    if store is None:
        assert list(config["file_mounts"].values()) == ["~/.distprune/environment"]
        return
    assert store in commands
    assert commands.index("umask 077") < commands.index(store)
    assert "--env-file=/home/ubuntu/.distprune/environment" in config["docker"]["run_options"]


@LAUNCHER
def test_image_is_that_of_the_dockerfile(path: Path) -> None:
    docker = read_launcher(path).get("docker")
    assert docker is None or docker["image"] == f"YOUR-REGISTRY/{IMAGE}"


@pytest.mark.parametrize("provider", ["aws", "gcp"])
def test_no_stage_runs_beside_the_driver(provider: str) -> None:
    (path,) = (path for path in LAUNCHER_FILES if path.stem == provider)
    types = read_launcher(path)["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert types["gpu"]["resources"]["GPU"] == 1


def test_nothing_but_ssh_is_open_on_aws() -> None:
    provider = read_launcher(LAUNCHER_FILES[0])["provider"]
    assert [rule["FromPort"] for rule in provider["security_group"]["IpPermissions"]] == [22]


def test_aws_knows_the_settings_of_its_nodes() -> None:
    session = pytest.importorskip("botocore.session", reason="comes with s3fs")
    validate = pytest.importorskip("botocore.validate")
    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances")
    for node in read_launcher(LAUNCHER_FILES[0])["available_node_types"].values():
        request = {"MinCount": 1, "MaxCount": 1, **node["node_config"]}
        report = validate.ParamValidator().validate(request, shape.input_shape)
        assert not report.has_errors(), report.generate_report()
