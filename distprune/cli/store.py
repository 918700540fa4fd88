"""`distprune store`: what a store holds, whether it is whole, and how to make it smaller."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from distprune.cli.durations import format_duration
from distprune.cli.options import JsonOption
from distprune.core.byte_size import format_bytes
from distprune.errors import ConfigError
from distprune.library.eviction import Reason, Stay, evict, plan_store
from distprune.library.pins import read_stage
from distprune.library.study_folder import StudyStorage, locate_storage
from distprune.store.inventory import EntrySummary, Leftover, LeftoverKind
from distprune.store.store import Store

STATUS_EXAMPLES = (
    "distprune store status",
    "distprune store status studies --json",
)
VERIFY_EXAMPLES = ("distprune store verify studies",)
GC_EXAMPLES = (
    "distprune store gc --max-gib 20 --dry-run",
    "distprune store gc studies --max-gib 20",
)
EXAMPLES = (STATUS_EXAMPLES[0], VERIFY_EXAMPLES[0], GC_EXAMPLES[0])
"""Calls that `--help` shows."""

EXIT_DAMAGED = 1

StorageArgument = typer.Argument("studies", help="Folder or URI of the studies.")


def status(storage: str = StorageArgument, as_json: bool = JsonOption) -> None:
    """Print what the store holds, and why it stays."""
    place, store = open_storage(storage)
    plan = plan_store(store, place, max_bytes=None)
    entries = [stay.entry for stay in plan.stays]
    leftovers = store.list_leftovers()
    if as_json:
        summary = {
            "store": store.root,
            "stages": [asdict(row) for row in sum_up_stages(entries)],
            "total": {"entries": len(entries), "bytes": plan.bytes_after},
            "stays": [asdict(row) for row in sum_up_stays(plan.stays)],
            "leftovers": [asdict(row) for row in sum_up_leftovers(leftovers)],
        }
        typer.echo(json.dumps(summary, indent=2))
        return
    show_stages(f"Store {store.root}", entries)
    weights = [stay for stay in plan.stays if stay.reason is not Reason.RESULT]
    show_sums("weights", sum_up_stays(weights))
    show_sums("left over", sum_up_leftovers(leftovers))


def verify(storage: str = StorageArgument, as_json: bool = JsonOption) -> None:
    """Check every file; exit code 1 if any is damaged.

    Damaged entries are set aside; what needs them computes them again.
    """
    _, store = open_storage(storage)
    entries = list(store.list_entries())
    num_bytes = sum(entry.num_bytes for entry in entries)
    damaged: list[tuple[EntrySummary, str]] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Verifying", total=num_bytes)
        for entry in entries:
            damage = store.verify(entry.key)
            if damage is not None:
                damaged.append((entry, damage))
            progress.advance(task, entry.num_bytes)
    if as_json:
        found = [{"key": e.key, "stage": read_stage(e), "damage": d} for e, d in damaged]
        summary = {"entries": len(entries), "bytes": num_bytes, "damaged": found}
        typer.echo(json.dumps(summary, indent=2))
    else:
        for entry, damage in damaged:
            typer.echo(f"damaged: {read_stage(entry)} {entry.key}: {damage}; set aside")
        verdict = f"{len(damaged)} damaged, set aside" if damaged else "all whole"
        typer.echo(f"{len(entries)} entries, {format_bytes(num_bytes)}: {verdict}")
    if damaged:
        raise typer.Exit(EXIT_DAMAGED)


def gc(
    storage: str = StorageArgument,
    max_gib: float = typer.Option(
        None,
        "--max-gib",
        min=0.0,
        help="Remove least recently used weights until the store is at most this large. Without "
        "it no weights go.",
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would go; remove nothing."),
    as_json: bool = JsonOption,
) -> None:
    """Remove leftovers, and weights that no study needs.

    Leftovers are what killed processes left half written, and damaged entries that were set aside.
    Weights stay that a mask library names, or that a study under way needs; so do all other
    results. The rest goes by last use, oldest first.
    """
    place, store = open_storage(storage)
    max_bytes = None if max_gib is None else _to_bytes(max_gib)
    with nullcontext() if dry_run else store.eviction():
        leftovers = [item for item in store.list_leftovers() if item.is_stale]
        plan = plan_store(store, place, max_bytes)
        gone: Sequence[EntrySummary] = plan.goes
        if not dry_run:
            gone = evict(store, plan)
            store.remove_stale_temporaries()
            store.remove_damaged()
    num_left = plan.bytes_before - sum(entry.num_bytes for entry in gone)
    if as_json:
        summary = {
            "dry_run": dry_run,
            "bytes_before": plan.bytes_before,
            "bytes_after": num_left,
            "goes": [asdict(row) for row in sum_up_stages(gone)],
            "keys": [entry.key for entry in gone],
            "leftovers": [asdict(row) for row in sum_up_leftovers(leftovers)],
            "stays": [asdict(row) for row in sum_up_stays(plan.stays)],
            "excess": plan.explain_excess(),
        }
        typer.echo(json.dumps(summary, indent=2))
        return
    verb = "would go" if dry_run else "went"
    show_stages(f"What {verb} of {store.root}, and what computing it again takes", gone)
    show_sums(f"left over, {verb}", sum_up_leftovers(leftovers))
    show_sums("what stays, and why", sum_up_stays(plan.stays))
    typer.echo(f"{format_bytes(plan.bytes_before)} before, {format_bytes(num_left)} after")
    excess = plan.explain_excess()
    if excess is not None:
        typer.echo(f"warning: {excess}", err=True)


def open_storage(text: str) -> tuple[StudyStorage, Store]:
    """Return where studies are kept, and their store.

    Raises:
        ConfigError: There is no store.
        StorageError: The storage cannot be read.
    """
    storage = locate_storage(text)
    if not storage.has_store():
        raise ConfigError(
            f"storage: {text!r} holds no store; name the `storage` of a study file, for "
            "instance studies"
        )
    return storage, storage.open_store()


@dataclass(frozen=True)
class StageSum:
    """Entries of one stage, together.

    Attributes:
        stage: Name of the stage.
        entries: Number of entries.
        bytes: Size of their files.
        seconds: Wall time that computing them took.
        oldest: When the first was written, ISO 8601 in UTC.
        last_used: When one was last found, ISO 8601 in UTC.
    """

    stage: str
    entries: int
    bytes: int
    seconds: float
    oldest: str
    last_used: str


@dataclass(frozen=True)
class Sum:
    """Entries or folders that have something in common."""

    what: str
    count: int
    bytes: int


def sum_up_stages(entries: Sequence[EntrySummary]) -> list[StageSum]:
    """Add up entries by stage, the largest first."""
    stages = {read_stage(entry) for entry in entries}
    by_stage = {name: [e for e in entries if read_stage(e) == name] for name in stages}
    sums = [_sum_up_stage(stage, found) for stage, found in by_stage.items()]
    return sorted(sums, key=lambda row: (-row.bytes, row.stage))


def sum_up_stays(stays: Iterable[Stay]) -> list[Sum]:
    """Add up what stays by the reason for it, in the order of reasons."""
    by_reason: dict[tuple[int, str], list[EntrySummary]] = {}
    order = list(Reason)
    for stay in stays:
        what = f"{stay.reason}: {stay.detail}" if stay.detail else str(stay.reason)
        by_reason.setdefault((order.index(stay.reason), what), []).append(stay.entry)
    return [
        Sum(what, len(entries), sum(entry.num_bytes for entry in entries))
        for (_, what), entries in sorted(by_reason.items())
    ]


def sum_up_leftovers(leftovers: Iterable[Leftover]) -> list[Sum]:
    """Add up what is left over, by kind and by whether anybody is at work on it."""
    by_kind: dict[str, list[int]] = {}
    for item in leftovers:
        is_working = item.kind is LeftoverKind.TEMPORARY and not item.is_stale
        what = "temporary, being written" if is_working else str(item.kind)
        by_kind.setdefault(what, []).append(item.num_bytes)
    return [Sum(what, len(sizes), sum(sizes)) for what, sizes in sorted(by_kind.items())]


def show_stages(title: str, entries: Sequence[EntrySummary]) -> None:
    """Print a row for each stage, and their sum."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("stage")
    for name in ("entries", "MiB", "computed in", "oldest (UTC)", "last used (UTC)"):
        table.add_column(name, justify="right")
    total = _sum_up_stage("total", entries)
    for row in [*sum_up_stages(entries), total]:
        table.add_row(
            row.stage,
            f"{row.entries:,}",
            _mebibytes(row.bytes),
            format_duration(row.seconds),
            row.oldest[:16].replace("T", " "),
            row.last_used[:16].replace("T", " "),
        )
    Console().print(table)


def show_sums(title: str, sums: Sequence[Sum]) -> None:
    """Print a row for each sum; nothing where there are none."""
    if not sums:
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(title)
    table.add_column("number", justify="right")
    table.add_column("MiB", justify="right")
    for row in sums:
        table.add_row(row.what, f"{row.count:,}", _mebibytes(row.bytes))
    Console().print(table)


def _sum_up_stage(stage: str, entries: Sequence[EntrySummary]) -> StageSum:
    return StageSum(
        stage=stage,
        entries=len(entries),
        bytes=sum(entry.num_bytes for entry in entries),
        seconds=round(sum(entry.seconds for entry in entries), 3),
        oldest=_format_time(min((entry.created for entry in entries), default=None)),
        last_used=_format_time(max((entry.last_used for entry in entries), default=None)),
    )


def _format_time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _to_bytes(gibibytes: float) -> int:
    if not math.isfinite(gibibytes):
        raise ConfigError(f"--max-gib: {gibibytes} is no size; name a number of GiB, or leave it")
    return round(gibibytes * 2**30)


def _mebibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f}"


VERBS: tuple[tuple[Callable[..., None], tuple[str, ...]], ...] = (
    (status, STATUS_EXAMPLES),
    (verify, VERIFY_EXAMPLES),
    (gc, GC_EXAMPLES),
)
