"""The doctor: finds out on every node whether a study would run, before it takes a GPU hour."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from distprune.errors import ClusterError, InputError, StudyExistsError
from distprune.library.driver_lock import DriverLock
from distprune.library.study_folder import StudyFolder
from distprune.models.checkpoint import CheckpointFacts, inspect_checkpoint
from distprune.search.address import uses_token
from distprune.search.cluster import check_resources, connect_cluster, resolve_resources
from distprune.search.diagnosis import (
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
from distprune.search.driver_lease import hold_study
from distprune.search.examination import Answer, Questions, ask_all, ask_driver
from distprune.search.findings import (
    DRIVER,
    Finding,
    Severity,
    describe_error,
    failed,
    has_failure,
    passed,
    warned,
)
from distprune.search.spec import ResourcesSpec
from distprune.search.study_file import Study
from distprune.store.lease import read_holders
from distprune.store.opening import open_objects
from distprune.store.paths import PATHS
from distprune.store.store import Store
from distprune.tasks.sources import load_source

logger = logging.getLogger(__name__)

RAY_FOLDER = "/tmp"
"""Where Ray keeps its files on a node, unless it was started with --temp-dir."""


@dataclass(frozen=True)
class DoctorRequest:
    """What is examined.

    Attributes:
        study: The checked study file.
        folder: Where it is, or would be, kept.
        address: Address of a Ray cluster; None starts one on this machine.
        ship_code: Send this installation's distprune to the workers.
        verbose: Let Ray's and the workers' output through.
    """

    study: Study
    folder: StudyFolder
    address: str | None = None
    ship_code: bool = False
    verbose: bool = False


def examine(
    request: DoctorRequest, notify: Callable[[str], None] = lambda _: None
) -> tuple[Finding, ...]:
    """Examine everything that a study needs, on the driver and on every node.

    Stages are not run, nothing but small files is written, and those are removed again.

    Args:
        request: The study and its cluster.
        notify: Hears what is looked at next.
    """
    study, folder = request.study, request.folder
    store = folder.open_store()
    notify("Reading checkpoint and data")
    checkpoint, findings = _examine_inputs(study)
    notify("Looking at the storage")
    is_writable, found = _examine_store(store, folder)
    findings += found
    location = checkpoint.location if checkpoint else study.base.checkpoint
    questions = Questions(store.root, location, name_places(store))
    notify("Connecting to the cluster")
    resources = study.spec.resources
    try:
        with connect_cluster(request.address, request.verbose, request.ship_code):
            findings.append(_describe_cluster(request.address))
            resources = resolve_resources(resources)
            findings += _examine_resources(resources)
            notify("Asking every node")
            driver, nodes = ask_all(questions)
    except ClusterError as error:
        findings += describe_error(error)
        driver, nodes = ask_driver(questions), ()
    findings += judge_silence(nodes)
    findings += judge_versions(driver, nodes)
    if is_writable:
        findings += judge_storage(store.root, driver, nodes)
    findings += _judge_checkpoint(study, checkpoint, driver, nodes)
    findings += judge_clocks(nodes)
    if checkpoint is not None:
        needs = estimate_needs(study, checkpoint)
        findings += judge_disks(needs, study.spec.store.max_gib, driver, nodes)
        findings += judge_memory(needs, resources, nodes)
    return merge_findings(findings, len(nodes))


def check_cluster(study: Study, store: Store, checkpoint: CheckpointFacts) -> None:
    """Refuse the connected cluster if the study would fail on it at its first checkpoint.

    The quick part of `examine`: versions, storage, checkpoint and the disk of the storage.

    Raises:
        ClusterError: It would; one line for each reason.
    """
    questions = Questions(store.root, checkpoint.location, name_places(store), is_thorough=False)
    driver, nodes = ask_all(questions)
    needs = estimate_needs(study, checkpoint)
    findings = merge_findings(
        [
            *judge_silence(nodes),
            *judge_versions(driver, nodes),
            *judge_storage(store.root, driver, nodes),
            *judge_checkpoint(checkpoint.name, driver, nodes),
            *judge_disks(needs, study.spec.store.max_gib, driver, nodes),
        ],
        len(nodes),
    )
    for finding in findings:
        if finding.severity is Severity.WARNING:
            logger.warning("%s", finding)
    if has_failure(findings):
        lines = [str(f) for f in findings if f.severity is Severity.FAILURE]
        raise ClusterError("\n".join(lines))


def name_places(store: Store) -> dict[str, str | None]:
    """Return the places whose disks a study fills: the storage or copies of it, and Ray's files.

    None stands for the cache folder of whoever is asked.
    """
    if "://" in store.root:
        return {"cache": None, "ray": RAY_FOLDER}
    return {"storage": store.root, "ray": RAY_FOLDER}


def _examine_inputs(study: Study) -> tuple[CheckpointFacts | None, list[Finding]]:
    """Read checkpoint and data on the driver, as a search does."""
    findings: list[Finding] = []
    checkpoint = None
    try:
        checkpoint = inspect_checkpoint(study.base.checkpoint)
    except InputError as error:
        findings += describe_error(error, "checkpoint")
    try:
        splits = load_source(study.base.task)
    except InputError as error:
        findings += describe_error(error, "data")
    else:
        rows = ", ".join(f"{split.num_rows:,} of {name}" for name, split in splits.items())
        findings.append(passed("data", DRIVER, f"{study.base.task.dataset}: examples {rows}"))
    return checkpoint, findings


def _judge_checkpoint(
    study: Study,
    checkpoint: CheckpointFacts | None,
    driver: Answer,
    nodes: tuple[Answer, ...],
) -> Iterator[Finding]:
    """Judge the checkpoint on the nodes; what is wrong with it on the driver is said already."""
    for finding in judge_checkpoint(study.base.checkpoint, driver, nodes):
        if checkpoint is not None or finding.node != DRIVER:
            yield finding


def _examine_store(store: Store, folder: StudyFolder) -> tuple[bool, list[Finding]]:
    """Return whether the driver can write the store, and what is found there."""
    try:
        store.check_writable()
    except InputError as error:
        return False, describe_error(error, "storage")
    findings = list(_examine_driver_lease(folder))
    if folder.uri is None:
        findings += _examine_leases(Path(store.root))
    else:
        findings += _examine_creation(folder.uri)
    return True, findings


def _examine_driver_lease(folder: StudyFolder) -> Iterator[Finding]:
    """Say who works on the study already, if anybody does."""
    if folder.uri is not None:
        holder = DriverLock(open_objects(folder.uri), folder.name).find_holder()
        if holder is not None:
            yield warned(
                "study",
                DRIVER,
                f"{holder} drives it, or has died without letting go of it",
                "wait for its end; from one that is dead, a search takes the study over after a "
                "minute",
            )
    elif folder.lease.exists():
        try:
            with hold_study(folder.lease, folder.name):
                pass
        except StudyExistsError as error:
            yield from describe_error(error, "study")


def _examine_creation(uri: str) -> Iterator[Finding]:
    """Find out whether objects can be created without replacing any: two drivers rely on it."""
    objects, name = open_objects(uri), f".probe-{secrets.token_hex(6)}"
    objects.create(name, b"one")
    try:
        if objects.create(name, b"two"):
            yield failed(
                "storage",
                DRIVER,
                f"{uri} replaces objects that may only be created, so two drivers could destroy "
                "each other's study",
                "use a server (and an s3fs) that knows conditional writes (If-None-Match), or a "
                "shared folder",
            )
    finally:
        objects.remove(name)


def _examine_leases(root: Path) -> Iterator[Finding]:
    """Judge the leases of a store by the clock that dates them, which may be a file server's."""
    probe = root / f".probe-{secrets.token_hex(6)}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError as error:
        yield failed("storage", DRIVER, f"{root}: {error.strerror or error}", "check the disk")
        now = time.time()
    leases = root / PATHS.leases
    yield from judge_leases(str(leases), read_holders(sorted(leases.glob("*.json"))), now)


def _describe_cluster(address: str | None) -> Finding:
    if address is None:
        return passed("cluster", DRIVER, "started on this machine for the examination")
    if uses_token():
        return passed("token", DRIVER, f"{address} takes it")
    return warned(
        "token",
        DRIVER,
        f"{address} asks for none, so whoever reaches its ports can run code on it",
        "start Ray on all nodes with RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN",
    )


def _examine_resources(resources: ResourcesSpec) -> list[Finding]:
    try:
        check_resources(resources)
    except InputError as error:
        return describe_error(error, "resources")
    return [passed("resources", DRIVER, "a stage and a trial fit on a node")]
