"""Which rows train, search and report: disjoint, stratified, and the same in every process.

Decisions in numpy about numbered texts and labels; no data is read here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distprune.errors import DatasetError
from distprune.tasks.spec import TaskSpec

SPLIT_NAMES = ("train", "search", "report")
MINIMUM_EXAMPLES = 8
"""Examples that every split must have."""
MINIMUM_PER_CLASS = {"train": 2, "search": 1, "report": 1}
"""Examples of every class that a split must have."""

# Streams of randomness: a limit on one split leaves the draws of the others as they are.
_DRAW_STREAM = {"search": 0, "report": 1}
_LIMIT_STREAM = {"train": 2, "search": 3, "report": 4}

Indices = npt.NDArray[np.int64]
Names = Sequence[str] | None


@dataclass(frozen=True)
class Rows:
    """What a split of the source looks like to the decision.

    Attributes:
        texts: [n] int64; rows have equal numbers if their texts are equal, across all splits.
        labels: [n] class indices, or floats for regression.
    """

    texts: Indices
    labels: npt.NDArray[Any]


@dataclass(frozen=True)
class SplitPlan:
    """The rows of each split.

    Attributes:
        train: ascending row numbers in the source's train split.
        search: ascending row numbers in the source's search split, or in train if made from it.
        report: ascending row numbers in the source's report split, or in train if made from it.
        dropped_from_train: train rows left out because search or report has their text.
        dropped_from_search: search rows left out because report has their text.
    """

    train: Indices
    search: Indices
    report: Indices
    dropped_from_train: int
    dropped_from_search: int


def plan_splits(
    spec: TaskSpec, train: Rows, search: Rows | None, report: Rows | None, class_names: Names
) -> SplitPlan:
    """Decide the rows of all splits.

    A text is in one split only: report keeps it before search, search before train. What is made
    from train is drawn from its distinct texts, by class for classification, at random for
    regression. Limits are applied last.

    Args:
        spec: sizes, limits and the seed.
        train: rows of the source's train split.
        search: rows of the source's search split; None makes it from train.
        report: rows of the source's report split; None makes it from train.
        class_names: names of the classes in order; None for regression.

    Raises:
        DatasetError: if a split would be too small, or lacks a class.
    """
    _check_sources(spec, train, search, report)
    kept = _separate_splits(spec, train, search, report, class_names)
    sources = {"train": train, "search": search or train, "report": report or train}
    limited = {
        name: _limit_split(spec, name, kept[name], sources[name].labels, class_names)
        for name in SPLIT_NAMES
    }
    for name, indices in limited.items():
        check_split(name, sources[name].labels[indices], class_names)
    moved = sum(len(kept[name]) for name in ("search", "report") if sources[name] is train)
    return SplitPlan(
        train=limited["train"],
        search=limited["search"],
        report=limited["report"],
        dropped_from_train=len(train.texts) - len(kept["train"]) - moved,
        dropped_from_search=0 if search is None else len(search.texts) - len(kept["search"]),
    )


def draw_stratified(
    candidates: Indices, strata: npt.NDArray[Any], count: int, seed: list[int]
) -> Indices:
    """Draw rows so that every stratum keeps its share.

    Args:
        candidates: [n] row numbers.
        strata: [n] the stratum of each, whole numbers.
        count: how many to draw, 0 to n.
        seed: whole numbers, at least 0.

    Returns:
        [count] of the candidates, ascending.
    """
    generator = np.random.default_rng(seed)
    values, counts = np.unique(strata, return_counts=True)
    drawn = [
        generator.permutation(candidates[strata == value])[:share]
        for value, share in zip(values, apportion(counts, count), strict=True)
    ]
    return np.sort(np.concatenate(drawn)) if drawn else candidates[:0]


def apportion(counts: Indices, total: int) -> Indices:
    """Share a total out in proportion to counts, by largest remainder; earlier wins ties.

    Where the total allows it, nobody gets less than one.

    Args:
        counts: [k] at least 1 each.
        total: 0 to the sum of counts.

    Returns:
        [k] shares, at most the counts, with sum `total`.
    """
    if len(counts) == 0:
        return counts
    shares, remainders = np.divmod(counts * total, counts.sum())
    order = np.argsort(-remainders, kind="stable")
    shares[order[: total - shares.sum()]] += 1
    while total >= len(counts) and shares.min() == 0:
        shares[shares.argmax()] -= 1
        shares[shares.argmin()] += 1
    return shares


def check_split(name: str, labels: npt.NDArray[Any], class_names: Names) -> None:
    """Refuse a split that nothing can be learned or measured on.

    Args:
        name: train, search or report.
        labels: [n] its labels.
        class_names: names of the classes in order; None for regression.

    Raises:
        DatasetError: with the rule that is broken.
    """
    remedy = f"give more data, or change {name}_limit, search_size or report_size"
    if len(labels) < MINIMUM_EXAMPLES:
        raise DatasetError(
            f"{name} split: has {len(labels)} examples, must have at least {MINIMUM_EXAMPLES}; "
            f"{remedy}"
        )
    if class_names is None:
        if len(np.unique(labels)) < 2:
            raise DatasetError(
                f"{name} split: all its labels are {labels[0]}, must have two values at least; "
                f"{remedy}"
            )
        return
    if len(class_names) < 2:
        raise DatasetError(
            f"{name} split: has {len(class_names)} class, must have at least 2; choose another "
            "label column"
        )
    counts = np.bincount(labels, minlength=len(class_names))
    rarest = int(counts.argmin())
    if counts[rarest] < MINIMUM_PER_CLASS[name]:
        raise DatasetError(
            f"{name} split: class {class_names[rarest]!r} has {counts[rarest]} examples, must have "
            f"at least {MINIMUM_PER_CLASS[name]} of every class; {remedy}, or remove the class"
        )


def _check_sources(spec: TaskSpec, train: Rows, search: Rows | None, report: Rows | None) -> None:
    names = (spec.train_split, spec.search_split, spec.report_split)
    for name, rows in zip(names, (train, search, report), strict=True):
        if rows is not None and len(rows.texts) == 0:
            raise DatasetError(
                f"dataset {spec.dataset}: split {name!r} is empty; choose another split"
            )


def _separate_splits(
    spec: TaskSpec, train: Rows, search: Rows | None, report: Rows | None, class_names: Names
) -> dict[str, Indices]:
    """Give every split rows whose texts are in no other split."""
    kept: dict[str, Indices] = {}
    taken = np.empty(0, dtype=np.int64)  # texts of report and search
    if report is not None:
        kept["report"] = np.arange(len(report.texts))
        taken = np.union1d(taken, report.texts)
    if search is not None:
        kept["search"] = np.flatnonzero(~np.isin(search.texts, taken))
        taken = np.union1d(taken, search.texts[kept["search"]])
    for name in ("report", "search"):
        if name not in kept:
            kept[name] = _draw_split(spec, name, train, taken, class_names)
            taken = np.union1d(taken, train.texts[kept[name]])
    kept["train"] = np.flatnonzero(~np.isin(train.texts, taken))
    return kept


def _draw_split(
    spec: TaskSpec, name: str, train: Rows, taken: Indices, class_names: Names
) -> Indices:
    """Draw search or report from the distinct texts of train that are not taken."""
    _, first = np.unique(train.texts, return_index=True)
    available = len(first)
    first = np.sort(first[~np.isin(train.texts[first], taken)])
    size: int | float = getattr(spec, f"{name}_size")
    count = size if isinstance(size, int) else round(size * available)
    if count >= len(first):
        raise DatasetError(
            f"{name}_size {size}: leaves nothing to train on, as only {len(first)} distinct "
            f"examples of split {spec.train_split!r} are free; make it smaller"
        )
    strata = _find_strata(train.labels[first], class_names)
    return draw_stratified(first, strata, count, [spec.split_seed, _DRAW_STREAM[name]])


def _limit_split(
    spec: TaskSpec,
    name: str,
    indices: Indices,
    labels: npt.NDArray[Any],
    class_names: Names,
) -> Indices:
    limit: int | None = getattr(spec, f"{name}_limit")
    if limit is None or limit >= len(indices):
        return indices
    strata = _find_strata(labels[indices], class_names)
    return draw_stratified(indices, strata, limit, [spec.split_seed, _LIMIT_STREAM[name]])


def _find_strata(labels: npt.NDArray[Any], class_names: Names) -> npt.NDArray[Any]:
    return np.zeros(len(labels), dtype=np.int64) if class_names is None else labels
