"""From what nodes answered to findings: nothing here asks anybody, everything only judges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from distprune.core.byte_size import format_bytes
from distprune.core.cost import encoder_cost
from distprune.core.mask import Mask
from distprune.models.checkpoint import CheckpointFacts
from distprune.search.cluster import count_node_slots
from distprune.search.examination import Answer
from distprune.search.findings import DRIVER, Finding, Severity, failed, passed, warned
from distprune.search.spec import ResourcesSpec
from distprune.search.study_file import Study
from distprune.store.lease import Holder
from distprune.store.location import LEASE_EXPIRY_S

DECIDING = ("ray", "torch", "transformers", "numpy")
"""Packages with which a stage computes; the others only have to be there."""

MAX_SKEW_S = LEASE_EXPIRY_S / 2
NOTICED_SKEW_S = 2.0

RAY_DISK_LIMIT = 0.95
"""Share of a disk above which Ray keeps no more objects on it."""

WORKER_BYTES = 700 << 20
"""Of a worker beside its model: 500 MiB with all that a stage imports (Linux, CPU), and margin."""

TRAINING_BYTES = 16
"""Of a parameter in training: float32 weight, gradient and the two moments of AdamW."""

DISK_MARGIN_BYTES = 256 << 20

OTHER_CODE = "install the same distprune on every node, or send this one with --ship-code"
OTHER_PACKAGE = "install the versions of constraints.txt on every node; numbers depend on them"
SHARE = "mount one file system under this path on every node, or set storage to s3://BUCKET/PREFIX"


@dataclass(frozen=True)
class Needs:
    """What a study takes, as far as it can be told before it runs; all in bytes.

    Attributes:
        first: What the store gets before the first trial: dense weights at each rewinding point.
        most: What it gets if every level of every trial is stored dense.
        training: Least memory of a stage that trains: the worker, weights, gradients, moments.
        activations: What the activations of a full batch of longest examples add to it.
    """

    first: int
    most: int
    training: int
    activations: int


def estimate_needs(study: Study, checkpoint: CheckpointFacts) -> Needs:
    """Estimate what a study takes.

    Activations of a layer: Korthikanti et al. 2022, equation 1, twice for float32.
    """
    shape = checkpoint.shape
    encoder = encoder_cost(shape, Mask.dense(shape), num_tokens=1).parameters
    rows = checkpoint.vocabulary_size + (checkpoint.max_tokens or 0)
    parameters = encoder + rows * shape.hidden_size + shape.hidden_size**2
    points = {*study.rewinding_points, 0.0, 1.0}
    trials = [study.make_trial(values) for values in study.pairs_of_probes()] or [study.base]
    levels = max(len(trial.pruning.sparsities) for trial in trials)
    batch, length = study.base.fine_tuning.batch_size, study.base.task.max_length
    layer = 68 * batch * length * shape.hidden_size + 10 * batch * length**2 * shape.num_heads
    first = 4 * parameters * len(points) + DISK_MARGIN_BYTES
    return Needs(
        first=first,
        most=first + 4 * parameters * levels * study.spec.num_trials,
        training=WORKER_BYTES + TRAINING_BYTES * parameters,
        activations=shape.num_layers * layer,
    )


def merge_findings(findings: Iterable[Finding], num_nodes: int) -> tuple[Finding, ...]:
    """Put together what is the same on several nodes, the worst first of each name."""
    nodes: dict[Finding, list[str]] = {}
    for finding in findings:
        nodes.setdefault(replace(finding, node=""), []).append(finding.node)
    merged = [replace(f, node=_join_nodes(names, num_nodes)) for f, names in nodes.items()]
    order = list(dict.fromkeys(finding.name for finding in merged))
    ranks = list(Severity)
    return tuple(sorted(merged, key=lambda f: (order.index(f.name), -ranks.index(f.severity))))


def judge_silence(nodes: Sequence[Answer]) -> Iterator[Finding]:
    """Judge which nodes did not answer."""
    for node in nodes:
        if node.problem and node.is_gone:
            yield warned(
                "node",
                node.node,
                "has left the cluster while it was examined",
                "nothing to do if it is meant to come back; if not, see why it was lost",
            )
        elif node.problem:
            yield failed(
                "node",
                node.node,
                f"cannot be examined ({node.problem})",
                "read Ray's logs there (/tmp/ray/session_latest/logs), or take it out of the "
                "cluster: `ray stop` on it",
            )


def judge_versions(driver: Answer, nodes: Sequence[Answer]) -> Iterator[Finding]:
    """Compare the versions of every node with those of the driver."""
    here = driver.versions
    for node in _answering(nodes):
        problems = [*_compare_code(driver, node), *_compare_packages(driver, node)]
        yield from problems
        if not problems:
            told = ", ".join(f"{name} {here[name]}" for name in here if name != "distprune code")
            yield passed("versions", node.node, told)


def judge_storage(store: str, driver: Answer, nodes: Sequence[Answer]) -> Iterator[Finding]:
    """Judge whether everybody writes the storage and reads what the others wrote."""
    if driver.written:
        yield failed("storage", DRIVER, *_explain_writing(store, driver.written))
        return
    if DRIVER in driver.unread:
        yield failed(
            "storage",
            DRIVER,
            f"{store}: what was written is not read back ({driver.unread[DRIVER]})",
            "check the disk or the mount",
        )
        return
    problems = [f for node in _answering(nodes) for f in _judge_share(store, driver, node)]
    yield from problems
    if not problems:
        others = ", and all read what the others wrote" if nodes else ""
        yield passed("storage", DRIVER, f"{store} can be written{others}")


def judge_checkpoint(name: str, driver: Answer, nodes: Sequence[Answer]) -> Iterator[Finding]:
    """Judge whether every node has the checkpoint, or can get it, and the same one."""
    own = driver.checkpoint["fingerprint"]
    for answer in (driver, *_answering(nodes)):
        found = answer.checkpoint
        if not found or _is_other_code(driver, answer):
            continue
        if found["problem"]:
            what, _, advice = found["problem"].removeprefix("checkpoint: ").partition("; ")
            if answer is not driver:
                advice = (
                    "put it under the same path on every node, or on the shared file system, or "
                    "install the package or name the hub id that has it"
                )
            yield failed("checkpoint", answer.node, what, advice or "correct trial.checkpoint")
        elif None not in (own, found["fingerprint"]) and own != found["fingerprint"]:
            yield failed(
                "checkpoint",
                answer.node,
                f"{found['place']} holds other files than on the driver",
                "copy the driver's there: stages on this node would start from other weights",
            )
        elif found["place"]:
            yield passed("checkpoint", answer.node, f"{name} is there")
        else:
            size = format_bytes(found["num_bytes"])
            yield passed("checkpoint", answer.node, f"{name} will be downloaded ({size})")


def judge_clocks(nodes: Sequence[Answer]) -> Iterator[Finding]:
    """Judge whether the clocks go alike."""
    for node in _answering(nodes):
        if node.clock is None:
            continue
        skew = max(0.0, abs(node.clock.ahead_s) - node.clock.error_s)
        side = "ahead of" if node.clock.ahead_s > 0 else "behind"
        what = f"its clock is {abs(node.clock.ahead_s):.1f} s {side} the driver's"
        if skew > MAX_SKEW_S:
            yield failed(
                "clock",
                node.node,
                what,
                "synchronise it (chrony or ntpd); leases in the storage can seem abandoned, and s3 "
                "refuses requests of another time",
            )
        elif skew > NOTICED_SKEW_S:
            yield warned("clock", node.node, what, "synchronise it (chrony or ntpd)")
        else:
            yield passed("clock", node.node, f"within {NOTICED_SKEW_S:g} s of the driver's")


def judge_disks(
    needs: Needs, max_gib: float | None, driver: Answer, nodes: Sequence[Answer]
) -> Iterator[Finding]:
    """Judge whether there is space for the store, and on each node for what it keeps itself."""
    storage = driver.disks.get("storage")
    if storage is not None:
        yield _judge_storage_disk(storage["place"], storage["free"], needs, max_gib)
    for node in _answering(nodes):
        cache = node.disks.get("cache")
        if cache is not None and cache["free"] < needs.first:
            yield failed(
                "disk",
                node.node,
                f"{cache['place']} has {format_bytes(cache['free'])} free; copies of the store's "
                f"weights take {format_bytes(needs.first)} at least",
                "free space there, or set XDG_CACHE_HOME on this node to a larger disk",
            )
        own = node.disks.get("ray")
        if own is None:
            continue
        if own["free"] < (1 - RAY_DISK_LIMIT) * own["total"]:
            yield warned(
                "disk",
                node.node,
                f"{own['place']} has {format_bytes(own['free'])} free of "
                f"{format_bytes(own['total'])}; Ray keeps nothing more on a disk that is "
                f"{RAY_DISK_LIMIT:.0%} full",
                "free space there, or start Ray with --temp-dir on another disk",
            )
        else:
            yield passed("disk", node.node, f"{own['place']} has space")


def judge_memory(
    needs: Needs, resources: ResourcesSpec, nodes: Sequence[Answer]
) -> Iterator[Finding]:
    """Judge whether the stages that Ray starts on a node fit in its memory, and on its GPUs."""
    for node in _answering(nodes):
        slots = count_node_slots(dict(node.resources), resources)
        if not slots or not node.memory:
            continue
        uses_gpu = bool(resources.gpus_per_stage)
        yield _judge_node_memory(_beside_gpu(needs) if uses_gpu else needs, slots, node)
        if resources.gpus_per_stage and node.cards:
            yield _judge_cards(needs, resources.gpus_per_stage, node)


def judge_leases(
    folder: str, holders: Sequence[Holder], now: float, expiry_s: float = LEASE_EXPIRY_S
) -> Iterator[Finding]:
    """Judge the leases of stages.

    Args:
        folder: Where they are.
        holders: Who holds them.
        now: Seconds by the clock of the file system.
        expiry_s: Seconds of silence after which a holder counts as gone.
    """
    gone = [holder for holder in holders if holder.is_gone(now, expiry_s)]
    if gone:
        told = ", ".join(
            f"{holder}, silent for {max(0.0, now - holder.heartbeat):.0f} s" for holder in gone[:3]
        )
        yield warned(
            "leases",
            DRIVER,
            f"{len(gone)} of {len(holders)} leases in {folder} are of processes that are gone "
            f"({told}{' ...' if len(gone) > 3 else ''})",
            "nothing to do: whoever needs these stages takes them over; if this process is alive "
            "after all, its host is cut off or stalled",
        )
    else:
        work = f"{len(holders)} stages are at work" if holders else "none is held"
        yield passed("leases", DRIVER, work)


def _answering(nodes: Sequence[Answer]) -> list[Answer]:
    return [node for node in nodes if not node.problem]


def _join_nodes(names: Sequence[str], num_nodes: int) -> str:
    unique = list(dict.fromkeys(names))
    others = [name for name in unique if name != DRIVER]
    if len(others) == num_nodes > 1:
        return f"all {num_nodes} nodes"
    return ", ".join(unique)


def _is_other_code(driver: Answer, node: Answer) -> bool:
    return node.versions.get("distprune code") != driver.versions.get("distprune code")


def _compare_code(driver: Answer, node: Answer) -> Iterator[Finding]:
    here, there = driver.versions["distprune"], node.versions["distprune"]
    if there is None:
        yield failed("versions", node.node, "distprune is not installed", OTHER_CODE)
    elif here != there:
        yield failed("versions", node.node, f"distprune {there}; the driver has {here}", OTHER_CODE)
    elif _is_other_code(driver, node):
        codes = [answer.versions["distprune code"] for answer in (node, driver)]
        what = f"distprune {there} with other code ({codes[0]}; the driver has {codes[1]})"
        yield failed("versions", node.node, what, OTHER_CODE)


def _compare_packages(driver: Answer, node: Answer) -> Iterator[Finding]:
    for name, here in driver.versions.items():
        there = node.versions.get(name)
        if name in ("distprune", "distprune code"):
            continue
        what = f"{name} {there}; the driver has {here}"
        if there is None:
            yield failed("versions", node.node, f"{name} is not installed", OTHER_PACKAGE)
        elif _release(there) == _release(here or ""):
            continue
        elif name in DECIDING:
            yield failed("versions", node.node, what, OTHER_PACKAGE)
        else:
            yield warned("versions", node.node, what, OTHER_PACKAGE)


def _release(version: str) -> str:
    """Return a version without its build: 2.13.0+cpu and 2.13.0+cu130 compute the same."""
    return version.partition("+")[0]


def _explain_writing(store: str, problem: str) -> tuple[str, str]:
    """Return what keeps somebody from writing to the storage, and what to do."""
    advice = "check the path and who may write there, or name another storage"
    if "No space left" in problem or "quota" in problem.lower():
        advice = "free space there, or name another storage"
    elif "there is no folder" in problem:
        advice = SHARE
    elif "Read-only" in problem:
        advice = "mount it writable, or name another storage"
    elif "locks available" in problem or "not supported" in problem:
        advice = "mount it with file locks (nfs: not nolock), or name another storage"
    elif "://" in store:
        advice = (
            "check the bucket, and that this node's own environment has its keys (AWS_*) and, for "
            "a server of your own, AWS_ENDPOINT_URL"
        )
    return f"{store} cannot be written ({problem})", advice


def _judge_share(store: str, driver: Answer, node: Answer) -> Iterator[Finding]:
    if node.written:
        yield failed("storage", node.node, *_explain_writing(store, node.written))
        return
    sides = []
    if DRIVER in node.unread:
        sides.append("it does not see the driver's files")
    if node.node in driver.unread:
        sides.append("the driver does not see its files")
    if sides:
        what = f"{store} is not shared: {' and '.join(sides)}"
        yield failed("storage", node.node, what, SHARE)
        return
    others = {who: why for who, why in node.unread.items() if who not in driver.unread}
    if others:
        who, why = next(iter(others.items()))
        what = f"{store}: what {', '.join(others)} wrote is not read there ({who}: {why})"
        yield failed("storage", node.node, what, SHARE)


def _judge_storage_disk(place: str, free: int, needs: Needs, max_gib: float | None) -> Finding:
    limit = None if max_gib is None else round(max_gib * 2**30)
    most = needs.most if limit is None else min(needs.most, max(limit, needs.first))
    told = f"{place} has {format_bytes(free)} free"
    if free < needs.first:
        return failed(
            "disk",
            DRIVER,
            f"{told}; the dense model alone takes {format_bytes(needs.first)}",
            "free space there, or name another storage",
        )
    if free < most:
        return warned(
            "disk",
            DRIVER,
            f"{told}; the study can take {format_bytes(most)}",
            "free space there, or set store.max_gib below that; it removes weights in time",
        )
    return passed("disk", DRIVER, f"{told}; the study takes {format_bytes(most)} at most")


def _beside_gpu(needs: Needs) -> Needs:
    """Return what a stage on a GPU takes of the node's own memory: the worker, and weights once."""
    model = needs.training - WORKER_BYTES
    return replace(needs, training=WORKER_BYTES + model // 4, activations=0)


def _judge_node_memory(needs: Needs, slots: int, node: Answer) -> Finding:
    available, total = node.memory["available"], node.memory["total"]
    told = f"{format_bytes(available)} of {format_bytes(total)} memory are available"
    if needs.training > available:
        return failed(
            "memory",
            node.node,
            f"{told}; one stage takes {format_bytes(needs.training)} at least",
            "free memory there, take the node out of the cluster, or choose a smaller checkpoint",
        )
    most = slots * (needs.training + needs.activations)
    if most > available:
        return warned(
            "memory",
            node.node,
            f"{told}; {slots} stages at a time can take {format_bytes(most)}",
            "set resources.stage_memory_mib to "
            f"{(needs.training + needs.activations) >> 20}, or a smaller fine_tuning.batch_size",
        )
    return passed("memory", node.node, f"enough for the {slots} stages that Ray starts there")


def _judge_cards(needs: Needs, share: float, node: Answer) -> Finding:
    least, most = needs.training, needs.training + needs.activations
    card = min(node.cards)
    told = f"a stage gets {format_bytes(card * share)} of a GPU's {format_bytes(card)}"
    if card * share < least:
        return failed(
            "GPU memory",
            node.node,
            f"{told} and takes {format_bytes(least)} at least",
            "raise resources.gpus_per_stage, or choose a smaller checkpoint",
        )
    if card * share < most:
        return warned(
            "GPU memory",
            node.node,
            f"{told} and can take {format_bytes(most)}",
            "raise resources.gpus_per_stage, or lower fine_tuning.batch_size",
        )
    return passed("GPU memory", node.node, f"{told}, which is enough")
