"""One driver a study; the system lets go of a dead one's lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distprune.errors import StorageError, StudyExistsError
from distprune.search.driver_lease import hold_study

HOLDER = """
import sys, time
from pathlib import Path
from distprune.search.driver_lease import hold_study
with hold_study(Path(sys.argv[1]), "mine"):
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "studies" / ".mine.lock"


@pytest.fixture
def holder(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the study."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


def test_second_driver_is_told_who_holds_the_study(
    lock: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(StudyExistsError) as caught, hold_study(lock, "mine"):
        pytest.fail("two drivers hold one study")
    message = str(caught.value)
    assert message.startswith(f"study 'mine': process {holder.pid} on ")
    assert "wait for it to end" in message


def test_killed_driver_holds_nothing(lock: Path, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with hold_study(lock, "mine"):
        assert lock.read_text().startswith(f"process {os.getpid()} on ")


def test_other_study_of_the_storage_is_free(lock: Path, holder: subprocess.Popen[str]) -> None:
    with hold_study(lock.with_name(".other.lock"), "other"):
        pass


def test_released_after_an_error(lock: Path) -> None:
    with pytest.raises(KeyboardInterrupt), hold_study(lock, "mine"):
        raise KeyboardInterrupt
    with hold_study(lock, "mine"):
        pass


def test_storage_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(StorageError, match=r"storage .*/file/studies: cannot be written .*storage"),
        hold_study(tmp_path / "file" / "studies" / ".mine.lock", "mine"),
    ):
        pytest.fail("a folder below a file")
