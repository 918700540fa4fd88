"""A round: a study is run, struck as planned, started again when it ends, and compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from distprune.library.study_folder import StudyFolder
from scripts.chaos.damage import damage_journal, damage_store, tear_history
from scripts.chaos.evidence import Evidence, find_differences
from scripts.chaos.plans import Kind, Plan, Strike, StudyKind
from scripts.chaos.processes import IDLE, Process, kill
from scripts.chaos.site import Driver, Hit, Site
from scripts.chaos.studies import Inputs, study_values, write_study

TICK_S = 0.02
STAGE_PATIENCE_S = 3.0
"""How long a strike waits for a process that computes; then an idle one will do."""
TIME_LIMIT_S = 420.0
"""Of a whole round; an undisturbed study takes some 30 s."""


@dataclass(frozen=True)
class Struck:
    """A strike that came to pass: what was planned, when it came, in seconds, and what it hit."""

    kind: Kind
    seconds: float
    words: str

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.words, f"at {self.seconds:.0f} s")))


@dataclass(frozen=True)
class Twin:
    """An undisturbed study: what it left, and how long it took."""

    evidence: Evidence
    seconds: float


@dataclass
class Round:
    """What came of a round.

    Attributes:
        plan: What was planned.
        folder: The study.
        struck: The strikes that came to pass; one that comes after the end does not.
        drivers: Every start of the search.
        seconds: From the first start to the last end.
        lost_s: Seconds more than the twin took.
        differences: How the study differs from its twin, or why it did not end.
        orphans: Processes that were alive long after.
    """

    plan: Plan
    folder: StudyFolder
    struck: list[Struck] = field(default_factory=list)
    drivers: list[Driver] = field(default_factory=list)
    seconds: float = 0.0
    lost_s: float = 0.0
    differences: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Say whether the study ended as if nothing had happened."""
        return not self.differences and not self.orphans


def run_twin(kind: StudyKind, site: Site, inputs: Inputs, limit_s: float = TIME_LIMIT_S) -> Twin:
    """Run a study from beginning to end without a strike, in `limit_s` seconds at most.

    Raises:
        RuntimeError: It does not end well.
    """
    plan = Plan(-1, kind, has_server=False, strikes=())
    done = _Course(plan, site, inputs, f"twin-{kind}", 0.0, limit_s).run()
    if done.differences:
        raise RuntimeError(f"the undisturbed twin {kind}: {done.differences[0]}")
    return Twin(site.gather(done.folder, None), done.seconds)


def run_round(
    plan: Plan, site: Site, inputs: Inputs, twin: Twin, limit_s: float = TIME_LIMIT_S
) -> Round:
    """Run a round, in `limit_s` seconds at most, and compare what it leaves with its twin."""
    course = _Course(plan, site, inputs, f"round-{plan.number:02d}", twin.seconds, limit_s)
    done = course.run()
    done.lost_s = done.seconds - twin.seconds
    if not done.differences:
        if course.tracking is not None:
            site.find_server()
        try:
            found = site.gather(done.folder, course.tracking)
        except Exception as error:  # whatever cannot be read is what there is to say
            done.differences.append(f"cannot be read: {type(error).__name__}: {error}")
        else:
            done.differences += find_differences(found, twin.evidence, sorted(course.damaged))
    return done


class _Course:
    """A study under way."""

    def __init__(
        self, plan: Plan, site: Site, inputs: Inputs, name: str, expected_s: float, limit_s: float
    ) -> None:
        self.tracking = site.find_server() if plan.has_server else None
        self.damaged: set[str] = set()
        self._site = site
        self._file = write_study(
            study_values(plan.study, inputs, site.work / name / "studies", self.tracking),
            site.work / name,
        )
        self._expected_s = expected_s
        self._limit_s = limit_s
        self._waiting = list(plan.strikes)
        self._done = Round(plan, StudyFolder(site.work / name / "studies", "tiny"))
        self._may_end = False
        self._started = 0.0

    def run(self) -> Round:
        """Run the study to its end, whatever happens to it."""
        self._started = time.monotonic()
        driver = self._start()
        try:
            while (code := driver.poll()) != 0:
                if code is not None and not self._may_end:
                    self._fail(f"the search ended with code {code} by itself", driver)
                    break
                if self._seconds() > self._limit_s:
                    self._fail(f"the search has not ended in {self._limit_s:g} s", driver)
                    break
                if code is not None:
                    driver = self._start()
                self._site.keep_up()
                self._strike(driver)
                time.sleep(TICK_S)
        finally:
            self._done.seconds = self._seconds()
            if driver.poll() is None:
                self._site.kill_all(driver)
        return self._done

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _start(self) -> Driver:
        driver = self._site.start(self._file)
        self._done.drivers.append(driver)
        self._may_end = False
        return driver

    def _fail(self, reason: str, driver: Driver) -> None:
        self._done.differences.append(f"{reason}:\n{driver.read_end()}")

    def _strike(self, driver: Driver) -> None:
        """Strike if it is time and there is something to hit."""
        if not self._waiting:
            return
        strike = self._waiting[0]
        late_s = self._seconds() - strike.moment * self._expected_s
        if late_s < 0.0:
            return
        hit = self._hit(strike, driver, late_s)
        if hit is not None:
            self._waiting.pop(0)
            self._may_end = self._may_end or hit.ends_driver
            self.damaged.update(hit.damaged)
            self._done.struck.append(Struck(strike.kind, self._seconds(), hit.words))

    def _hit(self, strike: Strike, driver: Driver, late_s: float) -> Hit | None:
        site, folder, random = self._site, self._done.folder, Random(strike.seed)
        match strike.kind:
            case Kind.STAGE | Kind.TRIAL | Kind.BROKER:
                return kill_one(strike.kind, site.list_processes(driver), random, late_s)
            case Kind.DRIVER:
                site.kill_driver(driver)
                return Hit("", ends_driver=True)
            case Kind.POWER:
                site.kill_all(driver)
                return Hit("", ends_driver=True)
            case Kind.STORE:
                return self._damage_store(driver, random)
            case Kind.JOURNAL:
                return self._damage_stopped(
                    driver, folder.optuna_journal, lambda: damage_journal(folder, random)
                )
            case Kind.HISTORY:
                return self._damage_stopped(
                    driver, folder.history, lambda: "torn" if tear_history(folder) else None
                )
            case _:
                return site.strike(strike.kind, driver, random)

    def _damage_store(self, driver: Driver, random: Random) -> Hit | None:
        done = damage_store(self._done.folder.store, random)
        if not done:
            return None
        fails = random.random() < 0.5
        if fails:
            self._site.kill_all(driver)
        words = ", ".join(f"{key[:8]}/{what}" for key, what in done.items())
        return Hit(f"{words}{', power' if fails else ''}", fails, tuple(done))

    def _damage_stopped(
        self, driver: Driver, path: Path, damage: Callable[[], str | None]
    ) -> Hit | None:
        """Kill the driver once a file is there, and damage the file."""
        if not path.exists() or not path.stat().st_size:
            return None
        self._site.kill_driver(driver)
        return Hit(damage() or "was gone", ends_driver=True)


def kill_one(kind: Kind, processes: list[Process], random: Random, late_s: float) -> Hit | None:
    """Kill one of the processes that do what a strike looks for; None = there is none yet.

    Args:
        kind: What the strike looks for.
        processes: Those of the study.
        random: Draws one of several.
        late_s: Seconds since the moment of the strike.
    """
    victims = [process for process in processes if process.is_a(kind)]
    if not victims and kind is Kind.STAGE and late_s > STAGE_PATIENCE_S:
        victims = [process for process in processes if IDLE.match(process.title)]
    if not victims:
        return None
    victim = random.choice(victims)
    kill(victim.pid)
    return Hit(victim.title.removeprefix("ray::").split(" ")[0])
