"""What is done to a study, and when: drawn from a seed, so that each round can be had again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Kind(StrEnum):
    """What is struck."""

    STAGE = "stage"
    """The process that computes a stage; the one that is idle, if none does for a while."""
    TRIAL = "trial"
    """The process that walks a trial."""
    BROKER = "broker"
    """The process that hands out stages."""
    RAYLET = "raylet"
    """A node of Ray; where the driver has started Ray itself, the only one."""
    DRIVER = "driver"
    """`distprune search`; it is started again at once."""
    POWER = "power"
    """Every process of the study at once; the search is started again at once."""
    TRACKING = "tracking"
    """The MLflow server; it is started again after a while."""
    STORE = "store"
    """Files of stored entries, truncated or with a flipped bit; at times with a power cut."""
    JOURNAL = "journal"
    """The driver, and Optuna's journal is gone, truncated or has a flipped bit when it is back."""
    HISTORY = "history"
    """The driver, in the middle of a line of the history."""
    HOST = "host"
    """A whole host of the testbed; it comes back after a while."""
    NETWORK = "network"
    """The network of a host of the testbed, for a while."""


LOCAL_KINDS = tuple(kind for kind in Kind if kind not in (Kind.HOST, Kind.NETWORK))
"""What can be struck where all processes are of one machine."""

ENDS_DRIVER = frozenset({Kind.DRIVER, Kind.POWER, Kind.JOURNAL, Kind.HISTORY})
"""Strikes that kill the driver themselves."""


class StudyKind(StrEnum):
    """Which of the two studies a round runs."""

    PARALLEL = "parallel"
    """Random proposals, no stopping, several trials at a time: the same in any order."""
    SEQUENTIAL = "sequential"
    """TPE and ASHA, one trial at a time: each decision hangs on all before."""


@dataclass(frozen=True)
class Strike:
    """One disturbance.

    Attributes:
        kind: What is struck.
        moment: When, as a fraction of the wall time of the undisturbed twin, in [0, 1).
        seed: Of what is left to chance when it comes to it.
    """

    kind: Kind
    moment: float
    seed: int


@dataclass(frozen=True)
class Plan:
    """A round.

    Attributes:
        number: Its number, from 0.
        study: Which study is run.
        has_server: Tracked by an MLflow server; else by a file beside the study.
        strikes: What is done to it, in order of time.
    """

    number: int
    study: StudyKind
    has_server: bool
    strikes: tuple[Strike, ...]


MAX_STRIKES = 3
LAST_MOMENT = 0.9
"""A strike that comes after the end of a study is none."""


def draw_plans(seed: int, rounds: int, kinds: Sequence[Kind]) -> list[Plan]:
    """Draw the rounds of a seed; more rounds begin with the same ones.

    All kinds come before any comes again, and both studies in turn.
    """
    random = Random(seed)
    deck = _deal(random, kinds)
    return [_draw_plan(random, number, deck) for number in range(rounds)]


def _draw_plan(random: Random, number: int, deck: Iterator[Kind]) -> Plan:
    strikes = [
        Strike(next(deck), random.uniform(0.0, LAST_MOMENT), random.randrange(2**31))
        for _ in range(random.randint(1, MAX_STRIKES))
    ]
    return Plan(
        number=number,
        study=list(StudyKind)[number % len(StudyKind)],
        has_server=any(strike.kind is Kind.TRACKING for strike in strikes) or random.random() < 0.5,
        strikes=tuple(sorted(strikes, key=lambda strike: strike.moment)),
    )


def _deal(random: Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    """Yield all kinds in random order, again and again."""
    while True:
        yield from random.sample(list(kinds), len(kinds))
