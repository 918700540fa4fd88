"""Latency of any mask, predicted from what was measured once per machine and architecture.

    latency = rest + sum over layers of (constant + attention(heads kept) + ffn(neurons kept))

`attention` and `ffn` are tables of one layer's seconds, linear between their grid points. Which
heads and neurons are kept does not matter, only how many a layer has.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from distprune.core.atomic_file import write_file
from distprune.core.mask import Mask
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import ConfigError, MaskError, StorageError

SCHEMA = "distprune.latency_table/1"
FILE = "latency.json"
"""Name of the file where a folder is given."""

MAX_FILE_BYTES = 1 << 24


@dataclass(frozen=True)
class Conditions:
    """What a latency holds for.

    Attributes:
        batch: Sequences that are computed together.
        length: Tokens of each; none is padding.
        threads: Threads of the processor.
        dtype: `float32` or `bfloat16`, of weights and arithmetic.
        device: `cpu` or `cuda`.
    """

    batch: int
    length: int
    threads: int
    dtype: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("batch", "length", "threads"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name}: {value!r}; it must be a whole number above 0")

    def __str__(self) -> str:
        threads = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        return f"{self.batch} x {self.length} tokens, {threads}, {self.dtype}, {self.device}"


@dataclass(frozen=True)
class Machine:
    """What a latency was measured on.

    Attributes:
        processor: Name of the processor.
        features: Those of its features that decide how fast it multiplies.
        cpus: Cores that the process may use.
        accelerator: Name of the GPU, where it was measured on one.
    """

    processor: str
    features: tuple[str, ...]
    cpus: int
    accelerator: str | None = None

    def __str__(self) -> str:
        cores = f"{self.cpus} core" + ("s" if self.cpus > 1 else "")
        processor = f"{self.processor} ({cores}; {' '.join(self.features) or 'no features known'})"
        return f"{self.accelerator} beside {processor}" if self.accelerator else processor


@dataclass(frozen=True)
class Architecture:
    """The models that a latency holds for: their `config.model_type` and dense counts."""

    model_type: str
    shape: EncoderShape

    def __str__(self) -> str:
        shape = self.shape
        return (
            f"{self.model_type} with {shape.num_layers} layers of {shape.num_heads} heads of "
            f"{shape.head_size} and {shape.num_neurons} neurons, {shape.hidden_size} wide"
        )


@dataclass(frozen=True)
class PredictionError:
    """How far predictions are from measurements: |predicted - measured| / measured.

    Attributes:
        median: Over the masks.
        largest: Over the masks.
        num_masks: Random masks whose models were measured whole.
    """

    median: float
    largest: float
    num_masks: int

    def __str__(self) -> str:
        return (
            f"median error {self.median:.1%}, largest {self.largest:.1%} over {self.num_masks} "
            "random masks"
        )


@dataclass(frozen=True)
class LayerLatencies:
    """Seconds of one layer by what it keeps, under one set of conditions.

    Attributes:
        conditions: Batch, length, threads, dtype, device.
        heads: Grid of heads kept, increasing from 0 to all.
        attention: What these heads add to a layer, in seconds, never falling.
        neurons: Grid of neurons kept, increasing from 0 to all.
        ffn: What these neurons add to a layer, in seconds, never falling.
        constant: Seconds of a layer beside both.
        rest: Seconds of the model outside its layers.
        error: Of predictions, where it was measured.
    """

    conditions: Conditions
    heads: tuple[int, ...]
    attention: tuple[float, ...]
    neurons: tuple[int, ...]
    ffn: tuple[float, ...]
    constant: float
    rest: float
    error: PredictionError | None = None

    def __post_init__(self) -> None:
        _check_grid("heads", self.heads)
        _check_grid("neurons", self.neurons)
        _check_seconds("attention", self.attention, len(self.heads))
        _check_seconds("ffn", self.ffn, len(self.neurons))
        _check_seconds("constant", (self.constant,), 1)
        _check_seconds("rest", (self.rest,), 1)

    def predict(self, mask: Mask) -> float:
        """Return the latency of a model compacted to `mask`, in seconds.

        Raises:
            MaskError: The mask was made for layers with other counts.
        """
        for kind, grid in ((UnitKind.HEAD, self.heads), (UnitKind.NEURON, self.neurons)):
            if mask[kind].shape[1] != grid[-1]:
                raise MaskError(
                    f"mask: made for {mask[kind].shape[1]} {kind}s a layer; the latency table has "
                    f"{grid[-1]}; use a table of the mask's architecture"
                )
        return self.predict_counts(*(mask[kind].sum(axis=1) for kind in UnitKind))

    def predict_counts(self, heads: ArrayLike, neurons: ArrayLike) -> float:
        """Return the latency of a model whose layers keep so many heads and neurons, [layer]."""
        attention = np.interp(np.asarray(heads, dtype=float), self.heads, self.attention)
        ffn = np.interp(np.asarray(neurons, dtype=float), self.neurons, self.ffn)
        return float(self.rest + (attention + ffn + self.constant).sum())

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LayerLatencies:
        """Read what `asdict` made, and JSON carried."""
        error = values.get("error")
        sequences = {name: tuple(values[name]) for name in ("heads", "attention", "neurons", "ffn")}
        return cls(
            conditions=Conditions(**values["conditions"]),
            **sequences,
            constant=values["constant"],
            rest=values["rest"],
            error=None if error is None else PredictionError(**error),
        )


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of one architecture on one machine.

    Attributes:
        machine: What they were measured on.
        architecture: What they were measured of.
        model: Name of the checkpoint that they were measured with.
        versions: Of Python and of the packages that compute.
        latencies: By conditions, each once.
    """

    machine: Machine
    architecture: Architecture
    model: str
    versions: Mapping[str, str]
    latencies: tuple[LayerLatencies, ...]

    def select(self, **wanted: Any) -> LayerLatencies:
        """Return the latencies under the conditions that are wanted, as far as they are told.

        Args:
            wanted: Values of `Conditions` by name; those that are None are not asked for.

        Raises:
            ConfigError: There are none such, or several.
        """
        asked = {name: value for name, value in wanted.items() if value is not None}
        found = [one for one in self.latencies if _agrees(one.conditions, asked)]
        if len(found) == 1:
            return found[0]
        there = "; ".join(str(one.conditions) for one in found or self.latencies)
        if found:
            raise ConfigError(
                f"latency table: {len(found)} conditions fit ({there}); say which batch, length, "
                "threads and dtype"
            )
        named = ", ".join(f"{name} {value}" for name, value in asked.items()) or "any conditions"
        raise ConfigError(
            f"latency table: nothing was measured for {named}; it has: {there}; choose one of "
            "them, or add it with distprune bench --table"
        )

    def predict(self, mask: Mask, batch: int, length: int, **others: Any) -> float:
        """Return the latency of a model compacted to `mask`, in seconds; see `select`."""
        return self.select(batch=batch, length=length, **others).predict(mask)

    def include(self, latencies: LayerLatencies) -> LatencyTable:
        """Return the table with `latencies`, in the place of those under the same conditions."""
        others = tuple(o for o in self.latencies if o.conditions != latencies.conditions)
        return replace(self, latencies=(*others, latencies))

    def check_architecture(self, architecture: Architecture) -> None:
        """Check that the table holds for models of this architecture.

        Raises:
            ConfigError: It does not; the message has both.
        """
        if self.architecture != architecture:
            raise ConfigError(
                f"latency table: measured of {self.architecture}; this is {architecture}; measure "
                "one with distprune bench MODEL --table FILE"
            )

    def check_machine(self, machine: Machine, permit: str) -> None:
        """Check that the table was measured on this machine.

        Args:
            machine: This one.
            permit: What the user can say to use it all the same.

        Raises:
            ConfigError: It was not; the message has both.
        """
        if self.machine != machine:
            raise ConfigError(
                f"latency table: measured on {self.machine}; this is {machine}; measure one here "
                f"with distprune bench MODEL --table FILE, or say {permit}"
            )

    def to_json(self) -> str:
        """Return the table as JSON text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LatencyTable:
        """Read what `to_json` wrote.

        Raises:
            ValueError: The text is no table; other errors of damaged values pass too.
        """
        values = json.loads(text)
        if values["schema"] != SCHEMA:
            raise ValueError(f"schema {values['schema']!r}; this version reads {SCHEMA}")
        machine = dict(values["machine"])
        architecture = values["architecture"]
        return cls(
            machine=Machine(**{**machine, "features": tuple(machine["features"])}),
            architecture=Architecture(
                str(architecture["model_type"]), EncoderShape(**architecture["shape"])
            ),
            model=str(values["model"]),
            versions=dict(values["versions"]),
            latencies=tuple(LayerLatencies.from_json(one) for one in values["latencies"]),
        )


def locate_table(path: Path) -> Path:
    """Return the file of a table: `path` itself, or `latency.json` where it is a folder."""
    return path / FILE if path.is_dir() else path


def write_table(table: LatencyTable, path: Path) -> None:
    """Write a table, whole or not at all.

    Raises:
        StorageError: The file cannot be written.
    """
    write_file(path, table.to_json())


def read_table(path: Path) -> LatencyTable:
    """Read the table at `path`.

    Raises:
        StorageError: The file is missing, damaged, or no table.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes; no table is that large")
        return LatencyTable.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(
            f"latency table {path}: does not exist; correct the path, or measure one with "
            "distprune bench MODEL --table FILE"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise StorageError(
            f"latency table {path}: cannot be read ({reason}); measure it again with distprune "
            "bench MODEL --table FILE"
        ) from error


def _agrees(conditions: Conditions, asked: Mapping[str, Any]) -> bool:
    return all(getattr(conditions, name) == value for name, value in asked.items())


def _check_grid(name: str, grid: Sequence[int]) -> None:
    is_whole = all(type(count) is int for count in grid)
    if not is_whole or len(grid) < 2 or grid[0] != 0 or not _increases(grid):
        raise ConfigError(f"{name}: {list(grid)!r:.80}; the grid must increase from 0")


def _increases(grid: Sequence[int]) -> bool:
    return all(one < other for one, other in itertools.pairwise(grid))


def _check_seconds(name: str, seconds: Sequence[float], count: int) -> None:
    is_usable = all(type(s) in (int, float) and math.isfinite(s) and s >= 0 for s in seconds)
    falls = is_usable and any(one > other for one, other in itertools.pairwise(seconds))
    if not is_usable or falls or len(seconds) != count:
        raise ConfigError(
            f"{name}: {list(seconds)!r:.80}; it must be {count} seconds, none below 0 or below the "
            "one before"
        )
