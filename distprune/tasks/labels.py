"""Labels: which classes a task has, and the number of each example's class.

What decides here is the label column of the train split; the other splits have to follow it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distprune.errors import DatasetError
from distprune.tasks.metrics import TaskKind

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class LabelEncoding:
    """How the labels of a source become numbers.

    Attributes:
        kind: classification or regression.
        values: values of the source in class order; empty for regression.
        names: a name for each class, in class order; empty for regression.
    """

    kind: TaskKind
    values: tuple[int | str, ...]
    names: tuple[str, ...]

    @property
    def num_labels(self) -> int:
        """Outputs of a model for this task: the number of classes, or 1 for regression."""
        return len(self.values) if self.kind == "classification" else 1


def decide_encoding(train: "datasets.Dataset", column: str, kind: str, split: str) -> LabelEncoding:
    """Decide from the train split how labels are encoded.

    Declared classes keep their order and names; other values are classes in sorted order.

    Args:
        train: the train split.
        column: its label column.
        kind: auto, classification or regression.
        split: name of the split, for messages.

    Raises:
        DatasetError: if the column cannot be labels of this kind.
    """
    import datasets

    feature = train.features[column]
    if not isinstance(feature, datasets.ClassLabel | datasets.Value):
        raise DatasetError(
            f"label column {column!r}: its type {feature} is no label; must be whole numbers, "
            "names or floats"
        )
    is_float = isinstance(feature, datasets.Value) and "float" in feature.dtype
    if kind == "regression" or (kind == "auto" and is_float):
        return LabelEncoding("regression", (), ())
    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
        return LabelEncoding("classification", tuple(range(len(names))), names)
    values = sorted(set(_read_classes(train, column, split)))
    return LabelEncoding("classification", tuple(values), tuple(str(value) for value in values))


def encode_labels(
    rows: "datasets.Dataset", column: str, encoding: LabelEncoding, split: str
) -> npt.NDArray[Any]:
    """Turn the labels of one split into numbers.

    Returns:
        [n] int64 class indices, or float32 values for regression.

    Raises:
        DatasetError: if a label is missing, is no number where one is needed, or is of no class.
    """
    if encoding.kind == "regression":
        return _read_numbers(rows, column, split)
    index = {value: number for number, value in enumerate(encoding.values)}
    found = _read_classes(rows, column, split)
    unknown = _find_rows(found, lambda value: value not in index)
    if unknown and found[unknown[0]] == -1:
        raise DatasetError(
            f"label column {column!r}: split {split!r} has {len(unknown)} labels of -1, which "
            "stand for hidden labels; choose a split with public labels, or make it from train"
        )
    if unknown:
        classes = ", ".join(map(repr, encoding.values[:10])) + ", ..." * (len(index) > 10)
        raise _describe(
            column, split, found, unknown, f"must be one of the classes of train ({classes})"
        )
    return np.asarray([index[value] for value in found], dtype=np.int64)


def _read_classes(rows: "datasets.Dataset", column: str, split: str) -> list[Any]:
    """Read labels as whole numbers or names; truth values become names."""
    values = _read_present(rows, column, split)
    bad = _find_rows(values, lambda value: isinstance(value, float) and not value.is_integer())
    if bad:
        rule = "must be whole numbers or names for classification; or set kind to regression"
        raise _describe(column, split, values, bad, rule)
    bad = _find_rows(values, lambda value: not isinstance(value, str | int | float))
    if bad:
        raise _describe(column, split, values, bad, "must be whole numbers or names")
    return [_normalise(value) for value in values]


def _normalise(value: bool | int | float | str) -> int | str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else int(value)


def _read_numbers(rows: "datasets.Dataset", column: str, split: str) -> npt.NDArray[np.float32]:
    values = _read_present(rows, column, split)
    bad = _find_rows(
        values, lambda value: not isinstance(value, int | float) or not math.isfinite(value)
    )
    if bad:
        raise _describe(
            column, split, values, bad, "must be finite numbers for regression; correct the data"
        )
    return np.asarray(values, dtype=np.float32)


def _read_present(rows: "datasets.Dataset", column: str, split: str) -> list[Any]:
    values = list(rows[column][:])
    missing = _find_rows(values, lambda value: value is None or value == "")
    if missing:
        raise _describe(
            column, split, values, missing, "every example needs a label; fill in or remove the row"
        )
    return values


def _find_rows(values: Sequence[Any], is_bad: Callable[[Any], bool]) -> list[int]:
    return [number for number, value in enumerate(values) if is_bad(value)]


def _describe(
    column: str, split: str, values: Sequence[Any], bad: Sequence[int], rule: str
) -> DatasetError:
    more = f" and {len(bad) - 1} more rows" if len(bad) > 1 else ""
    return DatasetError(
        f"label column {column!r}: split {split!r} has {values[bad[0]]!r} in row {bad[0] + 1}"
        f"{more}; {rule}"
    )
