import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from distprune.store.store import Store

from .conftest import KEY, RECORD, write_two_files

StartPython = Callable[..., "subprocess.Popen[str]"]

RACER = """
import sys, time
from pathlib import Path
from distprune.store.store import Store

root, log, key = sys.argv[1:]
def write(folder):
    with open(log, "a") as stream:
        stream.write("written\\n")
    time.sleep(0.3)
    (folder / "a.json").write_text("1")

store = Store(root)
print("ready", flush=True)
sys.stdin.readline()
print(store.get_or_commit(key, write, {}).read_json("a.json"))
"""


def test_processes_that_race_write_once(
    local_store: Store, tmp_path: Path, start_python: StartPython
) -> None:
    log = tmp_path / "log"
    racers = [start_python(RACER, local_store.root, log, KEY) for _ in range(3)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    assert [racer.communicate()[0] for racer in racers] == ["1\n"] * 3
    assert log.read_text() == "written\n"
    assert list((tmp_path / "store" / "leases").glob("*.json")) == []


VICTIM = """
import os, signal, sys, pathlib
from distprune.store import content, store as module

root, key, moment = sys.argv[1:]
def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def write(folder):
    (folder / "half").write_text("half")
    if moment == "write":
        die()

if moment == "record":
    module.record_files = die
if moment == "rename":
    pathlib.Path.rename = die
module.Store(root).commit(key, write, {})
"""


@pytest.mark.parametrize("moment", ["write", "record", "rename"])
def test_a_killed_process_leaves_no_entry(
    local_store: Store, tmp_path: Path, start_python: StartPython, moment: str
) -> None:
    with start_python(VICTIM, local_store.root, KEY, moment) as victim:
        assert victim.wait() == -signal.SIGKILL
    assert not local_store.has(KEY)
    assert local_store.find(KEY) is None
    assert list(local_store.keys()) == []
    temporary = tmp_path / "store" / "temporary"
    assert len(list(temporary.iterdir())) == 1
    assert local_store.remove_stale_temporaries() == 1
    assert list(temporary.iterdir()) == []
    assert local_store.get_or_commit(KEY, write_two_files, RECORD).files


def test_temporaries_of_living_and_of_unknown_processes_stay(store: Store, tmp_path: Path) -> None:
    assert store.remove_stale_temporaries() == 0

    def write(folder: Path) -> None:
        stranger = folder.parent / "elsewhere.0~1~1~00"
        stranger.mkdir()
        (folder.parent / "not ours").mkdir()
        assert store.remove_stale_temporaries() == 0
        assert folder.is_dir()
        assert stranger.is_dir()
        (folder / "a").touch()

    assert store.commit(KEY, write, RECORD).files == ("a",)
