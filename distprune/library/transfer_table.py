"""The transfer table: what a mask that was found on one task is worth on another."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from distprune.core.cost import Sparsities

SCHEMA = "distprune.transfer/1"


@dataclass(frozen=True)
class TransferRow:
    """A mask.

    Attributes:
        name: What it is called in the table.
        home: Name of the task that it was found on; None = none of the table's.
        digest: SHA-256 of the mask.
        heads, neurons: Units that it keeps.
        sparsities: Its sparsity in heads, neurons, encoder parameters and MACs; the MACs are those
            of the first task's mean length.
        rewinding: Fraction of the dense fine-tuning that its tickets are trained from.
    """

    name: str
    home: str | None
    digest: str
    heads: int
    neurons: int
    sparsities: Sparsities
    rewinding: float


@dataclass(frozen=True)
class TransferColumn:
    """A task.

    Attributes:
        name: What it is called in the table.
        dataset: Where its examples come from.
        metric: Name of its metric.
        higher_is_better: Direction of the metric.
        floor: Metric of the constant predictor on the report split.
        dense: Metric of the dense fine-tuned model on the report split, seed by seed.
    """

    name: str
    dataset: str
    metric: str
    higher_is_better: bool
    floor: float
    dense: tuple[float, ...]


@dataclass(frozen=True)
class TransferCell:
    """A mask on a task, on the report split, seed by seed.

    Attributes:
        mask, task: Names of row and column.
        metrics: Metric of the mask's ticket.
        random: Metric of a random mask of the same size, trained in the same way.
        evaluations: Keys of the evaluations of the mask's tickets.
    """

    mask: str
    task: str
    metrics: tuple[float, ...]
    random: tuple[float, ...]
    evaluations: tuple[str, ...]


@dataclass(frozen=True)
class TransferTable:
    """Masks x tasks.

    Attributes:
        checkpoint: The checkpoint that all tickets are trained from.
        milestone: Sparsity that the masks were chosen at; None = they are files of their own.
        seeds: Seeds of the replicates.
        rows: The masks.
        columns: The tasks.
        cells: One for each mask and task.
    """

    checkpoint: str
    milestone: float | None
    seeds: tuple[int, ...]
    rows: tuple[TransferRow, ...]
    columns: tuple[TransferColumn, ...]
    cells: tuple[TransferCell, ...]

    def cell(self, mask: str, task: str) -> TransferCell:
        """Return the cell of a mask and a task."""
        return next(cell for cell in self.cells if (cell.mask, cell.task) == (mask, task))

    def gains(self, mask: str, task: str) -> list[float]:
        """Return how much better a mask is than the random one, seed by seed; higher is better."""
        column = next(column for column in self.columns if column.name == task)
        sign = 1.0 if column.higher_is_better else -1.0
        cell = self.cell(mask, task)
        pairs = zip(cell.metrics, cell.random, strict=True)
        return [sign * (metric - random) for metric, random in pairs]

    def own_mask(self, task: str) -> str | None:
        """Return the first mask that was found on a task."""
        return next((row.name for row in self.rows if row.home == task), None)

    def to_json(self) -> str:
        """Return the table as JSON text: every value, means and standard deviations over seeds."""
        values = asdict(self)
        for cell in values["cells"]:
            gains = self.gains(cell["mask"], cell["task"])
            cell |= _sum_up("metric", cell["metrics"]) | _sum_up("random", cell["random"])
            cell |= _sum_up("gain", gains)
        for column in values["columns"]:
            column |= _sum_up("dense", column["dense"])
            own = self.own_mask(column["name"])
            column["own_mask"] = own
            if own is not None:
                column |= _sum_up("own", self.cell(own, column["name"]).metrics)
        return json.dumps({"schema": SCHEMA, **values}, indent=2) + "\n"

    def to_csv(self) -> str:
        """Return one line for each mask, task and seed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["mask", "found_on", "task", "metric", "seed", "report", "random", "dense", "gain"]
        )
        homes = {row.name: row.home or "" for row in self.rows}
        columns = {column.name: column for column in self.columns}
        for cell in self.cells:
            column = columns[cell.task]
            gains = self.gains(cell.mask, cell.task)
            lines = zip(self.seeds, cell.metrics, cell.random, column.dense, gains, strict=True)
            for seed, *numbers in lines:
                names = [cell.mask, homes[cell.mask], cell.task, column.metric]
                writer.writerow([*names, seed, *numbers])
        return text.getvalue()


def measure_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation over seeds; None where there is one seed only."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), spread


def _sum_up(name: str, values: Sequence[float]) -> dict[str, float | None]:
    mean, spread = measure_spread(values)
    return {f"{name}_mean": mean, f"{name}_sd": spread}
