import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distprune.errors import CheckpointError, ConfigError, DatasetError
from distprune.tasks import PreparedTask, TaskSpec, prepare, source_fingerprint
from distprune.tasks.prepared import SplitName
from tests.tasks.rows import make_rows

SPLITS: tuple[SplitName, ...] = ("train", "search", "report")


def run(spec: TaskSpec, tokenizer: Any, folder: Path, **options: Any) -> PreparedTask:
    prepare(spec, tokenizer, folder, **options)
    return PreparedTask.open(folder)


def test_classification(write_rows: Callable[..., str], tokenizer: Any, tmp_path: Path) -> None:
    rows = [row | {"label": "yes" if row["label"] else "no"} for row in make_rows(100)]
    rows += rows[:1]
    spec = TaskSpec(dataset=write_rows(rows), report_size=0.1, metric="f1", split_seed=1)
    task = run(spec, tokenizer, tmp_path / "made" / "here")
    facts = task.facts
    assert (facts.kind, facts.num_labels, facts.label_names) == ("classification", 2, ("no", "yes"))
    assert (facts.metric, facts.higher_is_better, task.metric.name) == ("f1", True, "f1")
    assert facts.counts == {name: task.split(name).num_rows for name in SPLITS}
    assert sum(facts.counts.values()) + facts.duplicates_dropped["train"] == 101
    assert facts.counts["search"] == 20
    assert facts.counts["report"] == 10
    assert facts.floors.keys() == {"search", "report"}
    assert facts.source_fingerprint == source_fingerprint(spec)
    search = task.split("search")
    lengths = [len(ids) for ids in search["input_ids"]]
    assert facts.mean_tokens["search"] == pytest.approx(sum(lengths) / 20)
    assert search.features["labels"].dtype == "int64"
    # Labels stay with their texts: the last word tells the parity of the row's number.
    for ids, label in zip(search["input_ids"], search["labels"], strict=True):
        assert (ids[-1] - 3) % 2 == label


def test_floor_is_that_of_the_majority(
    write_rows: Callable[..., str], tokenizer: Any, tmp_path: Path
) -> None:
    rows = [row | {"label": int(n % 4 == 0)} for n, row in enumerate(make_rows(200))]
    facts = run(TaskSpec(dataset=write_rows(rows)), tokenizer, tmp_path / "out").facts
    assert facts.floors == {"search": 0.75, "report": 0.75}
    assert facts.counts == {"train": 120, "search": 40, "report": 40}


def test_regression(write_rows: Callable[..., str], tokenizer: Any, tmp_path: Path) -> None:
    rows = [row | {"label": n / 10} for n, row in enumerate(make_rows(60, pair=True))]
    spec = TaskSpec(dataset=write_rows(rows), text_pair="second")
    task = run(spec, tokenizer, tmp_path / "out")
    assert (task.facts.kind, task.facts.num_labels, task.facts.label_names) == ("regression", 1, ())
    assert (task.facts.metric, task.facts.floors["search"]) == ("pearson_spearman", 0.0)
    assert task.split("train").features["labels"].dtype == "float32"
    assert "token_type_ids" in task.split("train").column_names


def test_writes_the_same_bytes_again(
    write_rows: Callable[..., str], tokenizer: Any, tmp_path: Path
) -> None:
    spec = TaskSpec(dataset=write_rows(make_rows(60)))
    contents = []
    for name in ("one", "two"):
        run(spec, tokenizer, tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({str(f.relative_to(tmp_path / name)): f.read_bytes() for f in files})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"facts.json"} | {
        f"{split}/{file}"
        for split in ("train", "search", "report")
        for file in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json")
    }


def test_leaves_neither_output_nor_scratch(
    write_rows: Callable[..., str], tokenizer: Any, tmp_path: Path, capfd: Any
) -> None:
    run(TaskSpec(dataset=write_rows(make_rows(60))), tokenizer, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "facts.json",
        "report",
        "search",
        "train",
    ]
    assert capfd.readouterr() == ("", "")


def test_refuses_before_it_writes_facts(
    write_rows: Callable[..., str], tokenizer: Any, tmp_path: Path
) -> None:
    spec = TaskSpec(dataset=write_rows(make_rows(60)))
    with pytest.raises(CheckpointError, match="must be below the 5 embeddings"):
        prepare(spec, tokenizer, tmp_path / "out", vocabulary_size=5)
    with pytest.raises(ConfigError, match="scores regression and this task is classification"):
        prepare(spec.model_copy(update={"metric": "pearson_spearman"}), tokenizer, tmp_path / "out")
    with pytest.raises(DatasetError, match=r"facts.json cannot be read .* prepare it again"):
        PreparedTask.open(tmp_path / "out")


def test_open_refuses_damage(
    write_rows: Callable[..., str], tokenizer: Any, tmp_path: Path
) -> None:
    task = run(TaskSpec(dataset=write_rows(make_rows(60))), tokenizer, tmp_path / "out")
    with pytest.raises(ValueError, match="split 'test': must be one of train, search, report"):
        task.split("test")  # type: ignore[arg-type]
    (tmp_path / "out" / "train" / "data-00000-of-00001.arrow").write_bytes(b"damage")
    with pytest.raises(DatasetError, match=r"split train cannot be read .* prepare it again"):
        task.split("train")
    facts = json.loads((tmp_path / "out" / "facts.json").read_text())
    (tmp_path / "out" / "facts.json").write_text(json.dumps(facts | {"kind": "ranking"}))
    with pytest.raises(DatasetError, match=r"facts.json cannot be read .*kind"):
        PreparedTask.open(tmp_path / "out")
