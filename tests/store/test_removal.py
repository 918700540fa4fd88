"""Entries that are removed: whole, unless somebody uses them, beside readers and writers."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from distprune.errors import StorageError
from distprune.store.inventory import EntrySummary, LeftoverKind
from distprune.store.key import content_key
from distprune.store.store import Store

from .conftest import KEY, RECORD, list_files, refuse_to_write, write_two_files

StartPython = Callable[..., "subprocess.Popen[str]"]
CONTENT = 256 * 8 + len('{"heads": [0.5, 1]}')


def summarise(store: Store, key: str = KEY) -> EntrySummary:
    return {entry.key: entry for entry in store.list_entries()}[key]


def manifest_path(store: Store, key: str = KEY) -> Path:
    return Path(store.root) / "entries" / key[:2] / key / "manifest.json"


def use_long_ago(store: Store, key: str = KEY) -> EntrySummary:
    os.utime(manifest_path(store, key), (1000, 1000))
    return summarise(store, key)


def test_entries_are_listed_with_what_they_cost(store: Store) -> None:
    started = time.time()
    keys = [content_key(number) for number in range(4)]
    for number, key in enumerate(keys):
        store.commit(key, write_two_files, {"stage": f"stage {number}"})
    entries = list(store.list_entries())
    assert [entry.key for entry in entries] == sorted(keys)
    assert {entry.key: entry.record["stage"] for entry in entries} == {
        key: f"stage {number}" for number, key in enumerate(keys)
    }
    assert sum(entry.num_bytes for entry in entries) == store.count_bytes()
    for entry in entries:
        assert CONTENT < entry.num_bytes < CONTENT + 2000
        assert started - 2 < entry.created <= time.time()
        assert abs(entry.last_used - entry.created) < 2
        assert entry.is_readable


def test_finding_is_a_use_and_looking_is_none(local_store: Store) -> None:
    local_store.commit(KEY, write_two_files, RECORD)
    use_long_ago(local_store)
    assert local_store.has(KEY)
    assert local_store.verify(KEY) is None
    list(local_store.keys())
    assert summarise(local_store).last_used == 1000
    assert local_store.find(KEY) is not None
    assert abs(summarise(local_store).last_used - time.time()) < 60


def test_who_may_only_read_finds_entries_too(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    local_store.commit(KEY, write_two_files, RECORD)
    monkeypatch.setattr(os, "utime", refuse)
    assert local_store.find(KEY) is not None


def test_an_entry_that_cannot_be_read_is_listed(local_store: Store) -> None:
    for number, damage in enumerate((b"{", None)):
        key = content_key(number)
        local_store.commit(key, write_two_files, RECORD)
        path = manifest_path(local_store, key)
        path.unlink() if damage is None else path.write_bytes(damage)
    entries = list(local_store.list_entries())
    assert [entry.is_readable for entry in entries] == [False, False]
    assert sum(entry.num_bytes for entry in entries) == local_store.count_bytes() == 2 * CONTENT + 1


def test_an_entry_is_removed_whole_and_can_come_back(store: Store, tmp_path: Path) -> None:
    other = content_key("other")
    for key in (KEY, other):
        store.commit(key, write_two_files, RECORD)
    entry = summarise(store)
    assert store.remove(entry)
    assert not store.has(KEY)
    assert store.find(KEY) is None
    assert list(store.keys()) == [other]
    assert store.count_bytes() == summarise(store, other).num_bytes
    assert not any(KEY in str(path) for path in tmp_path.rglob("*"))
    assert store.list_leftovers() == []
    assert not store.remove(entry)
    assert store.get_or_commit(KEY, write_two_files, RECORD).files
    assert store.find(other) is not None


def test_an_entry_that_was_used_since_stays(local_store: Store) -> None:
    local_store.commit(KEY, write_two_files, RECORD)
    entry = use_long_ago(local_store)
    local_store.find(KEY)
    assert not local_store.remove(entry)
    assert local_store.get_or_commit(KEY, refuse_to_write, RECORD).files


def test_an_entry_that_was_computed_again_since_stays(store: Store) -> None:
    store.commit(KEY, write_two_files, RECORD)
    entry = summarise(store)
    assert store.remove(entry)
    store.commit(KEY, write_two_files, RECORD)
    assert not store.remove(entry)
    assert store.find(KEY) is not None


def test_an_entry_whose_lease_is_held_stays(local_store: Store) -> None:
    local_store.commit(KEY, write_two_files, RECORD)
    entry = summarise(local_store)
    with local_store.lease(KEY):
        assert not local_store.remove(entry)
    assert local_store.remove(entry)


def test_a_lease_of_a_dead_process_keeps_nothing(
    local_store: Store, start_python: StartPython
) -> None:
    local_store.commit(KEY, write_two_files, RECORD)
    script = (
        "import sys; from distprune.store.store import Store;"
        "lease = Store(sys.argv[1]).lease(sys.argv[2]); lease.__enter__();"
        "print('held', flush=True);"
        "sys.stdin.read()"
    )
    with start_python(script, local_store.root, KEY) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert not local_store.remove(summarise(local_store))
        child.kill()
        child.wait()
    assert local_store.remove(summarise(local_store))


def test_a_reader_reads_to_the_end_or_is_told(store: Store) -> None:
    entry = store.commit(KEY, write_two_files, RECORD)
    with entry.path("train/data.bin").open("rb") as stream:
        assert store.remove(summarise(store))
        assert stream.read() == bytes(range(256)) * 8
    with pytest.raises(StorageError, match="removed or damaged since it was found"):
        entry.path("scores.json")


def test_an_entry_that_goes_while_it_is_verified_is_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between reading the manifest and reading the files."""
    store.commit(KEY, write_two_files, RECORD)
    again = Store(store.root, f"{store._cache}-elsewhere" if store._cache else None)
    original = type(again._location).mark_used

    def remove_first(self: Any, key: str) -> None:
        monkeypatch.undo()
        assert store.remove(summarise(store))
        original(self, key)

    monkeypatch.setattr(type(again._location), "mark_used", remove_first)
    assert again.find(KEY) is None
    assert [item for item in store.list_leftovers() if item.kind is LeftoverKind.DAMAGED] == []


VICTIM = """
import os, shutil, signal, sys, pathlib
from distprune.store import local
from distprune.store.store import Store

root, moment = sys.argv[1:]
store = Store(root)
[entry] = store.list_entries()

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def delete_one_and_die(folder):
    next(path for path in folder.rglob("*") if path.is_file()).unlink()
    die()

if moment == "before":
    pathlib.Path.rename = die
if moment == "renamed":
    local.remove_folder = die
if moment == "half":
    local.remove_folder = delete_one_and_die
store.remove(entry)
"""


@pytest.mark.parametrize("moment", ["before", "renamed", "half"])
def test_a_killed_removal_leaves_all_or_nothing(
    local_store: Store, start_python: StartPython, moment: str
) -> None:
    local_store.commit(KEY, write_two_files, RECORD)
    with start_python(VICTIM, local_store.root, moment) as victim:
        assert victim.wait() == -signal.SIGKILL
    assert local_store.has(KEY) == (moment == "before")
    assert local_store.verify(KEY) is None
    [leftover] = local_store.list_leftovers()
    assert (leftover.kind, leftover.is_stale) == (LeftoverKind.TEMPORARY, True)
    assert (leftover.num_bytes > 0) == (moment != "before")
    assert local_store.remove_stale_temporaries() == 1
    assert local_store.list_leftovers() == []
    assert local_store.get_or_commit(KEY, write_two_files, RECORD).files
    assert local_store.remove(summarise(local_store))  # no lock was left behind


def test_verify_sets_aside_and_says_why(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    entry = store.commit(KEY, write_two_files, RECORD)
    assert store.verify(KEY) is None
    assert store.verify(content_key("nothing")) is None
    path = entry.path("train/data.bin")
    if "://" in store.root:
        filesystem, prefix = fsspec.core.url_to_fs(store.root)
        [remote] = [name for name in filesystem.find(prefix) if name.endswith("data.bin")]
        filesystem.pipe_file(remote, b"x" * path.stat().st_size)
        path.unlink()
    else:
        changed = path.stat()
        path.write_bytes(b"x" * changed.st_size)
        # As a failing disk does: no time tells of it, so what was remembered must not count.
        os.utime(path, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    damage = store.verify(KEY)
    assert damage is not None
    assert "'train/data.bin' has SHA-256" in damage
    assert not store.has(KEY)
    [leftover] = [item for item in store.list_leftovers() if item.kind is LeftoverKind.DAMAGED]
    assert leftover.name == f"damaged/{KEY}-1"
    assert CONTENT < leftover.num_bytes < CONTENT + 2000
    assert store.remove_damaged() == 1
    assert store.list_leftovers() == []


def make_stranger(store: Store, age_s: float) -> Path:
    """Leave the folder of a process of another host, as after a node died."""
    folder = Path(store.root) / "temporary" / "elsewhere.0~7~7~00"
    (folder / "half").mkdir(parents=True)
    (folder / "half" / "weights").write_bytes(b"12345")
    moment = time.time() - age_s
    for path in (folder / "half" / "weights", folder / "half", folder):
        os.utime(path, (moment, moment))
    return folder


def test_temporaries_of_other_hosts_are_stale_after_a_day(local_store: Store) -> None:
    make_stranger(local_store, age_s=86_000)
    [leftover] = local_store.list_leftovers()
    assert (leftover.num_bytes, leftover.is_stale) == (5, False)
    assert local_store.remove_stale_temporaries() == 0
    shutil.rmtree(Path(local_store.root) / "temporary")
    folder = make_stranger(local_store, age_s=87_000)
    assert local_store.remove_stale_temporaries() == 1
    assert not folder.exists()


def test_temporaries_of_a_process_that_holds_a_lease_stay(local_store: Store) -> None:
    folder = make_stranger(local_store, age_s=200_000)
    leases = Path(local_store.root) / "leases"
    leases.mkdir()
    owner = leases / f"{KEY}.json"
    owner.write_text('{"host": "elsewhere.0", "pid": 7, "start": 7, "token": "x"}')
    assert local_store.remove_stale_temporaries() == 0
    os.utime(owner, (1000, 1000))  # silent for long
    assert local_store.remove_stale_temporaries() == 1
    assert not folder.exists()


WORKER = """
import json, random, sys, time
from pathlib import Path
from distprune.errors import StorageError
from distprune.store.key import content_key
from distprune.store.store import Store

store, seed, seconds = Store(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
random.seed(seed)
counts = {"made": 0, "read": 0, "told": 0, "removed": 0, "refused": 0}
end = time.monotonic() + seconds
while time.monotonic() < end:
    number = random.randrange(6)
    key, content = content_key(number), str(number).encode() * 20000

    def write(folder):
        counts["made"] += 1
        (folder / "a").write_bytes(content)
        (folder / "b").write_bytes(content)

    if random.random() < 0.5:
        entry = store.get_or_commit(key, write, {"number": number})
        try:
            for name in ("a", "b"):
                assert entry.path(name).read_bytes() == content
            counts["read"] += 1
        except (StorageError, FileNotFoundError):
            counts["told"] += 1
    else:
        for entry in store.list_entries():
            assert entry.num_bytes > 40000
            if entry.key == key:
                counts["removed" if store.remove(entry) else "refused"] += 1
print(json.dumps(counts))
"""


def test_processes_that_write_read_and_remove_never_see_half_an_entry(
    local_store: Store, start_python: StartPython, tmp_path: Path
) -> None:
    workers = [start_python(WORKER, local_store.root, seed, 1.5) for seed in range(4)]
    counts = [json.loads(worker.communicate()[0]) for worker in workers]
    totals = {name: sum(count[name] for count in counts) for name in counts[0]}
    assert totals["made"] > 10
    assert totals["read"] > 10
    assert totals["removed"] > 10
    keys = list(local_store.keys())
    assert totals["made"] - totals["removed"] == len(keys)
    assert [local_store.verify(key) for key in keys] == [None] * len(keys)
    assert local_store.list_leftovers() == []
    assert list_files(tmp_path / "store" / "temporary") == []


def list_objects(store: Store) -> list[str]:
    filesystem, prefix = fsspec.core.url_to_fs(store.root)
    return sorted(path.removeprefix(f"{prefix}/") for path in filesystem.find(prefix))


def test_a_remote_manifest_goes_first(remote_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    remote_store.commit(KEY, write_two_files, RECORD)
    filesystem = type(fsspec.filesystem("memory"))

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    entry = summarise(remote_store)
    monkeypatch.setattr(filesystem, "rm", interrupt)
    with pytest.raises(KeyboardInterrupt):
        remote_store.remove(entry)
    monkeypatch.undo()
    assert not remote_store.has(KEY)
    assert remote_store.find(KEY) is None
    assert len(list_objects(remote_store)) == 2
    [leftover] = remote_store.list_leftovers()
    assert (leftover.kind, leftover.num_bytes) == (LeftoverKind.TEMPORARY, CONTENT)
    assert not leftover.is_stale  # an upload that is under way looks the same
    assert remote_store.remove_stale_temporaries() == 0
    monkeypatch.setattr("distprune.store.remote.ABANDONED_S", -1.0)
    again = remote_store.get_or_commit(KEY, write_two_files, RECORD)
    assert remote_store.remove_stale_temporaries() == 1
    assert len(list_objects(remote_store)) == 3
    assert remote_store.verify(KEY) is None
    assert remote_store.find(KEY) == again


def test_a_remote_removal_leaves_the_upload_of_another_writer(
    remote_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote_store.commit(KEY, write_two_files, RECORD)
    other = Store(remote_store.root, str(tmp_path / "other"))
    filesystem = type(fsspec.filesystem("memory"))
    original = filesystem.rm

    def commit_first(self: Any, *arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        other.commit(KEY, write_two_files, {"who": "other"})
        return original(self, *arguments, **options)

    entry = summarise(remote_store)
    monkeypatch.setattr(filesystem, "rm", commit_first)
    assert remote_store.remove(entry)
    found = Store(remote_store.root, str(tmp_path / "third")).find(KEY)
    assert found is not None
    assert found.record == {"who": "other"}
    assert len(list_objects(remote_store)) == 3
