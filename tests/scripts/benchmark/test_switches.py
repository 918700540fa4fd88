"""Every switch finds the seam that it changes; one that is gone is an error."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from scripts.benchmark import switches
from scripts.benchmark.figures.ablation import WITHOUT


@pytest.mark.parametrize("switch", sorted(switches.SWITCHES))
def test_each_switch_can_be_thrown(switch: str) -> None:
    # In a process of its own: a thrown switch stays.
    code = (
        "from scripts.benchmark import switches\n"
        f"switches.SWITCHES[{switch!r}]()\n"
        "from distprune.trial import executor\n"
        "[executor.find_work(stage) for stage in ('dense', 'probe', 'retrain', 'score')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_ablation_names_switches() -> None:
    assert set(WITHOUT) < set(switches.SWITCHES)


def test_a_seam_that_is_gone() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        switches.replace_attribute(SimpleNamespace(), "nothing_of_the_kind", lambda original: None)


def test_a_switch_is_thrown_once() -> None:
    owner = SimpleNamespace(work=lambda: 1)
    for _ in range(2):
        switches.replace_attribute(owner, "work", lambda original: lambda: original() + 1)
    assert owner.work() == 2
