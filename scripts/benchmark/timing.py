"""Timing of short actions: warm, in turn, in a process of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

WARM_UP_ROUNDS = 5


def run_apart(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Call `function` in a new process, so that nothing measured before has an influence."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def time_in_turn(
    actions: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = WARM_UP_ROUNDS
) -> dict[str, list[float]]:
    """Time each action once a round, so that a slow moment of the machine meets all of them.

    Args:
        actions: What to time, by name.
        rounds: Timed rounds.
        warm_up: Rounds before them that are not timed.

    Returns:
        Seconds of each round by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(warm_up + rounds):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            elapsed = time.perf_counter() - started
            if number >= warm_up:
                seconds[name].append(elapsed)
    return seconds
