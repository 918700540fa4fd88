import json
from pathlib import Path

import datasets
import pytest

from distprune.errors import DatasetError
from distprune.tasks.local import read_file, read_folder
from tests.tasks.rows import make_rows, write_csv, write_jsonl

TEXTS = ['He said "no",\tthen left', "NA", "123", "null", "", "ünïcode\u2028line"]
ROWS = [{"text": text, "label": number % 2} for number, text in enumerate(TEXTS)]


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        datasets.Dataset.from_list(ROWS).to_parquet(path)
        return path
    if path.suffix == ".json":
        path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
        return path
    if path.suffix == ".jsonl":
        return write_jsonl(path, ROWS)
    return write_csv(path, ROWS, "\t" if path.suffix == ".tsv" else ",")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet", ".CSV"])
def test_every_format_keeps_every_value(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / f"data{suffix.lower()}").rename(tmp_path / f"data{suffix}")
    monkeypatch.setenv("HOME", "/nonexistent")  # nothing may be cached
    rows = read_file(path, ("text",))
    assert rows["text"][:] == TEXTS
    assert rows["label"][:] == [0, 1, 0, 1, 0, 1]
    assert rows.features["label"].dtype == "int64"


def test_json_may_be_lines_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text('\ufeff{"text": "x", "label": 0.5}\n\n{"text": "y"}\n', encoding="utf-8")
    rows = read_file(path, ("text",))
    assert rows["text"][:] == ["x", "y"]
    assert rows["label"][:] == [0.5, None]


def test_comma_separated_values_may_hold_lines(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "data.csv", [{"text": "one\ntwo", "label": 1}])
    assert read_file(path, ("text",))["text"][:] == ["one\ntwo"]


def test_parquet_keeps_class_names(tmp_path: Path) -> None:
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])
    )
    rows = datasets.Dataset.from_list(make_rows(4), features=features)
    rows.to_parquet(tmp_path / "data.parquet")
    assert read_file(tmp_path / "data.parquet", ("text",)).features["label"].names == ["no", "yes"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "cannot be read as .csv .*Empty CSV file"),
        ("a.csv", b"text,label\nx\n", "cannot be read as .csv .*Expected 2 columns, got 1"),
        ("a.csv", b"text,label\n\xff\xfe,1\n", "cannot be read as .csv .*UTF8"),
        ("a.tsv", b'text\tlabel\n"a\t1\nb" c\t0\n', "column 'text' has values over several lines"),
        ("a.json", b"[1, 2]", "entry 1 must be an object of column names and values, not int"),
        ("a.json", b"[{]", "cannot be read as .json"),
        ("a.json", b"{\n}", "line 1 is no JSON .* or one list"),
        ("a.jsonl", b'{"text": 1}\n{"text"\n', "line 2 is no JSON"),
        ("a.jsonl", b'{"text": 1}\n{"text": "x"}\n', "cannot be read as .jsonl"),
        ("a.jsonl", b"\xff\n", "cannot be read as .jsonl"),
        ("a.parquet", b"no", "cannot be read as .parquet"),
        ("a.xlsx", b"no", "unknown kind of file '.xlsx'; must be one of .csv, .tsv"),
    ],
)
def test_refuses(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        read_file(path, ("text",))
    assert "\n" not in str(caught.value)


def test_folder_of_splits_or_of_one(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(make_rows(4))
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=rows, dev=rows).save_to_disk(tmp_path / "two")
    assert list(read_folder(tmp_path / "one")) == ["train"]
    assert sorted(read_folder(tmp_path / "two")) == ["dev", "train"]


def test_refuses_another_folder(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"cannot be read .* give a folder written by save_to_dis"
    ):
        read_folder(tmp_path)
