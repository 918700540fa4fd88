"""Every probe finds what it measures; one whose seam is gone is an error."""

from __future__ import annotations

import subprocess
import sys

CODE = """
from scripts.scale.measured_search import install
from scripts.scale.probes import Probes
install(Probes(10))
"""


def test_all_probes_can_be_put() -> None:
    # In a process of its own: probes stay.
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=120)
