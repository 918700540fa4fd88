"""What the figures were measured on and with."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = (
    "distprune",
    "ray",
    "optuna",
    "mlflow",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "numpy",
)
FAST_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Features of a processor that decide how fast it multiplies."""


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that do the work."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def describe_machine() -> dict[str, Any]:
    """Return processor, memory, system, and how busy the machine is before it all begins."""
    processor = parse_processor(read_text("/proc/cpuinfo"))
    return {
        "platform": platform.platform(),
        "processor": processor["name"],
        "features": processor["features"],
        "cpus": os.cpu_count(),
        "memory_mib": parse_memory(read_text("/proc/meminfo")),
        "load_before": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def parse_processor(text: str) -> dict[str, Any]:
    """Return the processor's name and its features of `FAST_FLAGS` from /proc/cpuinfo."""
    pairs = (line.partition(":") for line in text.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "name": fields.get("model name", platform.machine()),
        "features": [flag for flag in FAST_FLAGS if flag in flags],
    }


def parse_memory(text: str) -> int | None:
    """Return the memory in MiB from /proc/meminfo; None = it is not told."""
    for line in text.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) >> 10
    return None


def read_text(path: str) -> str:
    """Return a file's text, or nothing where there is no such file."""
    return Path(path).read_text() if Path(path).exists() else ""
