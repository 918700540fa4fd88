"""The compose file: Compose's own schema, what can be reached from where, where secrets are."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from tests.cluster_files.files import COMPOSE_FILE, IMAGE, read_compose

COMPOSE = read_compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCHEMA = json.loads(
    files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
)


def test_compose_takes_it() -> None:
    jsonschema.validate(COMPOSE, SCHEMA)


@pytest.mark.parametrize("field", ["port", "depend_on", "health_check"])
def test_the_check_sees_a_misspelt_field(field: str) -> None:
    services = {**SERVICES, "head": {**SERVICES["head"], field: []}}
    with pytest.raises(jsonschema.ValidationError, match=field):
        jsonschema.validate({**COMPOSE, "services": services}, SCHEMA)


def test_there_is_a_whole_cluster() -> None:
    assert set(SERVICES) == {"head", "worker", "mlflow", "postgres", "s3", "bucket"}


def test_only_pages_are_published_and_on_the_loopback_alone() -> None:
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert {name: ports for name, ports in published.items() if ports} == {
        "head": ["127.0.0.1:8265:8265"],
        "mlflow": ["127.0.0.1:5000:5000"],
    }


@pytest.mark.parametrize("name", ["head", "worker"])
def test_ray_wants_the_token(name: str) -> None:
    service = SERVICES[name]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    assert "ray_token" in service["secrets"]
    assert "ray start" in service["command"]


def test_secrets_are_files_that_services_name() -> None:
    made = (COMPOSE_FILE.parent / "secrets" / "make-secrets.sh").read_text()
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"secrets/{name}"}
        assert f"make_secret {name} " in made
    for service in SERVICES.values():
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        named = [
            value
            for value in service.get("environment", {}).values()
            if str(value).startswith("/run/secrets/")
        ]
        assert {value.rpartition("/")[2] for value in named} <= set(service.get("secrets", ()))


def test_services_wait_for_what_they_need() -> None:
    for name, service in SERVICES.items():
        for other, condition in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], (name, other)


def test_images_of_ours_are_built_here() -> None:
    built = {
        service["image"]: service["build"] for service in SERVICES.values() if "build" in service
    }
    assert set(built) == {IMAGE, "distprune-mlflow:0.1.0"}
    assert {build["target"] for build in built.values()} == {"node", "mlflow"}
