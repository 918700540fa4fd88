"""A few rounds of the chaos test, and that what is broken afterwards shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from distprune.library.study_folder import StudyFolder
from scripts.chaos.evidence import find_differences
from scripts.chaos.machine import Machine
from scripts.chaos.plans import Kind, Plan, Strike, StudyKind
from scripts.chaos.rounds import Twin, run_round, run_twin
from scripts.chaos.studies import Inputs, make_inputs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(900),
]

ROUNDS = {
    StudyKind.PARALLEL: (Strike(Kind.TRACKING, 0.3, 1), Strike(Kind.RAYLET, 0.5, 2)),
    StudyKind.SEQUENTIAL: (Strike(Kind.STAGE, 0.3, 3), Strike(Kind.STORE, 0.5, 4)),
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    site = Machine(tmp_path_factory.mktemp("chaos"))
    yield site
    site.close(keep_files=False)


@pytest.fixture(scope="module")
def inputs(machine: Machine) -> Inputs:
    return make_inputs(machine.work / "inputs")


@pytest.fixture(scope="module")
def twins(machine: Machine, inputs: Inputs) -> dict[StudyKind, Twin]:
    return {kind: run_twin(kind, machine, inputs) for kind in StudyKind}


@pytest.mark.parametrize("kind", StudyKind)
def test_a_disturbed_study_is_equal_to_its_twin(
    kind: StudyKind, machine: Machine, inputs: Inputs, twins: dict[StudyKind, Twin]
) -> None:
    plan = Plan(list(StudyKind).index(kind), kind, has_server=True, strikes=ROUNDS[kind])
    done = run_round(plan, machine, inputs, twins[kind])
    assert done.differences == []
    assert [struck.kind for struck in done.struck] == [strike.kind for strike in plan.strikes]
    assert machine.find_orphans(done.drivers) == []


def test_what_is_broken_shows(machine: Machine, twins: dict[StudyKind, Twin]) -> None:
    twin = twins[StudyKind.SEQUENTIAL]
    folder = StudyFolder(copy_study(machine.work / f"twin-{StudyKind.SEQUENTIAL}"), "tiny")
    next(iter(folder.masks.glob("*/mask.safetensors"))).unlink()
    folder.leaderboard_csv.write_text("")
    folder.history.write_text("".join(folder.history.read_text().splitlines(True)[:-1]))
    shutil.rmtree(next(iter((folder.store / "entries").glob("??/*"))))
    (folder.store / "temporary" / "left").mkdir()
    found = find_differences(machine.gather(folder, None), twin.evidence)
    named = {line.split(":")[0] for line in found}
    assert named == {"masks", "leaderboard", "trials", "stages", "litter"}


def copy_study(place: Path) -> Path:
    target = place.with_name("broken") / "studies"
    shutil.copytree(place / "studies", target)
    return target
