"""The machine that latencies are measured on, and the versions that compute them."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from distprune.core.latency_table import Machine

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
"""Features of a processor that decide how fast it multiplies."""

PACKAGES = ("torch", "transformers")


def describe_machine(device: str = "cpu") -> Machine:
    """Describe this machine; its accelerator only where `device` is one."""
    name, features = parse_processor(_read("/proc/cpuinfo"))
    return Machine(
        processor=name or platform.processor() or platform.machine(),
        features=features,
        cpus=count_cpus(),
        accelerator=_name_accelerator() if device == "cuda" else None,
    )


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def read_load() -> float:
    """Return how many processes wanted to run, over the last minute."""
    return os.getloadavg()[0]


def count_cpus() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parse_processor(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a processor's name and its features of `FEATURES` from /proc/cpuinfo."""
    pairs = (line.partition(":") for line in text.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    flags = fields.get("flags", fields.get("Features", "")).split()
    return fields.get("model name", ""), tuple(name for name in FEATURES if name in flags)


def _name_accelerator() -> str | None:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
