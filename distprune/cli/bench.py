"""`distprune bench`: latency that is measured, and tables that predict it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from distprune.cli.latency_display import (
    describe_method,
    show_checks,
    show_comparisons,
    show_table_conditions,
)
from distprune.cli.options import JsonOption
from distprune.core.latency_table import (
    Conditions,
    LatencyTable,
    LayerLatencies,
    locate_table,
    read_table,
    write_table,
)
from distprune.core.mask import Mask
from distprune.core.median_interval import MIN_COUNT
from distprune.errors import ConfigError

if TYPE_CHECKING:
    from distprune.deployment.latency import PredictionCheck

EXAMPLES = (
    "distprune bench my-model --batch 1 --length 128",
    "distprune bench studies/quickstart/masks/0.5/mask.safetensors --threads 1 --threads 2",
    "distprune bench demo:minilm --table latency.json --batch 1 --length 128 --threads 1",
)
"""Calls that `--help` shows."""

NUM_LABELS = 2
"""Outputs of the head that a checkpoint without one gets."""


class Dtype(StrEnum):
    """Arithmetic that can be measured."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Device(StrEnum):
    """Where it can be measured."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        name: As the user wrote it.
        model: The model to time: compact, or dense where there is no mask.
        dense: Its dense form; None = it is unknown, or `model` is dense itself.
        mask: The mask between them.
        is_compact: Whether `model` has lost units.
    """

    name: str
    model: Any
    dense: Any | None = None
    mask: Mask | None = None
    is_compact: bool = False


def bench(
    model_or_mask: str = typer.Argument(
        help="A checkpoint (hub id, folder, demo:minilm), a folder that distprune saved, a mask "
        "file, or STUDY/best@0.5.",
        show_default=False,
    ),
    model: str = typer.Option(
        None, "--model", help="Checkpoint of the mask; without it the one that the mask names."
    ),
    batches: list[int] = typer.Option(
        [1, 32], "--batch", min=1, help="Sequences at a time. Can be given several times."
    ),
    lengths: list[int] = typer.Option(
        [32, 128], "--length", min=1, help="Tokens of each. Can be given several times."
    ),
    threads: list[int] = typer.Option(
        None,
        "--threads",
        min=1,
        help="Threads. Can be given several times; without it one, and as many as there are cores.",
        show_default=False,
    ),
    dtype: Dtype = typer.Option(Dtype.FLOAT32, "--dtype", help="Weights and arithmetic."),
    device: Device = typer.Option(Device.CPU, "--device", help="Where it is measured."),
    rounds: int = typer.Option(
        None, "--rounds", help="Timed rounds; 20, and 12 for a table.", show_default=False
    ),
    table: Path = typer.Option(
        None,
        "--table",
        help="Measure the layers of the model, write the table that predicts any mask's latency "
        "to this file, and say how far its predictions are off. What the file has already is not "
        "measured again.",
        show_default=False,
    ),
    check: int = typer.Option(
        8, "--check", min=0, help="Random masks that a table's predictions are checked with."
    ),
    measure_again: bool = typer.Option(
        False, "--measure-again", help="Measure what the table has already, too."
    ),
    any_machine: bool = typer.Option(
        False, "--any-machine", help="Use a table that was measured on another machine."
    ),
    as_json: bool = JsonOption,
) -> None:
    """Measure the latency of a model, beside its dense form and what MACs promise."""
    from distprune.cli.terminal import silence_libraries

    silence_libraries()
    if rounds is not None and rounds < MIN_COUNT:
        raise ConfigError(
            f"--rounds: {rounds}; a 95 % interval takes {MIN_COUNT} at least; raise it"
        )
    conditions = list_conditions(batches, lengths, threads, dtype, device)
    subject = find_subject(model_or_mask, model)
    session = BenchSession(subject, conditions, rounds, as_json)
    if table is not None:
        session.fill_table(locate_table(table), check, measure_again, any_machine)
    if table is None or subject.is_compact:
        session.compare()
    session.print_results()


def list_conditions(
    batches: Sequence[int],
    lengths: Sequence[int],
    threads: Sequence[int] | None,
    dtype: str,
    device: str,
) -> list[Conditions]:
    """Return every combination once, in the order given."""
    from distprune.deployment.machine import count_cpus

    if device == Device.CUDA:
        threads = threads or [1]
    combinations = [
        Conditions(batch, length, number, str(dtype), str(device))
        for number in threads or [1, count_cpus()]
        for batch in batches
        for length in lengths
    ]
    return list(dict.fromkeys(combinations))


def find_subject(name: str, checkpoint: str | None) -> Subject:
    """Load what is to be measured.

    Raises:
        InputError: It cannot be loaded, or its checkpoint is not known.
    """
    from distprune.library.mask_reference import BEST, TRACKED

    is_mask = Path(name).is_file() or name.startswith(TRACKED) or BEST.fullmatch(name)
    if checkpoint is not None or is_mask:
        return _open_mask(name, checkpoint)
    return _open_model(name)


def _open_mask(name: str, checkpoint: str | None) -> Subject:
    from distprune.loading import load_mask

    mask = load_mask(name)
    named = mask.metadata.get("checkpoint")
    checkpoint = checkpoint or (named.get("name") if isinstance(named, dict) else None)
    if checkpoint is None:
        raise ConfigError(f"mask {name}: does not name its checkpoint; say --model CHECKPOINT")
    dense = _load_dense(checkpoint)
    return Subject(name, mask.compact(dense), dense, mask, is_compact=True)


def _open_model(name: str) -> Subject:
    from distprune.core.compact_model import RECORD
    from distprune.models.source import locate_checkpoint

    folder = locate_checkpoint(name)
    if RECORD not in _read_config(folder):
        return Subject(name, _load_dense(name))
    from distprune.core.expansion import expand
    from distprune.deployment.compact_folder import MASK_FILE, load

    model = load(folder)
    if not (folder / MASK_FILE).is_file():
        return Subject(name, model, is_compact=True)
    mask = Mask.load(folder / MASK_FILE)
    return Subject(name, model, expand(model, mask), mask, is_compact=True)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"checkpoint: config.json of {folder} cannot be read ({error}); save the model again"
        ) from error


def _load_dense(checkpoint: str) -> Any:
    from distprune.models.checkpoint import inspect_checkpoint, load_classifier

    facts = inspect_checkpoint(checkpoint)
    model, _ = load_classifier(checkpoint, facts.head_outputs or NUM_LABELS, seed=0)
    return model.eval()


class BenchSession:
    """One call of `distprune bench`: measures first, prints everything at the end."""

    def __init__(
        self,
        subject: Subject,
        conditions: Sequence[Conditions],
        rounds: int | None,
        as_json: bool,
    ) -> None:
        from distprune.deployment.machine import describe_machine, describe_versions, read_load

        self._subject = subject
        self._conditions = conditions
        self._rounds = rounds
        self._as_json = as_json
        self._machine = describe_machine(conditions[0].device)
        self._versions = describe_versions()
        self._load = read_load()
        self._table: LatencyTable | None = None
        self._file: Path | None = None
        self._checks: list[tuple[LayerLatencies, list[PredictionCheck]]] = []
        self._comparisons: list[Any] = []

    def fill_table(self, file: Path, check: int, measure_again: bool, any_machine: bool) -> None:
        """Measure what the table has not, check it, and write it after each of the conditions.

        Raises:
            InputError: The file holds a table of something else, or cannot be written.
        """
        from distprune.deployment.latency import (
            ROUNDS,
            check_predictions,
            measure_latencies,
            summarise_checks,
        )

        dense = self._subject.dense or self._subject.model
        table = self._open_table(file, dense, any_machine)
        rounds = self._rounds or ROUNDS
        for conditions in self._conditions:
            found = [one for one in table.latencies if one.conditions == conditions]
            if found and not measure_again:
                latencies = found[0]
            else:
                typer.echo(f"measuring the layers: {conditions}", err=True)
                latencies = measure_latencies(dense, conditions, rounds)
            if check:
                typer.echo(f"checking {check} random masks: {conditions}", err=True)
                checks = check_predictions(dense, latencies, check, rounds)
                latencies = replace(latencies, error=summarise_checks(checks))
                self._checks.append((latencies, checks))
            table = table.include(latencies)
            write_table(table, file)
        self._table, self._file = table, file

    def _open_table(self, file: Path, dense: Any, any_machine: bool) -> LatencyTable:
        """Return the table of the file, or an empty one where there is no file."""
        from distprune.deployment.latency import find_architecture

        if self._subject.is_compact and self._subject.dense is None:
            raise ConfigError(
                f"--table: the dense form of {self._subject.name} is not known; name its checkpoint"
            )
        architecture = find_architecture(dense)
        if not file.exists():
            name = self._subject.name
            return LatencyTable(self._machine, architecture, name, self._versions, ())
        table = read_table(file)
        table.check_architecture(architecture)
        if not any_machine:
            table.check_machine(self._machine, "--any-machine")
        return table

    def compare(self) -> None:
        """Measure the model under each of the conditions, beside its dense form if it has one."""
        from distprune.deployment.latency_measurement import ROUNDS, measure_latency

        subject = self._subject
        for conditions in self._conditions:
            typer.echo(f"measuring: {conditions}", err=True)
            comparison = measure_latency(
                subject.model, conditions, subject.dense, subject.mask, self._rounds or ROUNDS
            )
            self._comparisons.append(comparison)

    def print_results(self) -> None:
        """Print what was measured, for people or for programs."""
        if self._as_json:
            typer.echo(json.dumps(self._summarise(), indent=2))
            return
        console = Console()
        if self._file is not None and self._table is not None:
            show_table_conditions(console, self._table, self._file, self._conditions)
            show_checks(console, self._checks)
        if self._comparisons:
            predictions = [self._predict(comparison) for comparison in self._comparisons]
            show_comparisons(console, self._subject.name, self._comparisons, predictions)
        if self._subject.is_compact and self._subject.dense is None:
            typer.echo("Its dense form is not known, so it was compared with nothing.")
        lines = describe_method(self._machine, self._versions, self._load)
        typer.echo("\n".join(lines))

    def _summarise(self) -> dict[str, Any]:
        comparisons = [
            {**comparison.to_json(), "predicted": self._predict(comparison)}
            for comparison in self._comparisons
        ]
        checks = [
            {"conditions": asdict(one.conditions), "masks": [asdict(check) for check in checks]}
            for one, checks in self._checks
        ]
        return {
            "model": self._subject.name,
            "machine": asdict(self._machine),
            "versions": self._versions,
            "load_before": self._load,
            "comparisons": comparisons,
            "table": None if self._table is None else json.loads(self._table.to_json()),
            "checks": checks,
        }

    def _predict(self, comparison: Any) -> float | None:
        """Return what the table predicts for the mask that was measured; None = nothing does."""
        if self._table is None or self._subject.mask is None:
            return None
        return self._table.select(**asdict(comparison.conditions)).predict(self._subject.mask)
