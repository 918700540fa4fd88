from typing import Any

import datasets
import pytest

from distprune.errors import DatasetError
from distprune.tasks.examples import divide_task, number_texts
from distprune.tasks.spec import TaskSpec
from tests.tasks.rows import make_rows


def make_split(rows: list[dict[str, Any]]) -> Any:
    return datasets.Dataset.from_list(rows)


def test_rows_keep_their_labels_and_order() -> None:
    rows = make_rows(60)
    task = divide_task(TaskSpec(dataset="data.csv"), {"train": make_split(rows)})
    label_of = {row["text"]: row["label"] for row in rows}
    order_of = {row["text"]: number for number, row in enumerate(rows)}
    seen = []
    for name, size in (("train", 36), ("search", 12), ("report", 12)):
        examples = task.splits[name]
        texts = examples.texts["text"][:]
        assert examples.texts.column_names == ["text"]
        assert len(texts) == size
        assert examples.labels.tolist() == [label_of[text] for text in texts]
        assert [order_of[text] for text in texts] == sorted(order_of[text] for text in texts)
        seen += texts
    assert sorted(seen) == sorted(label_of)


def test_texts_of_given_splits_leave_train() -> None:
    rows = make_rows(80)
    source = {"train": make_split(rows[:60]), "dev": make_split(rows[50:])}
    spec = TaskSpec(dataset="x/y", report_split="dev")
    task = divide_task(spec, source)
    assert task.duplicates_dropped == {"train": 10, "search": 0}
    assert task.splits["report"].texts["text"][:] == [row["text"] for row in rows[50:]]
    report = set(task.splits["report"].texts["text"][:])
    assert not report & set(task.splits["train"].texts["text"][:])
    assert not report & set(task.splits["search"].texts["text"][:])


def test_pairs_are_equal_if_both_texts_are() -> None:
    spec = TaskSpec(dataset="x/y", text_pair="second")
    numbers: dict[tuple[str, ...], int] = {}
    rows = [{"text": text, "second": second, "label": 0} for text, second in ("ab", "ac", "ab")]
    assert number_texts(spec, "train", make_split(rows), numbers).tolist() == [0, 1, 0]
    other = [{"text": "b", "second": "a", "label": 0}, rows[1]]
    assert number_texts(spec, "dev", make_split(other), numbers).tolist() == [2, 1]


@pytest.mark.parametrize("value", [None, 7])
def test_refuses_what_is_no_text(value: Any) -> None:
    texts = {"text": [value, value], "second": ["a", "b"], "label": [0, 1]}
    spec = TaskSpec(dataset="x/y", text="second", text_pair="text")
    with pytest.raises(
        DatasetError, match=f"'text': split 'train' has {value} in row 1; every exam"
    ):
        divide_task(spec, {"train": datasets.Dataset.from_dict(texts)})
