from typing import Any

import datasets
import numpy as np
import pytest

from distprune.errors import DatasetError
from distprune.tasks.labels import LabelEncoding, decide_encoding, encode_labels


def make_column(values: list[Any], feature: Any = None) -> Any:
    features = None if feature is None else datasets.Features(label=feature)
    return datasets.Dataset.from_dict({"label": values}, features=features)


def decide(values: list[Any], kind: str = "auto", feature: Any = None) -> LabelEncoding:
    return decide_encoding(make_column(values, feature), "label", kind, "train")


def encode(encoding: LabelEncoding, values: list[Any], feature: Any = None) -> Any:
    return encode_labels(make_column(values, feature), "label", encoding, "dev")


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        (["spam", "ham", "spam"], ("ham", "spam"), [1, 0, 1]),
        ([5, 1, 10], ("1", "5", "10"), [1, 0, 2]),
        ([-1, 1, -1], ("-1", "1"), [0, 1, 0]),
        ([True, False, True], ("false", "true"), [1, 0, 1]),
    ],
)
def test_classes_are_sorted(values: list[Any], names: tuple[str, ...], expected: list[int]) -> None:
    encoding = decide(values)
    assert (encoding.kind, encoding.names, encoding.num_labels) == (
        "classification",
        names,
        len(names),
    )
    labels = encode(encoding, values)
    assert labels.tolist() == expected
    assert labels.dtype == np.int64


def test_declared_classes_keep_their_order() -> None:
    feature = datasets.ClassLabel(names=["zebra", "ape"])
    encoding = decide([1, 0], feature=feature)
    assert encoding.names == ("zebra", "ape")
    assert encode(encoding, [0, 1], feature).tolist() == [0, 1]


def test_floats_are_regression_unless_told() -> None:
    assert decide([0.0, 1.5]) == LabelEncoding("regression", (), ())
    assert decide([0.0, 1.5]).num_labels == 1
    assert decide([1.0, 0.0], "classification").names == ("0", "1")
    labels = encode(decide([1, 2], "regression"), [1, 2])
    assert labels.dtype == np.float32


@pytest.mark.parametrize(
    ("train", "dev", "kind", "message"),
    [
        ([0, 1], [0, None], "auto", "split 'dev' has None in row 2; every example needs a label"),
        (["a", "b"], ["", ""], "auto", "has '' in row 1 and 1 more rows; every example needs"),
        ([0, 1], [-1, -1], "auto", "split 'dev' has 2 labels of -1, which stand for hidden labels"),
        ([0, 1], [0, 2], "auto", "has 2 in row 2; must be one of the classes of train .0, 1."),
        ([0, 1], [0.5], "classification", "has 0.5 in row 1; must be whole numbers or names for"),
        ([0, 1], ["x"], "regression", "has 'x' in row 1; must be finite numbers for regression"),
        ([0.5, 1], [float("nan")], "auto", "has nan in row 1; must be finite numbers"),
        ([0.5, 1], [float("inf")], "auto", "has inf in row 1; must be finite numbers"),
    ],
)
def test_refuses(train: list[Any], dev: list[Any], kind: str, message: str) -> None:
    encoding = decide(train, kind)
    with pytest.raises(DatasetError, match=message):
        encode(encoding, dev)


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")])
def test_refuses_floats_as_classes(value: float) -> None:
    with pytest.raises(DatasetError, match=r"split 'train' has .* in row 2; must be whole numbers"):
        decide([1.0, value], "classification")


def test_refuses_hidden_declared_labels() -> None:
    feature = datasets.ClassLabel(names=["no", "yes"])
    with pytest.raises(DatasetError, match="hidden labels; choose a split with public labels"):
        encode(decide([0, 1], feature=feature), [-1], feature)


def test_refuses_columns_that_are_no_labels() -> None:
    with pytest.raises(DatasetError, match=r"label column 'label': its type .* is no label"):
        decide([[1, 2], [3]])
    with pytest.raises(DatasetError, match="must be whole numbers or names"):
        decide([b"x", b"y"])


def test_names_ten_classes_at_most() -> None:
    encoding = decide(list(range(12)))
    with pytest.raises(DatasetError, match=r"\(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.\)"):
        encode(encoding, [12])
