"""From a source and a task to the labelled texts of each split, before any tokenizer is known."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distprune.errors import DatasetError
from distprune.tasks.labels import LabelEncoding, decide_encoding, encode_labels
from distprune.tasks.spec import TaskSpec
from distprune.tasks.splits import SPLIT_NAMES, Rows, plan_splits

if TYPE_CHECKING:
    from collections.abc import Mapping

    import datasets


@dataclass(frozen=True)
class Examples:
    """Texts of one split in the order of the source, and their labels.

    Attributes:
        texts: dataset with the text columns of the task, n rows.
        labels: [n] int64 class indices, or float32 values for regression.
    """

    texts: "datasets.Dataset"
    labels: npt.NDArray[Any]


@dataclass(frozen=True)
class DividedTask:
    """The splits of a task.

    Attributes:
        encoding: how labels became numbers.
        splits: examples of train, search and report.
        duplicates_dropped: rows of train and of search left out because a split that is kept
            for judging has their text.
    """

    encoding: LabelEncoding
    splits: "Mapping[str, Examples]"
    duplicates_dropped: dict[str, int]


def divide_task(spec: TaskSpec, source: "Mapping[str, datasets.Dataset]") -> DividedTask:
    """Label and split the examples of a source.

    Args:
        spec: the task.
        source: what `load_source` returned.

    Raises:
        DatasetError: if a text or a label cannot be used, or a split would be too small.
    """
    encoding = decide_encoding(source[spec.train_split], spec.label, spec.kind, spec.train_split)
    numbers: dict[tuple[str, ...], int] = {}
    rows = {
        name: Rows(
            texts=number_texts(spec, name, source[name], numbers),
            labels=encode_labels(source[name], spec.label, encoding, name),
        )
        for name in source
    }
    names = {"train": spec.train_split, "search": spec.search_split, "report": spec.report_split}
    roles = {role: rows[name] if name is not None else None for role, name in names.items()}
    class_names = encoding.names if encoding.kind == "classification" else None
    plan = plan_splits(spec, rows[spec.train_split], roles["search"], roles["report"], class_names)
    splits = {}
    for role in SPLIT_NAMES:
        name, indices = names[role] or spec.train_split, getattr(plan, role)
        texts = source[name].select_columns(list(spec.columns[:-1])).select(indices)
        splits[role] = Examples(texts, rows[name].labels[indices])
    dropped = {"train": plan.dropped_from_train, "search": plan.dropped_from_search}
    return DividedTask(encoding, splits, dropped)


def number_texts(
    spec: TaskSpec, split: str, rows: "datasets.Dataset", numbers: dict[tuple[str, ...], int]
) -> npt.NDArray[np.int64]:
    """Number texts (or pairs of texts) so that equal ones have equal numbers.

    Args:
        spec: the task, for its columns.
        split: name of the split, for messages.
        rows: the split.
        numbers: the numbers given so far, shared by all splits; new texts are added to it.

    Returns:
        [n] the number of each row.

    Raises:
        DatasetError: if a text is missing or is no text.
    """
    columns = [rows[column][:] for column in spec.columns[:-1]]
    for column, texts in zip(spec.columns, columns, strict=False):
        for row, text in enumerate(texts, start=1):
            if not isinstance(text, str):
                raise DatasetError(
                    f"text column {column!r}: split {split!r} has {text!r} in row {row}; every "
                    "example needs a text; correct or remove the row, or choose another column"
                )
    keys = zip(*columns, strict=True)
    return np.asarray([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
