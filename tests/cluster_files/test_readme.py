"""The README of clusters: what it names is there, and its commands are ones that there are."""

from __future__ import annotations

import re

import pytest
import typer

from distprune.cli.app import app
from tests.cluster_files.files import ALL_FILES, CLUSTER, ROOT, read_pin

TEXT = (CLUSTER / "README.md").read_text()
VERBS = {
    command.name or command.callback.__name__
    for command in app.registered_commands
    if command.callback
}


def test_every_file_is_named() -> None:
    for path in ALL_FILES:
        assert path.relative_to(CLUSTER).as_posix() in TEXT, path


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bcluster/[\w./-]+\w", TEXT))))
def test_named_file_is_there(name: str) -> None:
    path = ROOT / name
    made = (CLUSTER / "secrets" / "make-secrets.sh").read_text()
    assert path.exists() or f"make_secret {path.name} " in made


def test_links_lead_to_headings() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-")
        for line in re.findall(r"^#+ (.+)$", TEXT, re.M)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= headings


def test_versions_are_the_tested_ones() -> None:
    assert set(re.findall(r"\bray[ :](\d+\.\d+\.\d+)", TEXT)) == {read_pin("ray")}


def test_verbs_and_options_are_there() -> None:
    command = typer.main.get_command(app)
    for verb, rest in re.findall(r"^(?: {4,}|\s*\$ )distprune (\w+)(.*?)(?:#|$)", TEXT, re.M):
        assert verb in VERBS, verb
        parameters = command.commands[verb].params  # type: ignore[attr-defined]
        known = {option for parameter in parameters for option in parameter.opts}
        assert set(re.findall(r" (--[\w-]+)", rest)) <= known, verb
