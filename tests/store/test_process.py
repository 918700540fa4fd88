import os
import subprocess
from collections.abc import Callable
from dataclasses import replace

from distprune.store.process import Process, current_process

StartPython = Callable[..., "subprocess.Popen[str]"]


def test_this_process_lives() -> None:
    assert current_process().pid == os.getpid()
    assert not current_process().is_dead()


def test_a_process_that_ended_is_dead_even_before_it_is_reaped(start_python: StartPython) -> None:
    script = (
        "from distprune.store.process import current_process as c; p = c(); print(p.pid, p.start)"
    )
    with start_python(script) as child:
        assert child.stdout is not None
        pid, start = map(int, child.stdout.read().split())
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        process = Process(current_process().host, pid, start)
        assert process.is_dead()  # a zombie still has its number
    assert process.is_dead()


def test_a_process_that_got_the_number_of_a_dead_one_is_told_apart() -> None:
    here = current_process()
    assert replace(here, start=here.start + 1).is_dead()


def test_nothing_is_known_about_other_hosts() -> None:
    assert not Process("elsewhere.00000000", 2**22 + 1, 1).is_dead()


def test_numbers_that_no_process_can_have_are_dead() -> None:
    assert replace(current_process(), pid=10**30).is_dead()
