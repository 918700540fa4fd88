"""Every version is named; Ray's and Python's are the tested ones; nothing holds a secret."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import distprune
from tests.cluster_files.files import (
    ALL_FILES,
    CLUSTER,
    COMPOSE_FILE,
    DOCKERFILE,
    IMAGE,
    KUBERAY_FILES,
    LAUNCHER_FILES,
    ROOT,
    read_documents,
    read_pin,
    walk,
)

MANIFESTS = (*LAUNCHER_FILES, *KUBERAY_FILES, COMPOSE_FILE)
SECRET_NAME = re.compile(r"TOKEN|PASSWORD|SECRET_ACCESS|ACCESS_KEY")
PINNED_IMAGE = re.compile(r"[\w./-]+:(\d|RELEASE\.\d)[\w.-]*")


def list_images() -> list[str]:
    """Return every image that the files name."""
    images = [
        str(value)
        for path in MANIFESTS
        for document in read_documents(path)
        for way, value in walk(document)
        if way and way[-1] == "image"
    ]
    return images + re.findall(r"^ARG \w+_IMAGE=(.+)$", DOCKERFILE.read_text(), re.M)


def test_images_have_versions() -> None:
    images = list_images()
    assert len(images) >= 10
    assert [image for image in images if not PINNED_IMAGE.fullmatch(image)] == []
    assert f"distprune:{distprune.__version__}" == IMAGE


def test_ray_and_python_are_the_tested_ones() -> None:
    text = DOCKERFILE.read_text()
    assert f"ARG RAY_IMAGE=rayproject/ray:{read_pin('ray')}-py311-cpu" in text
    assert re.search(r"ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-", text)
    for path in ALL_FILES:
        versions = set(re.findall(r"(?i)\bray[: =]+v?(\d+\.\d+\.\d+)", path.read_text()))
        assert versions <= {read_pin("ray")}, path


def test_packages_have_versions() -> None:
    """What the images install beyond `constraints.txt` is pinned, and agrees with it."""
    text = DOCKERFILE.read_text()
    pins = dict(re.findall(r"([a-z0-9-]+)==([\w.]+)", text))
    assert {"mlflow", "torch", "boto3", "psycopg2-binary", "gcsfs"} <= set(pins)
    constraints = dict(
        re.findall(r"^([\w.-]+)==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    )
    shared = set(pins) & set(constraints)
    assert {name: pins[name] for name in shared} == {name: constraints[name] for name in shared}
    installs = re.findall(r"pip install (.*?)(?:\n[A-Z#]|&&|;)", text.replace("\\\n", " "), re.S)
    assert all("--constraint" in install or "torch==" in install for install in installs)


def test_image_has_the_extras_that_there_are() -> None:
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE.read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_image_is_made_of_what_the_ignore_file_lets_through() -> None:
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", DOCKERFILE.read_text(), re.M)
    sources = {source for line in copied for source in line.split()}
    assert sources == let_through
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda path: path.name)
def test_token_is_never_switched_off(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"(?i)auth_mode\W+disabled|mode: disabled|DISABLE_SECURITY", text)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_no_secret_is_written_down(path: Path) -> None:
    """A setting named like a secret names the file or the store that holds it."""
    for document in read_documents(path):
        for way, value in walk(document):
            if SECRET_NAME.search(way[-1]) and value:
                assert str(value).startswith("/run/secrets/") or isinstance(value, bool), way
            assert not re.search(r"(?i)(password|token|secret_key)=[^\s$\"']{6,}", str(value)), way
