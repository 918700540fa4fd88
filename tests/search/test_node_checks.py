"""What an examination does on a node, done here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray.cloudpickle

from distprune import __version__
from distprune.search import node_checks
from distprune.search.node_checks import NodeExaminer

EXAMINER = NodeExaminer()


def test_versions_are_those_of_this_process() -> None:
    versions = EXAMINER.list_versions(["torch", "no-such-package"])
    assert versions["python"] == platform.python_version()
    assert versions["distprune"] == __version__
    assert versions["torch"] == importlib.metadata.version("torch")
    assert versions["no-such-package"] is None


def test_other_code_has_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "distprune"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "9.9.9"\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "distprune")
    first = node_checks.read_installation()
    (package / "more.py").write_text("x = 1\n")
    second = node_checks.read_installation()
    assert first["distprune"] == second["distprune"] == "9.9.9"
    assert first["distprune code"] != second["distprune code"]


def test_probe_is_read_by_others_and_removed(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert EXAMINER.write_probe(root, "one", "mine") == ""
    assert EXAMINER.read_probes(root, {"one": "mine"}, 0.0) == {}
    assert EXAMINER.read_probes(root, {"one": "other"}, 0.0) == {"one": "holds something else"}
    EXAMINER.remove_probes(root, ["one", "never there"])
    assert list(tmp_path.iterdir()) == []


def test_probe_in_object_storage() -> None:
    root = "memory://doctor/store"
    assert EXAMINER.write_probe(root, "one", "mine") == ""
    assert EXAMINER.read_probes(root, {"one": "mine"}, 0.0) == {}
    EXAMINER.remove_probes(root, ["one"])
    assert "one" in EXAMINER.read_probes(root, {"one": "mine"}, 0.0)


def test_file_that_appears_late_is_waited_for(tmp_path: Path) -> None:
    later = threading.Timer(0.3, (tmp_path / "late").write_text, ["mine"])
    later.start()
    assert EXAMINER.read_probes(str(tmp_path), {"late": "mine"}, 20.0) == {}


def test_file_that_never_appears_is_given_up(tmp_path: Path) -> None:
    started = time.monotonic()
    problems = EXAMINER.read_probes(str(tmp_path), {"gone": "mine"}, 0.5)
    assert problems == {"gone": "No such file or directory"}
    assert time.monotonic() - started < 10


def test_folder_is_not_made_where_it_is_missing(tmp_path: Path) -> None:
    """Else a storage that is not mounted would seem to be there."""
    problem = EXAMINER.write_probe(str(tmp_path / "mount" / "store"), "one", "mine")
    assert "there is no folder" in problem
    assert not (tmp_path / "mount").exists()


def test_problem_is_one_line_without_passwords() -> None:
    error = OSError("https://me:secret@host/bucket\nrefused")
    assert node_checks.describe(error) == "https://***@host/bucket"
    assert node_checks.describe(KeyError("a")) == "KeyError: 'a'"


def test_checkpoint_that_is_there(mlm_checkpoint: Path) -> None:
    found = EXAMINER.find_checkpoint(str(mlm_checkpoint), is_thorough=True)
    assert found["problem"] == ""
    assert found["place"] == str(mlm_checkpoint)
    assert len(found["fingerprint"]) == 64
    assert EXAMINER.find_checkpoint(str(mlm_checkpoint), is_thorough=False)["fingerprint"] is None


def test_checkpoint_that_is_not_there() -> None:
    found = EXAMINER.find_checkpoint("/nowhere/bert", is_thorough=True)
    assert "'/nowhere/bert' does not exist" in found["problem"]


def test_disk_of_a_place_that_is_not_there_yet(tmp_path: Path) -> None:
    disk = EXAMINER.measure_disks({"storage": str(tmp_path / "a" / "b")})["storage"]
    assert disk["place"] == str(tmp_path / "a" / "b")
    assert 0 < disk["free"] <= disk["total"]


def test_cache_folder_is_that_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EXAMINER.measure_disks({"cache": None})["cache"]["place"] == str(tmp_path)


def test_memory_is_at_most_that_of_the_machine() -> None:
    memory = EXAMINER.measure_memory()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory["available"] <= memory["total"] <= pages


def test_limit_of_a_control_group_counts(tmp_path: Path) -> None:
    inner = tmp_path / "job" / "worker"
    inner.mkdir(parents=True)
    files = {"memory.max": "max", "memory.current": "100", "memory.stat": "inactive_file 40"}
    for folder, limit in ((inner, "max"), (inner.parent, "1000")):
        for name, text in files.items():
            (folder / name).write_text(limit if name == "memory.max" else text)
    names = ("memory.max", "memory.current", "inactive_file")
    assert node_checks._read_group(tmp_path, "/job/worker", names) == [(1000, 60)]


def test_it_travels_to_a_node_without_distprune(tmp_path: Path) -> None:
    ray.cloudpickle.register_pickle_by_value(node_checks)
    try:
        data = ray.cloudpickle.dumps(NodeExaminer)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(node_checks)
    (tmp_path / "examiner").write_bytes(data)
    script = (
        "import sys, pickle\n"
        "kept = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '')]\n"
        "sys.meta_path = kept\n"
        "examiner = pickle.load(open('examiner', 'rb'))()\n"
        "assert 'distprune' not in sys.modules\n"
        "print(examiner.list_versions(['ray'])['distprune'])\n"
        "print(examiner.find_checkpoint('bert', True)['problem'])\n"
        "print(examiner.measure_memory()['total'] > 0)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0] == "None"
    assert lines[1] == "ModuleNotFoundError: No module named 'distprune'"
    assert lines[2] == "True"
