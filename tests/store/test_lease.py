import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distprune.errors import StorageError
from distprune.store.lease import hold_lease
from distprune.store.location import LeaseTerms
from distprune.store.process import Process, current_process

StartPython = Callable[..., "subprocess.Popen[str]"]
IMPATIENT = LeaseTerms(timeout_s=0.0, poll_s=0.01, expiry_s=60.0)
PATIENT = LeaseTerms(timeout_s=20.0, poll_s=0.01, expiry_s=60.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key.json"


@pytest.fixture
def guard(tmp_path: Path) -> Path:
    return tmp_path / "guard"


def write_lease(path: Path, *, host: str, pid: int, age_s: float) -> None:
    path.write_text(json.dumps({"host": host, "pid": pid, "start": 0, "token": "x"}))
    moment = time.time() - age_s
    os.utime(path, (moment, moment))


def test_lease_names_its_owner_and_is_released(path: Path, guard: Path) -> None:
    with hold_lease(path, guard, IMPATIENT):
        owner = json.loads(path.read_text())
        assert owner["pid"] == os.getpid()
        assert owner["host"] == current_process().host
        assert owner["token"]
    assert not path.exists()


def test_lease_is_released_after_an_error(path: Path, guard: Path) -> None:
    with pytest.raises(KeyError), hold_lease(path, guard, IMPATIENT):
        raise KeyError
    assert not path.exists()


def test_a_held_lease_is_waited_for_and_names_its_owner(path: Path, guard: Path) -> None:
    with (
        hold_lease(path, guard, IMPATIENT),
        pytest.raises(StorageError, match=f"held by process {os.getpid()} on .* timeout of 0 s"),
        hold_lease(path, guard, IMPATIENT),
    ):
        pass
    assert not path.exists()


def test_a_lease_of_a_dead_process_is_broken(
    path: Path, guard: Path, start_python: StartPython, caplog: pytest.LogCaptureFixture
) -> None:
    script = (
        "import sys, pathlib; from distprune.store.lease import *;"
        "lease = hold_lease(*map(pathlib.Path, sys.argv[1:]), LeaseTerms(0, 1, 60));"
        "lease.__enter__(); print('held', flush=True); sys.stdin.read()"
    )
    with start_python(script, path, guard) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="held by"), hold_lease(path, guard, IMPATIENT):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert path.exists()
    with hold_lease(path, guard, IMPATIENT):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert "is gone; the lease is broken" in caplog.text


def test_a_silent_lease_of_another_host_is_broken(path: Path, guard: Path) -> None:
    write_lease(path, host="elsewhere.0", pid=1, age_s=61)
    with hold_lease(path, guard, IMPATIENT):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_fresh_lease_of_another_host_is_kept(path: Path, guard: Path) -> None:
    write_lease(path, host="elsewhere.0", pid=1, age_s=30)
    with pytest.raises(StorageError, match="elsewhere"), hold_lease(path, guard, IMPATIENT):
        pass
    assert json.loads(path.read_text())["host"] == "elsewhere.0"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}'])
def test_a_lease_that_cannot_be_read_counts_until_it_expires(
    path: Path, guard: Path, text: str
) -> None:
    path.write_text(text)
    with pytest.raises(StorageError, match="unknown process"), hold_lease(path, guard, IMPATIENT):
        pass
    os.utime(path, (1, 1))
    with hold_lease(path, guard, IMPATIENT):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_the_owner_keeps_its_lease_alive(path: Path, guard: Path) -> None:
    with hold_lease(path, guard, LeaseTerms(timeout_s=0.0, poll_s=0.01, expiry_s=0.2)):
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 2


def test_an_owner_whose_lease_was_broken_leaves_the_new_one_alone(
    path: Path, guard: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with hold_lease(path, guard, IMPATIENT):
        path.unlink()
        write_lease(path, host="elsewhere.0", pid=1, age_s=0)
    assert json.loads(path.read_text())["host"] == "elsewhere.0"
    assert "was broken while it was held" in caplog.text


def test_waiters_that_break_a_stale_lease_hold_it_one_at_a_time(path: Path, guard: Path) -> None:
    num_waiters, num_rounds = 6, 5
    inside: list[int] = []
    overlaps: list[int] = []

    def work(start: threading.Barrier) -> None:
        start.wait()
        with hold_lease(path, guard, PATIENT):
            inside.append(1)
            overlaps.append(len(inside))
            time.sleep(0.005)
            inside.pop()

    for _ in range(num_rounds):
        write_lease(path, host="elsewhere.0", pid=1, age_s=100)
        start = threading.Barrier(num_waiters)
        threads = [threading.Thread(target=work, args=(start,)) for _ in range(num_waiters)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert overlaps == [1] * num_waiters * num_rounds


def test_a_lease_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "x"
    with (
        pytest.raises(StorageError, match="cannot take a lease"),
        hold_lease(inside, inside, PATIENT),
    ):
        pass


def test_whoever_breaks_a_lease_is_told_whose_it_was(path: Path, guard: Path) -> None:
    gone: list[Process] = []
    with hold_lease(path, guard, IMPATIENT, gone.append):
        assert gone == []
    write_lease(path, host="elsewhere.0", pid=7, age_s=61)
    with hold_lease(path, guard, IMPATIENT, gone.append):
        assert gone == [Process("elsewhere.0", 7, 0)]
