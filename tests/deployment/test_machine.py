"""What latencies are measured on."""

from __future__ import annotations

import os

import pytest
import torch

from distprune.deployment.machine import (
    count_cpus,
    describe_machine,
    describe_versions,
    parse_processor,
)

INTEL = "processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: fpu amx_bf16 avx2 avx512f\n\n" * 2
ARM = "processor : 0\nFeatures : fp asimd sve bf16\n"


def test_processor_is_read_from_linux() -> None:
    assert parse_processor(INTEL) == ("Fast 9000", ("avx2", "avx512f", "amx_bf16"))
    assert parse_processor(ARM) == ("", ("asimd", "sve", "bf16"))
    assert parse_processor("") == ("", ())


def test_this_machine() -> None:
    machine = describe_machine()
    assert machine == describe_machine()
    assert machine.processor
    assert machine.accelerator is None
    assert machine.cpus == count_cpus() <= (os.cpu_count() or 1)


def test_accelerator_is_part_of_a_machine_that_computes_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Big GPU")
    assert describe_machine("cuda").accelerator == "Big GPU"
    assert describe_machine("cpu").accelerator is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert describe_machine("cuda").accelerator is None


def test_versions_name_what_computes() -> None:
    assert {"python", "torch", "transformers"} == set(describe_versions())
