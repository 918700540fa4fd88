"""What nodes answer becomes findings: each fault is told on its node, with what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distprune.core.units import EncoderShape
from distprune.models.checkpoint import CheckpointFacts
from distprune.search.diagnosis import (
    Needs,
    estimate_needs,
    judge_checkpoint,
    judge_clocks,
    judge_disks,
    judge_leases,
    judge_memory,
    judge_silence,
    judge_storage,
    judge_versions,
    merge_findings,
)
from distprune.search.examination import Answer, Clock
from distprune.search.findings import DRIVER, Finding, Severity, failed, passed, warned
from distprune.search.spec import ResourcesSpec
from distprune.store.lease import Holder
from distprune.store.process import Process
from tests.search.synthetic import make_study

VERSIONS = {
    "python": "3.11.9",
    "distprune": "0.1.0",
    "distprune code": "aaaaaaaaaaaa",
    "ray": "2.60.0",
    "torch": "2.13.0+cpu",
    "transformers": "5.23.0",
    "datasets": "4.4.0",
    "numpy": "2.3.0",
}
STORE = "/mnt/studies/store"
GIB = 1 << 30
NEEDS = Needs(first=GIB, most=4 * GIB, training=2 * GIB, activations=GIB)
FOUND = {"place": "/models/bert", "fingerprint": "f1", "num_bytes": None, "problem": ""}


def make_answer(node: str, **changes: Any) -> Answer:
    """Return what a node answers with which all is well."""
    answer = Answer(
        node=node,
        resources={"CPU": 2.0, "memory": 8.0 * GIB},
        versions=VERSIONS,
        checkpoint=FOUND,
        disks={
            "storage": {"place": STORE, "free": 9 * GIB, "total": 10 * GIB},
            "ray": {"place": "/tmp", "free": 9 * GIB, "total": 10 * GIB},
        },
        memory={"total": 16 * GIB, "available": 12 * GIB},
        clock=Clock(0.01, 0.002),
    )
    return replace(answer, **changes)


DRIVER_ANSWER = make_answer(DRIVER, resources={}, memory={}, clock=None)
N1, N2 = make_answer("n1"), make_answer("n2")


def only(findings: Any) -> Finding:
    """Return the one finding that is not well."""
    (finding,) = [finding for finding in findings if finding.severity is not Severity.OK]
    return finding


def test_nothing_is_found_where_all_is_well() -> None:
    nodes = (N1, N2)
    findings = [
        *judge_silence(nodes),
        *judge_versions(DRIVER_ANSWER, nodes),
        *judge_storage(STORE, DRIVER_ANSWER, nodes),
        *judge_checkpoint("bert", DRIVER_ANSWER, nodes),
        *judge_clocks(nodes),
        *judge_disks(NEEDS, None, DRIVER_ANSWER, nodes),
        *judge_memory(NEEDS, ResourcesSpec(), nodes),
        *judge_leases("leases", (), now=0.0),
    ]
    assert {finding.severity for finding in findings} == {Severity.OK}
    names = {"versions", "storage", "checkpoint", "clock", "disk", "memory", "leases"}
    assert {finding.name for finding in findings} == names


def test_node_that_is_silent_is_told_and_judged_no_further() -> None:
    silent = Answer("n2", problem="no answer in 120 s")
    finding = only(judge_silence((N1, silent)))
    assert (finding.node, finding.severity) == ("n2", Severity.FAILURE)
    assert "no answer in 120 s" in finding.what
    for findings in (
        judge_versions(DRIVER_ANSWER, (silent,)),
        judge_clocks((silent,)),
        judge_memory(NEEDS, ResourcesSpec(), (silent,)),
    ):
        assert list(findings) == []


def test_node_that_was_lost_meanwhile_keeps_nobody_from_a_study() -> None:
    finding = only(judge_silence((N1, Answer("n2", problem="its node has died", is_gone=True))))
    assert (finding.node, finding.severity) == ("n2", Severity.WARNING)
    assert "left the cluster" in finding.what


class TestVersions:
    @pytest.mark.parametrize(
        ("changes", "severity", "what"),
        [
            ({"distprune": "0.0.9"}, "failure", "distprune 0.0.9; the driver has 0.1.0"),
            ({"distprune": None}, "failure", "distprune is not installed"),
            ({"distprune code": "b"}, "failure", "distprune 0.1.0 with other code (b; the driver"),
            ({"torch": "2.12.1+cpu"}, "failure", "torch 2.12.1+cpu; the driver has 2.13.0+cpu"),
            ({"transformers": None}, "failure", "transformers is not installed"),
            ({"numpy": "2.2.0"}, "failure", "numpy 2.2.0; the driver has 2.3.0"),
            ({"datasets": None}, "failure", "datasets is not installed"),
            ({"datasets": "4.5.0"}, "warning", "datasets 4.5.0; the driver has 4.4.0"),
            ({"python": "3.11.4"}, "warning", "python 3.11.4; the driver has 3.11.9"),
        ],
        ids=str,
    )
    def test_other_version_is_told(self, changes: Any, severity: str, what: str) -> None:
        other = replace(N2, versions={**VERSIONS, **changes})
        finding = only(judge_versions(DRIVER_ANSWER, (N1, other)))
        assert (finding.name, finding.node, finding.severity) == ("versions", "n2", severity)
        assert finding.what.startswith(what)
        assert "install the" in finding.advice

    def test_other_build_of_a_version_is_none(self) -> None:
        other = replace(N2, versions={**VERSIONS, "torch": "2.13.0+cu130"})
        assert {f.severity for f in judge_versions(DRIVER_ANSWER, (other,))} == {Severity.OK}

    def test_other_distprune_can_be_replaced_by_this_one(self) -> None:
        other = replace(N2, versions={**VERSIONS, "distprune": "0.0.9"})
        assert "--ship-code" in only(judge_versions(DRIVER_ANSWER, (other,))).advice


class TestStorage:
    @pytest.mark.parametrize(
        ("in_driver", "in_node"),
        [({"n2": "not there"}, {DRIVER: "not there", "n1": "not there"}), ({"n2": "x"}, {})],
    )
    def test_storage_that_a_node_has_alone_is_not_shared(
        self, in_driver: dict[str, str], in_node: dict[str, str]
    ) -> None:
        driver = replace(DRIVER_ANSWER, unread=in_driver)
        nodes = (replace(N1, unread={"n2": "not there"}), replace(N2, unread=in_node))
        finding = only(judge_storage(STORE, driver, nodes))
        assert (finding.node, finding.severity) == ("n2", Severity.FAILURE)
        assert f"{STORE} is not shared" in finding.what
        assert "mount one file system" in finding.advice
        assert "s3://" in finding.advice

    def test_two_nodes_that_do_not_see_each_other(self) -> None:
        nodes = (replace(N1, unread={"n2": "stale"}), N2)
        finding = only(judge_storage(STORE, DRIVER_ANSWER, nodes))
        assert finding.node == "n1"
        assert "what n2 wrote is not read there (n2: stale)" in finding.what

    @pytest.mark.parametrize(
        ("problem", "advice"),
        [
            ("No space left on device", "free space"),
            ("Disk quota exceeded", "free space"),
            ("Read-only file system", "mount it writable"),
            ("No locks available", "file locks"),
            ("there is no folder /mnt/studies/store", "mount one file system"),
            ("Permission denied", "who may write there"),
        ],
    )
    @pytest.mark.parametrize("node", [DRIVER, "n1"])
    def test_storage_that_cannot_be_written(self, node: str, problem: str, advice: str) -> None:
        driver, n1 = (
            replace(a, written=problem if a.node == node else "") for a in (DRIVER_ANSWER, N1)
        )
        finding = only(judge_storage(STORE, driver, (n1, N2)))
        assert (finding.node, finding.severity) == (node, Severity.FAILURE)
        assert finding.what == f"{STORE} cannot be written ({problem})"
        assert advice in finding.advice

    def test_keys_of_object_storage_come_from_each_node(self) -> None:
        n1 = replace(N1, written="NoCredentialsError: Unable to locate credentials")
        finding = only(judge_storage("s3://bucket/store", DRIVER_ANSWER, (n1,)))
        assert "this node's own environment has its keys (AWS_*)" in finding.advice


class TestCheckpoint:
    def test_missing_on_a_node(self) -> None:
        problem = "checkpoint: folder '/models/bert' does not exist; correct the path"
        n2 = replace(N2, checkpoint={**FOUND, "place": None, "problem": problem})
        finding = only(judge_checkpoint("/models/bert", DRIVER_ANSWER, (N1, n2)))
        assert (finding.node, finding.severity) == ("n2", Severity.FAILURE)
        assert finding.what == "folder '/models/bert' does not exist"
        assert "same path on every node" in finding.advice

    def test_other_files_under_the_same_path(self) -> None:
        n2 = replace(N2, checkpoint={**FOUND, "fingerprint": "f2"})
        finding = only(judge_checkpoint("bert", DRIVER_ANSWER, (N1, n2)))
        assert finding.node == "n2"
        assert "holds other files than on the driver" in finding.what

    def test_what_will_be_downloaded_is_no_fault(self) -> None:
        later = {**FOUND, "place": None, "fingerprint": None, "num_bytes": 90 << 20}
        findings = list(judge_checkpoint("bert", DRIVER_ANSWER, (replace(N1, checkpoint=later),)))
        assert {finding.severity for finding in findings} == {Severity.OK}
        assert findings[-1].what == "bert will be downloaded (90 MiB)"

    def test_node_with_other_code_is_not_judged(self) -> None:
        n2 = replace(
            N2,
            versions={**VERSIONS, "distprune code": None},
            checkpoint={**FOUND, "problem": "ModuleNotFoundError: No module named 'distprune'"},
        )
        assert {f.node for f in judge_checkpoint("bert", DRIVER_ANSWER, (n2,))} == {DRIVER}


class TestClocks:
    @pytest.mark.parametrize(
        ("ahead_s", "error_s", "severity", "what"),
        [
            (95.0, 0.01, "failure", "its clock is 95.0 s ahead of the driver's"),
            (-31.0, 0.01, "failure", "its clock is 31.0 s behind the driver's"),
            (31.0, 2.0, "warning", "its clock is 31.0 s ahead of the driver's"),
            (-3.0, 0.01, "warning", "its clock is 3.0 s behind the driver's"),
        ],
    )
    def test_clock_that_goes_wrong(
        self, ahead_s: float, error_s: float, severity: str, what: str
    ) -> None:
        finding = only(judge_clocks((N1, replace(N2, clock=Clock(ahead_s, error_s)))))
        assert (finding.node, finding.severity, finding.what) == ("n2", severity, what)
        assert "synchronise it" in finding.advice

    def test_reading_that_is_not_exact_is_no_fault(self) -> None:
        (finding,) = judge_clocks((replace(N1, clock=Clock(3.0, 2.5)),))
        assert finding.severity is Severity.OK


class TestDisks:
    @pytest.mark.parametrize(
        ("free", "max_gib", "severity", "words"),
        [
            (GIB - 1, None, "failure", "the dense model alone takes 1.0 GiB"),
            (2 * GIB, None, "warning", "the study can take 4.0 GiB"),
            (2 * GIB, 3.0, "warning", "the study can take 3.0 GiB"),
        ],
    )
    def test_storage_that_fills_up(
        self, free: int, max_gib: float | None, severity: str, words: str
    ) -> None:
        disks = {"storage": {"place": STORE, "free": free, "total": 10 * GIB}}
        driver = replace(DRIVER_ANSWER, disks=disks)
        finding = only(judge_disks(NEEDS, max_gib, driver, (N1,)))
        assert (finding.node, finding.severity) == (DRIVER, severity)
        assert words in finding.what

    def test_limit_of_the_store_keeps_it_small(self) -> None:
        disks = {"storage": {"place": STORE, "free": 2 * GIB, "total": 10 * GIB}}
        driver = replace(DRIVER_ANSWER, disks=disks)
        findings = judge_disks(NEEDS, 1.5, driver, (N1,))
        assert {finding.severity for finding in findings} == {Severity.OK}

    def test_disk_of_a_node_that_ray_refuses(self) -> None:
        disks = {"ray": {"place": "/tmp", "free": GIB // 4, "total": 10 * GIB}}
        finding = only(judge_disks(NEEDS, None, DRIVER_ANSWER, (N1, replace(N2, disks=disks))))
        assert (finding.node, finding.severity) == ("n2", Severity.WARNING)
        assert "Ray keeps nothing more on a disk that is 95% full" in finding.what

    def test_cache_of_a_remote_store(self) -> None:
        disks = {"cache": {"place": "/root/.cache", "free": GIB // 2, "total": 10 * GIB}}
        finding = only(judge_disks(NEEDS, None, DRIVER_ANSWER, (N1, replace(N2, disks=disks))))
        assert (finding.node, finding.severity) == ("n2", Severity.FAILURE)
        assert "XDG_CACHE_HOME" in finding.advice


class TestMemory:
    @pytest.mark.parametrize(
        ("available", "severity", "words"),
        [
            (2 * GIB - 1, "failure", "one stage takes 2.0 GiB at least"),
            (5 * GIB, "warning", "2 stages at a time can take 6.0 GiB"),
        ],
    )
    def test_node_that_is_too_small(self, available: int, severity: str, words: str) -> None:
        n2 = replace(N2, memory={"total": 6 * GIB, "available": available})
        finding = only(judge_memory(NEEDS, ResourcesSpec(), (N1, n2)))
        assert (finding.node, finding.severity) == ("n2", severity)
        assert words in finding.what

    def test_node_that_runs_no_stage_needs_none(self) -> None:
        head = replace(N1, resources={"CPU": 0.0}, memory={"total": GIB, "available": GIB})
        assert list(judge_memory(NEEDS, ResourcesSpec(), (head,))) == []

    @pytest.mark.parametrize(
        ("share", "severity"), [(0.25, "failure"), (0.5, "warning"), (1.0, "ok")]
    )
    def test_share_of_a_card(self, share: float, severity: str) -> None:
        card = replace(N1, resources={"CPU": 8.0, "GPU": 1.0}, cards=(5 * GIB,))
        findings = judge_memory(NEEDS, ResourcesSpec(gpus_per_stage=share), (card,))
        (finding,) = [finding for finding in findings if finding.name == "GPU memory"]
        assert finding.severity == severity


class TestLeases:
    def test_lease_of_a_silent_process(self) -> None:
        holders = (
            Holder(Process("far.01234567", 7, 1), heartbeat=900.0),
            Holder(Process("far.01234567", 8, 1), heartbeat=995.0),
        )
        finding = only(judge_leases("/store/leases", holders, now=1000.0))
        assert finding.severity is Severity.WARNING
        assert "1 of 2 leases in /store/leases" in finding.what
        assert "process 7 on far.01234567, silent for 100 s" in finding.what
        assert finding.advice.startswith("nothing to do")

    def test_leases_of_the_living_are_no_fault(self) -> None:
        holders = (Holder(Process("far.01234567", 7, 1), heartbeat=999.0),)
        (finding,) = judge_leases("/store/leases", holders, now=1000.0)
        assert (finding.severity, finding.what) == (Severity.OK, "1 stages are at work")


def test_needs_grow_with_the_model_and_the_study() -> None:
    def facts(num_layers: int) -> CheckpointFacts:
        shape = EncoderShape(num_layers, 12, 3072, 768, 64)
        return CheckpointFacts("bert", "bert", "f", "bert", shape, True, 30522, 512)

    study = make_study()
    needs = estimate_needs(study, facts(12))
    parameters = 109_482_240  # of bert-base, embeddings of token types aside
    points = len({*study.rewinding_points, 0.0, 1.0})
    assert (needs.first - (256 << 20)) / points == pytest.approx(4 * parameters, rel=0.01)
    assert needs.training - (700 << 20) == pytest.approx(16 * parameters, rel=0.01)
    assert needs.most > needs.first
    smaller = estimate_needs(study, facts(6))
    assert smaller.first < needs.first
    assert smaller.activations * 2 == needs.activations


class TestMerging:
    def test_equal_findings_are_one(self) -> None:
        findings = [passed("clock", "n1", "well"), failed("clock", "n2", "far off", "mend it")]
        findings += [passed("clock", "n3", "well"), warned("disk", "n1", "full", "free it")]
        merged = merge_findings(findings, num_nodes=3)
        assert [(f.name, f.node, str(f.severity)) for f in merged] == [
            ("clock", "n2", "failure"),
            ("clock", "n1, n3", "ok"),
            ("disk", "n1", "warning"),
        ]

    def test_all_nodes_are_named_together(self) -> None:
        findings = [passed("clock", name, "well") for name in ("n1", "n2")]
        assert merge_findings(findings, num_nodes=2)[0].node == "all 2 nodes"
