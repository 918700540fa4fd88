"""A study's confirmation: its best masks and their controls with fresh seeds, and what follows."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distprune.core.atomic_file import write_file
from distprune.errors import StorageError
from distprune.library.leaderboard import Leaderboard
from distprune.library.study_folder import StudyFolder

SCHEMA = "distprune.confirmation/1"

BEST = "best"
"""Name of the arm that is the best mask of the study."""

DENSE = "dense"
"""Name of the arm that removes nothing."""

ARM_NAMES = {
    "random": "random masks",
    "inverted": "inverted masks",
    "lambda_0": "λ = 0",
    "lambda_1": "λ = 1",
}
"""Arms that people call by another name."""

UNBOUNDED_METRICS = ("mean_squared_error",)
"""Metrics that are no share of one, so that their hundredths are no points."""

ROUNDED_AWAY = 0.05
"""Points that one decimal place shows as zero."""


@dataclass(frozen=True)
class Difference:
    """By how much the best mask is better than another arm, with the same seeds.

    Attributes:
        estimate: Mean over seeds, in units of the metric; > 0: the best mask is better, whatever
            the direction of the metric.
        low: Lower end of its interval over seeds and examples.
        high: Upper end.
        confidence: Of the interval, in (0, 1).
        num_seeds: Seeds that it is over.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    num_seeds: int

    @property
    def is_settled(self) -> bool:
        """Say whether the interval excludes zero."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True)
class Arm:
    """One mask a seed, trained and measured.

    Attributes:
        name: `best`, `dense` or the name of a control.
        heads: Heads that it keeps; None where there is no such mask.
        neurons: Neurons that it keeps; None where there is no such mask.
        metrics: On the report split, one for each seed in their order; fewer than the best mask has
            where the comparison was settled before.
        difference: The best mask's advantage over it; None for the best itself and where it was
            not trained.
        note: Why it was not trained, or what else has to be known of it; else empty.
    """

    name: str
    heads: int | None
    neurons: int | None
    metrics: tuple[float, ...]
    difference: Difference | None
    note: str

    @property
    def title(self) -> str:
        """Its name as people say it."""
        return ARM_NAMES.get(self.name, self.name)

    @property
    def mean(self) -> float | None:
        """Mean over its seeds; None where it was not trained."""
        return statistics.fmean(self.metrics) if self.metrics else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over its seeds; None where there are fewer than two."""
        return statistics.stdev(self.metrics) if len(self.metrics) > 1 else None


@dataclass(frozen=True)
class ConfirmedMask:
    """A best mask of the study beside its controls.

    Attributes:
        milestones: Sparsities at which it is the best of the study, increasing.
        trial: Number of its trial.
        level: Its level in that trial.
        search_metric: Metric of the study's own run on the split that it was chosen on.
        report_metric: Metric of that run on the report split; None = not measured.
        training: How the arms were trained, in words.
        seeds: Seeds that the best mask was trained with.
        arms: `best`, `dense`, then the controls.
    """

    milestones: tuple[float, ...]
    trial: int
    level: int
    search_metric: float
    report_metric: float | None
    training: str
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]

    @property
    def best(self) -> Arm:
        """The arm of the best mask."""
        return self.arms[0]


@dataclass(frozen=True)
class Confirmation:
    """All best masks of a study that were confirmed.

    Attributes:
        study: Name of the study.
        metric: Name of the metric.
        higher_is_better: Direction of the metric.
        most_seeds: Seeds that a comparison may spend.
        looks: After how many seeds comparisons were looked at.
        confidence: Of every interval: 5 % of error, divided by the number of looks.
        resamples: How often the examples were drawn anew.
        examples: Examples of the report split.
        masks: One for each best mask, milestones increasing.
    """

    study: str
    metric: str
    higher_is_better: bool
    most_seeds: int
    looks: tuple[int, ...]
    confidence: float
    resamples: int
    examples: int
    masks: tuple[ConfirmedMask, ...]

    def to_values(self) -> dict[str, Any]:
        """Return the confirmation as JSON values; `read_confirmation` reads them."""
        values = asdict(self)
        for mask, written in zip(self.masks, values["masks"], strict=True):
            for arm, entry in zip(mask.arms, written["arms"], strict=True):
                entry |= {
                    "mean": arm.mean,
                    "deviation": arm.deviation,
                    "statement": describe_arm(arm, self.metric),
                }
        return {"schema": SCHEMA, **values}


def describe_arm(arm: Arm, metric: str) -> str:
    """Return what follows for the best mask from its comparison with an arm; empty for the best."""
    difference = arm.difference
    if difference is None:
        return arm.note
    words = _describe_difference(difference, arm.title, metric)
    return f"{words}; {arm.note}" if arm.note else words


def format_difference(difference: Difference, metric: str) -> str:
    """Return a difference with its interval: +2.1 [+1.5, +2.7] points."""
    scale, unit = choose_unit(metric)
    texts = [
        _format(value * scale, metric, difference, sign="+")
        for value in (difference.estimate, difference.low, difference.high)
    ]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]{unit}"


def choose_unit(metric: str) -> tuple[float, str]:
    """Return by what differences of a metric are multiplied to be shown, and the unit's word."""
    return (1.0, "") if metric in UNBOUNDED_METRICS else (100.0, " points")


def name_points(confirmation: Confirmation) -> list[tuple[float, str, str, float]]:
    """Return every number that a tracker shows.

    Returns:
        (milestone, arm, `mean` or `difference`, value); a mask counts at each of its milestones.
    """
    return [
        (milestone, arm.name, what, value)
        for mask in confirmation.masks
        for milestone in mask.milestones
        for arm in mask.arms
        for what, value in (
            ("mean", arm.mean),
            ("difference", None if arm.difference is None else arm.difference.estimate),
        )
        if value is not None and math.isfinite(value)
    ]


def list_outdated(confirmation: Confirmation, leaderboard: Leaderboard) -> list[float]:
    """Return the confirmed milestones at which the study has another best mask now."""
    places = {row.milestone: (row.trial, row.level) for row in leaderboard.rows}
    return [
        milestone
        for mask in confirmation.masks
        for milestone in mask.milestones
        if places.get(milestone) != (mask.trial, mask.level)
    ]


def write_confirmation(folder: StudyFolder, confirmation: Confirmation) -> None:
    """Write the confirmation beside the study's leaderboard.

    Raises:
        StorageError: The file cannot be written; it is whole or as it was.
    """
    text = json.dumps(confirmation.to_values(), indent=2, ensure_ascii=False, allow_nan=False)
    write_file(locate_confirmation(folder), text + "\n")


def read_confirmation(folder: StudyFolder) -> Confirmation | None:
    """Read the confirmation of a study; None where there is none.

    Raises:
        StorageError: It cannot be read.
    """
    path = locate_confirmation(folder)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        masks = tuple(_read_mask(mask) for mask in values.pop("masks"))
        return Confirmation(**{**values, "looks": tuple(values["looks"])}, masks=masks)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"confirmation {path}: cannot be read ({error}); run `distprune confirm` again and it "
            "is written anew"
        ) from error


def locate_confirmation(folder: StudyFolder) -> Path:
    """Return the file of a study's confirmation."""
    return folder.root / "confirmation.json"


def _read_mask(values: Mapping[str, Any]) -> ConfirmedMask:
    return ConfirmedMask(
        **{
            **values,
            "milestones": tuple(values["milestones"]),
            "seeds": tuple(values["seeds"]),
            "arms": tuple(_read_arm(arm) for arm in values["arms"]),
        }
    )


def _read_arm(values: Mapping[str, Any]) -> Arm:
    fields: dict[str, Any] = {name: values[name] for name in Arm.__dataclass_fields__}
    difference = fields["difference"] and Difference(**fields["difference"])
    return Arm(**{**fields, "metrics": tuple(fields["metrics"]), "difference": difference})


def _describe_difference(difference: Difference, title: str, metric: str) -> str:
    if not difference.is_settled:
        return f"not distinguishable from {title}: {format_difference(difference, metric)}"
    scale, unit = choose_unit(metric)
    is_better = difference.low > 0
    values: Sequence[float] = (difference.estimate, difference.low, difference.high)
    if not is_better:
        values = (-difference.estimate, -difference.high, -difference.low)
    texts = [_format(value * scale, metric, difference) for value in values]
    word = "better" if is_better else "worse"
    return f"{word} than {title} by {texts[0]}{unit} [{texts[1]}, {texts[2]}]"


def _format(value: float, metric: str, difference: Difference, sign: str = "") -> str:
    """Return a number with as many places as it takes to show on which side of zero it is."""
    if metric in UNBOUNDED_METRICS:
        return f"{value:{sign}.3g}"
    nearest = 100.0 * min(abs(difference.low), abs(difference.high))
    places = 2 if difference.is_settled and nearest < ROUNDED_AWAY else 1
    return f"{value:{sign}.{places}f}"
