import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from distprune.errors import DatasetError
from distprune.tasks import sources
from distprune.tasks.sources import load_source, quiet_datasets, source_fingerprint
from distprune.tasks.spec import TaskSpec
from tests.tasks.rows import make_rows


def save(folder: Path, **splits: list[dict[str, Any]]) -> str:
    rows = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    with quiet_datasets():
        datasets.DatasetDict(rows).save_to_disk(folder)
    return str(folder)


def answer_hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    calls = []

    def load_dataset(name: str, config: str | None, revision: str | None) -> Any:
        calls.append((name, config, revision))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_local_file_is_the_train_split(write_rows: Callable[..., str]) -> None:
    source = load_source(TaskSpec(dataset=write_rows(make_rows(5))))
    assert list(source) == ["train"]
    assert source["train"].column_names == ["text", "label"]


def test_home_and_working_folder(
    write_rows: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_rows(make_rows(5))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("~/data.jsonl", "data.jsonl", "./data.jsonl"):
        assert load_source(TaskSpec(dataset=name))["train"].num_rows == 5


def test_folder_gives_named_splits_and_columns_only(tmp_path: Path) -> None:
    rows = make_rows(4, pair=True)
    path = save(tmp_path / "saved", train=rows, dev=rows, test=rows)
    spec = TaskSpec(dataset=path, text="second", report_split="dev")
    source = load_source(spec)
    assert {name: split.column_names for name, split in source.items()} == {
        "train": ["second", "label"],
        "dev": ["second", "label"],
    }


def test_saved_output_format_is_ignored(tmp_path: Path) -> None:
    with quiet_datasets():
        datasets.Dataset.from_list(make_rows(4)).with_format("numpy").save_to_disk(tmp_path / "s")
    labels = load_source(TaskSpec(dataset=str(tmp_path / "s")))["train"]["label"][:]
    assert [type(label) for label in labels] == [int] * 4


def test_hub_dataset_goes_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_list(make_rows(4))
    calls = answer_hub(monkeypatch, datasets.DatasetDict(train=rows, validation=rows))
    spec = TaskSpec(
        dataset="nyu-mll/glue", config="sst2", revision="abc", report_split="validation"
    )
    assert list(load_source(spec)) == ["train", "validation"]
    assert calls == [("nyu-mll/glue", "sst2", "abc")]


def test_hub_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_hub(monkeypatch, ConnectionError("no route\nto the hub"))
    with pytest.raises(DatasetError) as caught:
        load_source(TaskSpec(dataset="x/y", config="z"))
    assert str(caught.value) == (
        "dataset 'x/y' (config 'z', revision None): is no local path and cannot be loaded from the "
        "hub (no route to the hub); check the name, the config and the network, or write it "
        "with save_to_disk where there is a network and give that folder"
    )


def test_demo_is_routed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_list(make_rows(4))
    monkeypatch.setattr(sources, "load_demo", {"nyt": rows}.__getitem__)
    assert load_source(TaskSpec(dataset="demo:nyt"))["train"].num_rows == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "body"}, "split 'train' has no column 'body'; its columns are text, second, lab"),
        ({"text_pair": "b"}, "no column 'b'; .* set text_pair to one of them"),
        ({"label": "stars"}, "no column 'stars'; .* set label to one of them"),
        ({"train_split": "trian"}, "there is no split 'trian'; there are train"),
        ({"report_split": "test"}, "there is no split 'test'; there are train; set train_split"),
        ({"dataset": "missing.csv"}, "missing.csv: there is no such file or folder .working fold"),
        ({"dataset": "/missing/data"}, "/missing/data: there is no such file or folder"),
        ({"dataset": "../missing-data"}, "there is no such file or folder"),
    ],
)
def test_refuses(write_rows: Callable[..., str], fields: dict[str, Any], message: str) -> None:
    path = write_rows(make_rows(5, pair=True))
    with pytest.raises(DatasetError, match=message):
        load_source(TaskSpec.model_validate({"dataset": path} | fields))


def test_refuses_hub_fields_for_a_folder(tmp_path: Path) -> None:
    path = save(tmp_path / "saved", train=make_rows(4))
    with pytest.raises(DatasetError, match="is a local path, where config and revision mean noth"):
        load_source(TaskSpec(dataset=path, config="sst2"))


def test_fingerprint_follows_the_content(write_rows: Callable[..., str], tmp_path: Path) -> None:
    first = source_fingerprint(TaskSpec(dataset=write_rows(make_rows(5), "a.jsonl")))
    assert first == source_fingerprint(TaskSpec(dataset=write_rows(make_rows(5), "b.jsonl")))
    assert first != source_fingerprint(TaskSpec(dataset=write_rows(make_rows(6), "a.jsonl")))
    assert len(first) == 64


def test_fingerprint_of_a_folder_is_that_of_the_rows_used(tmp_path: Path) -> None:
    rows, pairs = make_rows(4), make_rows(4, pair=True)
    first = TaskSpec(dataset=save(tmp_path / "one", train=rows))
    again = TaskSpec(dataset=save(tmp_path / "two", train=pairs, test=rows))
    other = TaskSpec(dataset=save(tmp_path / "three", train=rows[::-1]))
    assert source_fingerprint(first) == source_fingerprint(again)
    assert source_fingerprint(first) != source_fingerprint(other)
    assert source_fingerprint(first, load_source(first)) == source_fingerprint(first)


def test_fingerprint_sees_class_names(tmp_path: Path) -> None:
    found = set()
    for names in (["no", "yes"], ["yes", "no"]):
        features = datasets.Features(
            text=datasets.Value("string"), label=datasets.ClassLabel(names=names)
        )
        rows = datasets.Dataset.from_list(make_rows(4), features=features)
        found.add(sources.fingerprint_rows({"train": rows}))
    assert len(found) == 2


def test_fingerprint_is_the_same_in_another_process(tmp_path: Path) -> None:
    spec = TaskSpec(dataset=save(tmp_path / "saved", train=make_rows(20)))
    code = (
        "import sys; from distprune.tasks import TaskSpec, source_fingerprint\n"
        "print(source_fingerprint(TaskSpec(dataset=sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, spec.dataset]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == source_fingerprint(spec)


def test_fingerprints_of_demo_domains_differ_without_a_fetch() -> None:
    found = {source_fingerprint(TaskSpec(dataset=f"demo:{name}")) for name in ("nyt", "movies")}
    assert len(found) == 2


def fail_where_bars_are_disabled() -> None:
    if datasets.are_progress_bars_disabled():
        raise DatasetError("bars are disabled")


@pytest.mark.parametrize("enabled", [True, False])
def test_progress_bars_are_restored(enabled: bool) -> None:
    before = datasets.are_progress_bars_disabled()
    (datasets.enable_progress_bars if enabled else datasets.disable_progress_bars)()
    try:
        with pytest.raises(DatasetError), quiet_datasets():
            fail_where_bars_are_disabled()
        assert datasets.are_progress_bars_disabled() is not enabled
    finally:
        (datasets.disable_progress_bars if before else datasets.enable_progress_bars)()
