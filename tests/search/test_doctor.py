"""The doctor puts together what it finds; a search refuses what the quick part finds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distprune.errors import ClusterError, ConfigError
from distprune.library.study_folder import StudyFolder
from distprune.models.checkpoint import inspect_checkpoint
from distprune.search import doctor
from distprune.search.doctor import DoctorRequest, check_cluster, examine, name_places
from distprune.search.driver_lease import hold_study
from distprune.search.examination import Answer, Questions
from distprune.search.findings import Finding, Severity
from distprune.search.spec import ResourcesSpec
from distprune.search.study_file import Study, check_study
from distprune.store.paths import PATHS
from distprune.store.store import Store
from tests.cli.tiny_search import tiny_values
from tests.search.test_diagnosis import GIB, VERSIONS, make_answer

STORAGE_LOST = {"written": "Read-only file system"}


@pytest.fixture
def study(tmp_path: Path, mlm_checkpoint: Path, word_task: Path) -> Study:
    return check_study(tiny_values(tmp_path / "studies", mlm_checkpoint, word_task))


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "studies", "tiny")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, mlm_checkpoint: Path) -> dict[str, Any]:
    """Stand for a cluster of two nodes; what they answer can be changed by name."""
    changes: dict[str, Any] = {}

    def ask_all(questions: Questions) -> tuple[Answer, tuple[Answer, ...]]:
        asked.append(questions)
        found = {
            "place": questions.checkpoint,
            "fingerprint": "f",
            "num_bytes": None,
            "problem": "",
        }
        driver, n1, n2 = (
            replace(make_answer(name, checkpoint=found), **changes.get(name, {}))
            for name in ("driver", "n1", "n2")
        )
        return driver, (n1, n2)

    asked: list[Questions] = []
    monkeypatch.setattr(doctor, "ask_all", ask_all)
    monkeypatch.setattr(doctor, "connect_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(doctor, "resolve_resources", lambda _: ResourcesSpec(gpus_per_stage=0))
    monkeypatch.setattr(doctor, "check_resources", lambda _: None)
    monkeypatch.setattr(doctor, "uses_token", lambda: True)
    changes["asked"] = asked
    return changes


def find(findings: Sequence[Finding], severity: Severity) -> list[tuple[str, str]]:
    """Return name and node of the findings of a severity."""
    return [(f.name, f.node) for f in findings if f.severity is severity]


def test_well_cluster_has_no_failure(
    study: Study, folder: StudyFolder, answers: dict[str, Any]
) -> None:
    told: list[str] = []
    findings = examine(DoctorRequest(study, folder, "10.0.0.5:6379"), told.append)
    assert find(findings, Severity.FAILURE) == find(findings, Severity.WARNING) == []
    names = {finding.name for finding in findings}
    assert names >= {"data", "leases", "token", "resources", "versions", "storage", "checkpoint"}
    assert names >= {"clock", "disk", "memory"}
    assert told[-1] == "Asking every node"


def test_examination_leaves_nothing_behind(
    study: Study, folder: StudyFolder, answers: dict[str, Any]
) -> None:
    examine(DoctorRequest(study, folder, "auto"))
    left = [path for path in folder.storage.rglob("*") if path.is_file()]
    assert {path.name for path in left} <= {"guard"}


def test_cluster_that_asks_for_no_token_is_a_warning(
    study: Study, folder: StudyFolder, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "uses_token", lambda: False)
    findings = examine(DoctorRequest(study, folder, "10.0.0.5:6379"))
    assert find(findings, Severity.WARNING) == [("token", "driver")]


def test_cluster_that_refuses_leaves_the_rest_examined(
    study: Study, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def refuse(*_: Any) -> Iterator[None]:
        raise ClusterError("token: the cluster refuses that of this machine; print the cluster's")
        yield

    monkeypatch.setattr(doctor, "connect_cluster", refuse)
    findings = examine(DoctorRequest(study, folder, "10.0.0.5:6379"))
    (finding,) = [f for f in findings if f.severity is Severity.FAILURE]
    assert (finding.name, finding.node) == ("token", "driver")
    assert finding.what == "the cluster refuses that of this machine"
    assert finding.advice == "print the cluster's"
    assert "data" in {f.name for f in findings}


def test_resources_that_no_node_has(
    study: Study, folder: StudyFolder, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: ResourcesSpec) -> None:
        raise ConfigError("resources.cpus_per_stage: 9; the largest node has 8 cores; ask for less")

    monkeypatch.setattr(doctor, "check_resources", refuse)
    findings = examine(DoctorRequest(study, folder, "auto"))
    assert find(findings, Severity.FAILURE) == [("resources", "driver")]


def test_bad_inputs_are_told_once(
    study: Study, folder: StudyFolder, answers: dict[str, Any]
) -> None:
    task = study.base.task.model_copy(update={"dataset": "/nowhere.csv"})
    base = study.base.model_copy(update={"checkpoint": "/nowhere", "task": task})
    missing = {"place": None, "fingerprint": None, "num_bytes": None, "problem": "'/nowhere' x"}
    answers["driver"] = {"checkpoint": missing}
    findings = examine(DoctorRequest(replace(study, base=base), folder, "auto"))
    assert find(findings, Severity.FAILURE) == [("checkpoint", "driver"), ("data", "driver")]


def test_lease_of_a_dead_process_is_told(
    study: Study, folder: StudyFolder, answers: dict[str, Any]
) -> None:
    leases = folder.store / PATHS.leases
    leases.mkdir(parents=True)
    lease = leases / f"{'a' * 64}.json"
    lease.write_text('{"host": "far.01234567", "pid": 7, "start": 1, "token": "t"}')
    os.utime(lease, (1.0, 1.0))
    findings = examine(DoctorRequest(study, folder, "auto"))
    (finding,) = [f for f in findings if f.severity is Severity.WARNING]
    assert finding.name == "leases"
    assert "process 7 on far.01234567" in finding.what


def test_driver_at_work_is_told(study: Study, folder: StudyFolder, answers: dict[str, Any]) -> None:
    with hold_study(folder.lease, folder.name):
        findings = examine(DoctorRequest(study, folder, "auto"))
    (finding,) = [f for f in findings if f.severity is Severity.FAILURE]
    assert finding.name == "study"
    assert f"process {os.getpid()}" in finding.what


def test_storage_that_the_driver_cannot_write_is_told_once(
    study: Study, folder: StudyFolder, answers: dict[str, Any]
) -> None:
    folder.storage.parent.mkdir(exist_ok=True)
    folder.storage.write_text("in the way")
    answers["driver"] = STORAGE_LOST
    findings = examine(DoctorRequest(study, folder, "auto"))
    assert find(findings, Severity.FAILURE) == [("storage", "driver")]


class TestQuickPart:
    def test_it_passes_a_well_cluster(
        self, study: Study, folder: StudyFolder, answers: dict[str, Any], mlm_checkpoint: Path
    ) -> None:
        facts = inspect_checkpoint(str(mlm_checkpoint))
        check_cluster(study, folder.open_store(), facts)
        (questions,) = answers["asked"]
        assert questions.checkpoint == facts.location
        assert not questions.is_thorough

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"problem": "no answer in 120 s"}, "node on n2: cannot be examined (no answer"),
            ({"versions": {**VERSIONS, "distprune": "0.0.9"}}, "versions on n2: distprune 0.0.9"),
            ({"unread": {"driver": "not there"}}, "storage on n2: "),
            (STORAGE_LOST, "storage on n2: "),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_it_refuses_what_would_fail(
        self,
        study: Study,
        folder: StudyFolder,
        answers: dict[str, Any],
        mlm_checkpoint: Path,
        changes: dict[str, Any],
        words: str,
    ) -> None:
        answers["n2"] = changes
        with pytest.raises(ClusterError) as caught:
            check_cluster(study, folder.open_store(), inspect_checkpoint(str(mlm_checkpoint)))
        assert str(caught.value).startswith(words)
        assert len(str(caught.value).splitlines()) == 1
        assert "; " in str(caught.value)

    def test_it_warns_of_what_may_fail_later(
        self,
        study: Study,
        folder: StudyFolder,
        answers: dict[str, Any],
        mlm_checkpoint: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        answers["n1"] = {"versions": {**VERSIONS, "datasets": "4.5.0"}}
        check_cluster(study, folder.open_store(), inspect_checkpoint(str(mlm_checkpoint)))
        (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert "versions on n1: datasets 4.5.0" in record.getMessage()

    def test_full_disk_is_refused(
        self, study: Study, folder: StudyFolder, answers: dict[str, Any], mlm_checkpoint: Path
    ) -> None:
        disk = {"place": "/mnt", "free": 1 << 20, "total": 10 * GIB}
        answers["driver"] = {"disks": {"storage": disk}}
        with pytest.raises(ClusterError, match=r"disk on driver: /mnt has 1 MiB free"):
            check_cluster(study, folder.open_store(), inspect_checkpoint(str(mlm_checkpoint)))


def test_places_are_those_that_fill_up(tmp_path: Path) -> None:
    assert name_places(Store(str(tmp_path))) == {"storage": str(tmp_path), "ray": "/tmp"}
    assert name_places(Store("memory://bucket/store")) == {"cache": None, "ray": "/tmp"}
