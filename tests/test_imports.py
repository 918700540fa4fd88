"""What decides imports no framework: `import distprune` takes milliseconds, not seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "optuna", "mlflow", "transformers", "datasets", "sklearn", "scipy")
DECIDING = (
    "atomic_file",
    "cost",
    "families",
    "importance_scores",
    "latency_table",
    "mask",
    "mask_file",
    "median_interval",
    "mixing",
    "retention",
    "schedule",
    "selection",
    "units",
)
"""The half of the core that is numpy; the other half (anatomy, gating, ...) is torch."""


def find_heavy_imports(code: str) -> list[str]:
    """Run `code` in a new interpreter and list the heavy packages that it imported."""
    program = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "code",
    [
        "import distprune",
        "\n".join(f"import distprune.core.{name}" for name in DECIDING),
        "import pathlib, tempfile\n"
        "from distprune import Mask\n"
        "path = pathlib.Path(tempfile.mkdtemp(), 'mask')\n"
        "Mask.unpack('1x1:gA==|1x1:gA==').save(path)\n"
        "assert Mask.load(path).num_kept('head') == 1",
    ],
    ids=["package", "core", "mask file"],
)
def test_deciding_imports_no_framework(code: str) -> None:
    assert find_heavy_imports(code) == []


def test_the_check_sees_a_framework() -> None:
    assert "torch" in find_heavy_imports("import distprune.core.gating")
