"""Asking every node of the connected cluster: one examiner a node, all of them at the same time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distprune.search import node_checks
from distprune.search.cluster import list_living
from distprune.search.findings import DRIVER
from distprune.search.node_checks import NodeExaminer, describe

PACKAGES = ("ray", "torch", "transformers", "datasets", "numpy")
"""Packages whose versions are compared, beside python and distprune."""

ANSWER_TIMEOUT_S = 120.0
"""Longest wait for a node, which may have to start a worker and to read a large checkpoint."""

PATIENCE_S = 5.0
"""Longest wait for a file of another node; network file systems show them late."""

CLOCK_TIMEOUT_S = 10.0
NUM_CLOCK_READINGS = 3


@dataclass(frozen=True)
class Questions:
    """What is asked of the driver and of every node.

    Attributes:
        store: Root of the store, a path or a URI.
        checkpoint: Name of the checkpoint, as stages get it.
        places: Places whose disks are measured, by name; None = the user's cache folder.
        is_thorough: Read the whole checkpoint, look at memory and disks, compare clocks.
    """

    store: str
    checkpoint: str
    places: Mapping[str, str | None] = field(default_factory=dict)
    is_thorough: bool = True


@dataclass(frozen=True)
class Clock:
    """How far a node's clock is ahead of the driver's, in seconds, and how exact that is."""

    ahead_s: float
    error_s: float


@dataclass(frozen=True)
class Answer:
    """What a node answered.

    Attributes:
        node: Its name.
        problem: Why it did not answer; the rest is empty then.
        is_gone: It has left the cluster since.
        resources: What Ray counts on it; empty for the driver.
        versions: By package; None = missing.
        written: What kept it from writing to the storage; empty = nothing.
        unread: By the name of who wrote: what kept it from reading that.
        checkpoint: See `NodeExaminer.find_checkpoint`; empty = it was not asked.
        disks: Place, free and total bytes by name.
        memory: Total and available bytes.
        cards: Bytes of each GPU.
        clock: Its clock; None = it was not read.
    """

    node: str
    problem: str = ""
    is_gone: bool = False
    resources: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=dict)
    written: str = ""
    unread: Mapping[str, str] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    disks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    cards: Sequence[int] = ()
    clock: Clock | None = None


@dataclass(frozen=True)
class Node:
    """A living node of the cluster: its name for people, its id for Ray, and what Ray counts."""

    name: str
    identifier: str
    resources: Mapping[str, float]


def list_nodes() -> list[Node]:
    """Return the living nodes; part of their id tells apart those that share an address."""
    alive = list_living()
    addresses = [node["NodeManagerAddress"] for node in alive]
    return [
        Node(
            name=address if addresses.count(address) == 1 else f"{address}/{node['NodeID'][:6]}",
            identifier=node["NodeID"],
            resources=node["Resources"],
        )
        for address, node in zip(addresses, alive, strict=True)
    ]


def ask_driver(questions: Questions) -> Answer:
    """Return what this process answers, where there is no cluster."""
    with _sharing_probes(questions.store) as probes:
        return _ask_here(questions, probes)


def ask_all(questions: Questions) -> tuple[Answer, tuple[Answer, ...]]:
    """Ask this process and every living node of the connected cluster.

    Returns:
        The driver's answer, and those of the nodes.
    """
    nodes = list_nodes()
    with _sharing_probes(questions.store) as probes, _examining(nodes) as examiners:
        conversation = _Conversation(examiners, nodes)
        conversation.ask("versions", "list_versions", PACKAGES)
        conversation.ask("checkpoint", "find_checkpoint", *_ask_for_checkpoint(questions))
        if questions.is_thorough:
            conversation.ask("memory", "measure_memory")
            conversation.ask("cards", "measure_cards")
            conversation.ask("disks", "measure_disks", dict(questions.places))
        conversation.ask_each("written", "write_probe", probes.make)
        driver = _ask_here(questions, probes)
        # What nobody could write, nobody can read.
        writers = {a.node for a in (driver, *conversation.answering) if not a.written}
        question = (questions.store, probes.choose(writers), PATIENCE_S)
        conversation.ask("unread", "read_probes", *question)
        driver = replace(driver, unread=NodeExaminer().read_probes(*question))
        if questions.is_thorough:
            conversation.read_clocks()
        # Where a node has a storage of its own, the driver does not see what it wrote.
        conversation.ask_each("", "remove_probes", lambda node: (probes.root, probes.list_of(node)))
        answers = (driver, *conversation.answers.values())
        driver, *others = (replace(a, unread=probes.name_writers(a.unread)) for a in answers)
        living = {node.identifier for node in list_nodes()}
        gone = {node.name for node in nodes if node.identifier not in living}
        return driver, tuple(replace(a, is_gone=a.node in gone) for a in others)


@dataclass
class _Probes:
    """Files that everybody writes to the storage and everybody reads."""

    root: str
    texts: dict[str, str] = field(default_factory=dict)
    writers: dict[str, str] = field(default_factory=dict)
    token: str = field(default_factory=lambda: secrets.token_hex(6))

    def make(self, writer: str) -> tuple[str, str, str]:
        """Return root, name and text of the file that `writer` has to write."""
        name = f".probe-{self.token}-{len(self.texts)}"
        self.texts[name] = f"distprune {self.token} {writer}"
        self.writers[name] = writer
        return self.root, name, self.texts[name]

    def choose(self, writers: Collection[str]) -> dict[str, str]:
        """Return the texts by file of these writers."""
        return {name: text for name, text in self.texts.items() if self.writers[name] in writers}

    def list_of(self, writer: str) -> list[str]:
        """Return the names of what `writer` wrote."""
        return list(self.choose({writer}))

    def name_writers(self, problems: Mapping[str, str]) -> dict[str, str]:
        """Return problems by file as problems by who wrote it."""
        return {self.writers[name]: problem for name, problem in problems.items()}


@contextmanager
def _sharing_probes(root: str) -> Iterator[_Probes]:
    """Remove in the end what was written inside the block."""
    probes = _Probes(root)
    try:
        yield probes
    finally:
        NodeExaminer().remove_probes(root, list(probes.texts))


class _Conversation:
    """Questions to the examiners, and their answers; a node that fails once is not asked again."""

    def __init__(self, examiners: Mapping[str, Any], nodes: Sequence[Node]) -> None:
        self._examiners = examiners
        self.answers = {node.name: Answer(node.name, resources=node.resources) for node in nodes}

    @property
    def answering(self) -> list[Answer]:
        """Answers of the nodes that have failed in nothing so far."""
        return [answer for answer in self.answers.values() if not answer.problem]

    def ask(self, name: str, method: str, *arguments: Any) -> None:
        """Ask all nodes the same; `name` is where it belongs in their answers, "" = nowhere."""
        self.ask_each(name, method, lambda _: arguments)

    def ask_each(self, name: str, method: str, arguments: Callable[[str], tuple[Any, ...]]) -> None:
        """Ask all nodes, each with arguments of its own."""
        calls = {
            answer.node: getattr(self._examiners[answer.node], method).remote(
                *arguments(answer.node)
            )
            for answer in self.answering
        }
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        for node, call in calls.items():
            try:
                value = ray.get(call, timeout=max(0.1, deadline - time.monotonic()))
            except Exception as error:  # whatever keeps a node from answering
                self._note(node, problem=describe_silence(error))
                continue
            if name:
                self._note(node, **{name: value})

    def read_clocks(self) -> None:
        """Compare the clocks of all nodes with this one."""
        for answer in self.answering:
            try:
                self._note(answer.node, clock=_compare_clock(self._examiners[answer.node]))
            except Exception as error:  # the node is gone, or too slow to tell
                self._note(answer.node, problem=describe_silence(error))

    def _note(self, node: str, **values: Any) -> None:
        self.answers[node] = replace(self.answers[node], **values)


def describe_silence(error: Exception) -> str:
    """Return in one line why a node did not answer."""
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return f"no answer in {ANSWER_TIMEOUT_S:.0f} s"
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return describe(cause)
    if isinstance(error, ray.exceptions.RayActorError):
        lines = [line.strip() for line in str(error).splitlines() if "rror" in line]
        return f"no worker starts there, or it has died ({lines[-1][:300] if lines else error})"
    return describe(error)


def _compare_clock(examiner: Any) -> Clock:
    """Return the quickest of a few readings, which is the most exact."""
    readings = []
    for _ in range(NUM_CLOCK_READINGS):
        before = time.time()
        there = ray.get(examiner.read_clock.remote(), timeout=CLOCK_TIMEOUT_S)
        after = time.time()
        readings.append(Clock(there - (before + after) / 2, (after - before) / 2))
    return min(readings, key=lambda reading: reading.error_s)


def _ask_here(questions: Questions, probes: _Probes) -> Answer:
    examiner = NodeExaminer()
    return Answer(
        node=DRIVER,
        versions=examiner.list_versions(PACKAGES),
        written=examiner.write_probe(*probes.make(DRIVER)),
        disks=examiner.measure_disks(questions.places),
        checkpoint=examiner.find_checkpoint(*_ask_for_checkpoint(questions)),
    )


def _ask_for_checkpoint(questions: Questions) -> tuple[str, bool]:
    return questions.checkpoint, questions.is_thorough


@contextmanager
def _examining(nodes: Sequence[Node]) -> Iterator[dict[str, Any]]:
    """Start an examiner on each node inside the block.

    Its class travels by value, so that it needs no distprune there.
    """
    ray.cloudpickle.register_pickle_by_value(node_checks)
    examiners: dict[str, Any] = {}
    try:
        # All that is asked can be asked twice; its process may be lost while the node is well.
        remote: Any = ray.remote(num_cpus=0, max_restarts=2, max_task_retries=2)(NodeExaminer)
        for node in nodes:
            place = NodeAffinitySchedulingStrategy(node.identifier, soft=False)
            examiners[node.name] = remote.options(scheduling_strategy=place).remote()
        yield examiners
    finally:
        ray.cloudpickle.unregister_pickle_by_value(node_checks)
        for examiner in examiners.values():
            ray.kill(examiner)
