"""The deployment files and what is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHER_FILES = tuple(CLUSTER / name for name in ("aws.yaml", "gcp.yaml", "on-premise.yaml"))
KUBERAY_FILES = tuple(sorted((CLUSTER / "kuberay").glob("*.yaml")))
COMPOSE_FILE = CLUSTER / "compose.yaml"
DOCKERFILE = CLUSTER / "Dockerfile"
SCRIPTS = (*sorted((CLUSTER / "slurm").glob("*.sbatch")), *sorted(CLUSTER.rglob("*.sh")))
ALL_FILES = (*LAUNCHER_FILES, *KUBERAY_FILES, COMPOSE_FILE, DOCKERFILE, *SCRIPTS)

IMAGE = "distprune:0.1.0"
"""Image that `cluster/Dockerfile` makes, whatever the registry."""


def read_documents(path: Path) -> list[Any]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def read_pin(package: str) -> str:
    """Return the version that `constraints.txt` pins a package to."""
    found = re.search(
        rf"^{re.escape(package)}==(.+)$", (ROOT / "constraints.txt").read_text(), re.M
    )
    assert found is not None, package
    return found[1]


def read_compose() -> dict[str, Any]:
    """Return the compose file, variables replaced by their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE_FILE.read_text())
    (document,) = yaml.safe_load_all(text)
    return dict(document)


def walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every leaf of nested mappings and lists with the way to it."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from walk(part, (*path, str(name)))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from walk(part, (*path, str(number)))
    else:
        yield path, value
