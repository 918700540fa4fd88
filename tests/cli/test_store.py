"""`distprune store`: what it says, what it removes, and that it never starts a framework."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from distprune.library.study_folder import StudyFolder
from distprune.store.key import content_key
from distprune.store.store import Store
from tests.cli.conftest import RunCommand
from tests.test_imports import find_heavy_imports

MIB = 2**20
VERBS = ["status", "verify", "gc"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with four weights, of which a mask library names the oldest, and their scores."""
    folder = StudyFolder(tmp_path / "studies", "mine")
    store = Store(str(folder.store))
    pinned = commit(store, "weights 0", "retrain", MIB)
    for number in range(1, 4):
        commit(store, f"weights {number}", "retrain", MIB, age_s=9000 - number)
    commit(store, "scores", "score", 1000)
    path = folder.evidence(0.5)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"lineage": {"weights": pinned, "evaluation": "", "evidence": {}}}))
    return store


def commit(store: Store, name: str, stage: str, size: int, age_s: float = 10_000.0) -> str:
    key = content_key(name)
    store.commit(key, lambda path: (path / "w").write_bytes(bytes(size)), {"stage": stage})
    moment = time.time() - age_s
    os.utime(find_folder(store, key) / "manifest.json", (moment, moment))
    return key


def find_folder(store: Store, key: str) -> Path:
    return Path(store.root) / "entries" / key[:2] / key


def leave_behind(store: Store) -> None:
    """Leave what a killed process and a damaged entry leave."""
    damaged = commit(store, "damaged", "score", 500)
    (find_folder(store, damaged) / "w").unlink()
    assert store.verify(damaged) is not None
    process = store._location.temporary_folder  # type: ignore[attr-defined]
    with process() as folder:
        name = folder.name.split("~")
    dead = folder.with_name("~".join([name[0], "4194999", "1", "00"]))
    dead.mkdir()
    (dead / "half").write_bytes(bytes(300))


def storage_of(store: Store) -> Path:
    return Path(store.root).parent


def read_json(out: str) -> Any:
    return json.loads(out)


def test_status(store: Store, run_command: RunCommand) -> None:
    leave_behind(store)
    finished = run_command("store", "status", storage_of(store))
    assert (finished.code, finished.err) == (0, "")
    rows = [line.split() for line in finished.out.splitlines() if line.strip()]
    assert rows[0][:2] == ["Store", store.root[: len(rows[0][1])]]
    table = {row[0]: row[1:4] for row in rows}
    assert table["retrain"] == ["4", "4.0", "0:00"]
    assert table["score"] == ["1", "0.0", "0:00"]
    assert table["total"] == ["5", "4.0", "0:00"]
    assert ["pinned:", "mask", "library", "of", "mine", "1", "1.0"] in rows
    assert ["within", "the", "limit", "3", "3.0"] in rows
    assert ["damaged", "1", "0.0"] in rows
    assert ["temporary", "1", "0.0"] in rows


def test_status_for_programs(store: Store, run_command: RunCommand) -> None:
    leave_behind(store)
    finished = run_command("store", "status", storage_of(store), "--json")
    values = read_json(finished.out)
    retrain, score = values["stages"]
    assert (retrain["stage"], retrain["entries"], score["stage"]) == ("retrain", 4, "score")
    assert 4 * MIB < retrain["bytes"] < 4 * MIB + 3000
    assert retrain["last_used"] < retrain["oldest"]  # set back by this test
    assert values["total"] == {"entries": 5, "bytes": store.count_bytes()}
    assert [(row["what"], row["count"]) for row in values["stays"]] == [
        ("no weights: never evicted", 1),
        ("pinned: mask library of mine", 1),
        ("within the limit", 3),
    ]
    damaged, temporary = values["leftovers"]
    assert (damaged["what"], damaged["count"]) == ("damaged", 1)
    assert temporary == {"what": "temporary", "count": 1, "bytes": 300}


def test_status_tells_what_is_being_written(store: Store, run_command: RunCommand) -> None:
    def write(folder: Path) -> None:
        (folder / "w").write_bytes(bytes(10))
        finished = run_command("store", "status", storage_of(store), "--json")
        assert read_json(finished.out)["leftovers"] == [
            {"what": "temporary, being written", "count": 1, "bytes": 10}
        ]
        assert run_command("store", "gc", storage_of(store)).code == 0

    store.commit(content_key("slow"), write, {})
    assert store.verify(content_key("slow")) is None


def test_verify_finds_nothing(store: Store, run_command: RunCommand) -> None:
    finished = run_command("store", "verify", storage_of(store))
    assert finished.code == 0
    assert finished.out == "5 entries, 4 MiB: all whole\n"


def test_verify_finds_damage(store: Store, run_command: RunCommand) -> None:
    key = content_key("weights 2")
    path = find_folder(store, key) / "w"
    path.write_bytes(b"x" * MIB)
    lost = content_key("weights 3")
    (find_folder(store, lost) / "manifest.json").unlink()
    finished = run_command("store", "verify", storage_of(store))
    assert finished.code == 1
    lines = sorted(finished.out.splitlines())
    assert lines[0] == "5 entries, 4 MiB: 2 damaged, set aside"
    assert lines[1] == f"damaged: other {lost}: 'manifest.json' is missing; set aside"
    assert lines[2].startswith(f"damaged: retrain {key}: 'w' has SHA-256 ")
    assert not store.has(key)
    finished = run_command("store", "verify", storage_of(store), "--json")
    assert (finished.code, read_json(finished.out)["damaged"]) == (0, [])


def test_verify_for_programs(store: Store, run_command: RunCommand) -> None:
    key = content_key("weights 2")
    (find_folder(store, key) / "w").unlink()
    finished = run_command("store", "verify", storage_of(store), "--json")
    assert finished.code == 1
    values = read_json(finished.out)
    assert values["entries"] == 5
    assert values["damaged"] == [{"key": key, "stage": "retrain", "damage": "'w' is missing"}]


def test_gc_says_what_would_go_and_removes_nothing(store: Store, run_command: RunCommand) -> None:
    leave_behind(store)
    before = sorted(Path(store.root).rglob("*"))
    limit = 2.1 / 1024
    finished = run_command("store", "gc", storage_of(store), "--max-gib", limit, "--dry-run")
    assert (finished.code, finished.err) == (0, "")
    assert "What would go of" in finished.out
    assert "4 MiB before, 2 MiB after" in finished.out
    assert sorted(Path(store.root).rglob("*")) == before


def test_gc_removes_the_least_recently_used_and_leftovers(
    store: Store, run_command: RunCommand
) -> None:
    leave_behind(store)
    limit = 2.1 / 1024
    finished = run_command("store", "gc", storage_of(store), "--max-gib", limit, "--json")
    assert (finished.code, finished.err) == (0, "")
    values = read_json(finished.out)
    assert values["keys"] == [content_key("weights 1"), content_key("weights 2")]
    assert (values["goes"][0]["entries"], values["excess"], values["dry_run"]) == (2, None, False)
    assert values["bytes_after"] == store.count_bytes() < values["bytes_before"]
    assert [row["what"] for row in values["leftovers"]] == ["damaged", "temporary"]
    left = {content_key(name) for name in ("weights 0", "weights 3", "scores")}
    assert set(store.keys()) == left
    assert store.list_leftovers() == []


def test_gc_without_a_limit_removes_leftovers_only(store: Store, run_command: RunCommand) -> None:
    leave_behind(store)
    finished = run_command("store", "gc", storage_of(store))
    assert (finished.code, finished.err) == (0, "")
    assert "4 MiB before, 4 MiB after" in finished.out
    assert len(list(store.keys())) == 5
    assert store.list_leftovers() == []


def test_gc_warns_where_pins_exceed_the_limit(store: Store, run_command: RunCommand) -> None:
    finished = run_command("store", "gc", storage_of(store), "--max-gib", 0)
    assert finished.code == 0
    (line,) = finished.err.splitlines()
    assert line.startswith("warning: store.max_gib: 0 GiB is less than the 0.000")
    assert set(store.keys()) == {content_key("weights 0"), content_key("scores")}


@pytest.mark.parametrize("size", ["nan", "inf", "-1", "much"])
def test_gc_refuses_what_is_no_size(store: Store, size: str, run_command: RunCommand) -> None:
    finished = run_command("store", "gc", storage_of(store), "--max-gib", size)
    assert finished.code == 2
    assert "--max-gib" in finished.err
    assert len(list(store.keys())) == 5


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_without_a_store(verb: str, tmp_path: Path, run_command: RunCommand) -> None:
    finished = run_command("store", verb, tmp_path)
    assert finished.code == 2
    assert finished.err == (
        f"error: storage: '{tmp_path}' holds no store; name the `storage` of a study file, for "
        "instance studies\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_that_calls_the_verb(verb: str, run_command: RunCommand) -> None:
    finished = run_command("store", verb, "--help")
    _, title, examples = finished.out.partition("Examples:\n")
    assert (finished.code, bool(title)) == (0, True)
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert lines
    assert all(line.startswith(f"distprune store {verb}") for line in lines)


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_imports_a_framework(verb: str, store: Store) -> None:
    code = (
        "from distprune.cli.app import main\n"
        "import contextlib, io\n"
        f"sys.argv = ['distprune', 'store', {verb!r}, {str(storage_of(store))!r}]\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main()"
    )
    assert find_heavy_imports(code) == []
