"""Proposals: the same file proposes the same trials; settings without effect are no parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from distprune.library.history import (
    MilestoneReached,
    Outcome,
    TrialEnded,
    TrialRecord,
    TrialStarted,
)
from distprune.search.proposals import Proposal, Proposer
from distprune.search.study_file import Study
from distprune.trial.results import MilestoneReport
from tests.search.synthetic import make_study, read_optuna, trial_values

COEFFICIENT = "pruning.mixing.coefficient"
OPERATOR = "pruning.mixing.operator"
LEVELS = "pruning.schedule.levels"
SHAPE = "pruning.schedule.shape"


@dataclass
class Diary:
    """A proposer, and what a history would know of what it was told."""

    proposer: Proposer
    trials: dict[int, TrialRecord] = field(default_factory=dict)

    def propose(self) -> Proposal:
        number = len(self.trials)
        proposal = self.proposer.propose(number)
        self.trials[number] = TrialRecord(
            TrialStarted(number, 0.0, {}, dict(proposal.values), number)
        )
        return proposal

    def report(self, number: int, objective: float) -> None:
        reports = self.trials[number].reports
        report = MilestoneReport(len(reports) + 1, 0.2, 0.5, objective, 0.5, 1, ())
        reports[report.milestone] = MilestoneReached(number, 0.0, report)
        self.proposer.report(number, report.milestone, report.objective)

    def end(self, number: int, outcome: Outcome = Outcome.COMPLETED) -> None:
        record = self.trials[number]
        record.end = TrialEnded(number, 0.0, outcome)
        objectives = {m: event.report.objective for m, event in record.reports.items()}
        self.proposer.tell(number, outcome, objectives)

    def complete(self) -> Proposal:
        """Propose a trial that completes with its λ as objective."""
        proposal = self.propose()
        number = len(self.trials) - 1
        self.report(number, float(proposal.values.get(COEFFICIENT, 0.5)))
        self.end(number)
        return proposal


def propose_all(study: Study, journal: Path, count: int = 12) -> list[Mapping[str, Any]]:
    """Propose trials one after the other; each completes with its λ as objective."""
    diary = Diary(Proposer(study, journal))
    return [diary.complete().values for _ in range(count)]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_same_file_same_proposals_also_after_each_restart(sampler: str, tmp_path: Path) -> None:
    study = make_study(sampler={"name": sampler, "startup_trials": 3})
    whole = propose_all(study, tmp_path / "whole")
    diary = Diary(Proposer(study, tmp_path / "parts"))
    in_parts = []
    for _ in range(12):
        in_parts.append(diary.complete().values)
        diary.proposer = Proposer(study, tmp_path / "parts")
        diary.proposer.rebuild(diary.trials)
    assert whole == in_parts
    assert len({repr(values) for values in whole}) > 6


@settings(max_examples=20)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["propose", "report", "end"]),
            st.integers(0, 1000),
            st.integers(0, 4).map(lambda n: n / 4),
            st.sampled_from(list(Outcome)),
        ),
        min_size=20,
        max_size=40,
    )
)
def test_rebuilt_study_proposes_as_one_that_was_never_interrupted(
    steps: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also where trials run at the time, and where some settings have no effect in them."""
    folder = tmp_path_factory.mktemp("rebuilt")
    trial = trial_values() | {"retraining": {"freeze": {"choice": [["embeddings"], []]}}}
    study = make_study(trial=trial, start_with=[{SHAPE: "one_shot"}, {LEVELS: 3}])
    diary = Diary(Proposer(study, folder / "live"))
    for action, turn, objective, outcome in steps:
        running = [number for number, record in diary.trials.items() if record.end is None]
        if action == "propose" or not running:
            rebuilt = Proposer(study, folder / "rebuilt")
            rebuilt.rebuild(diary.trials)
            number = len(diary.trials)
            assert rebuilt.propose(number) == diary.propose()
            continue
        number = running[turn % len(running)]
        if action == "report":
            diary.report(number, objective)
        elif outcome is not Outcome.COMPLETED or diary.trials[number].reports:
            diary.end(number, outcome)
    rebuilt = Proposer(study, folder / "rebuilt")
    rebuilt.rebuild(diary.trials)
    live, anew = (
        [(t.state, t.values, t.params, t.intermediate_values) for t in read_optuna(folder / name)]
        for name in ("live", "rebuilt")
    )
    assert live == anew


def test_rebuilt_trial_goes_on_where_it_was(tmp_path: Path) -> None:
    diary = Diary(Proposer(make_study(), tmp_path / "journal"))
    diary.propose()
    diary.report(0, 0.5)
    diary.proposer.rebuild(diary.trials)
    diary.report(0, 0.6)
    diary.end(0, Outcome.STOPPED)
    (trial,) = read_optuna(tmp_path / "journal")
    assert (trial.state, trial.value) == (TrialState.PRUNED, 0.6)
    assert trial.intermediate_values == {1: 0.5, 2: 0.6}
    assert trial.datetime_start is not None


@pytest.mark.parametrize("outcome", list(Outcome))
def test_trial_without_a_milestone_tells_nothing(outcome: Outcome, tmp_path: Path) -> None:
    diary = Diary(Proposer(make_study(), tmp_path / "journal"))
    diary.propose()
    diary.end(0, Outcome.STOPPED if outcome is Outcome.COMPLETED else outcome)
    diary.proposer.rebuild(diary.trials)
    (trial,) = read_optuna(tmp_path / "journal")
    assert (trial.state, trial.values) == (TrialState.FAIL, None)


def test_other_seed_other_proposals(tmp_path: Path) -> None:
    one = propose_all(make_study(seed=1), tmp_path / "one", 3)
    two = propose_all(make_study(seed=2), tmp_path / "two", 3)
    assert all(a != b for a, b in zip(one, two, strict=True))


def test_random_sampler_hears_nothing(tmp_path: Path) -> None:
    """What became of earlier trials changes TPE's proposals, and not those of the random one."""
    proposals = {}
    for sampler in ("tpe", "random"):
        study = make_study(sampler={"name": sampler, "startup_trials": 2})
        for sign in (1, -1):
            diary = Diary(Proposer(study, tmp_path / f"{sampler}{sign}"))
            for number in range(8):
                proposal = diary.propose()
                diary.report(number, sign * float(proposal.values[COEFFICIENT]))
                diary.end(number)
            proposals[sampler, sign] = dict(diary.propose().values)
    assert proposals["random", 1] == proposals["random", -1]
    assert proposals["tpe", 1] != proposals["tpe", -1]


def test_tpe_follows_the_objective(tmp_path: Path) -> None:
    study = make_study(sampler={"name": "tpe", "startup_trials": 5})
    values = [float(v[COEFFICIENT]) for v in propose_all(study, tmp_path / "journal", 30)]
    assert sum(values[20:]) / 10 > 0.8


@pytest.mark.parametrize(
    ("ranges", "decider", "silencing", "silenced"),
    [
        ({}, SHAPE, "one_shot", LEVELS),
        (
            {"mixing": {"operator": {"choice": ["convex", "finetuned"]}}},
            OPERATOR,
            "finetuned",
            COEFFICIENT,
        ),
        (
            {"retraining": {"choice": ["never", "every_level"]}, "rewinding": {"choice": [0, 1]}},
            "pruning.retraining",
            "never",
            "pruning.rewinding",
        ),
        (
            {
                "importance": {
                    "criterion": {"choice": ["random", "abs_gradient"]},
                    "estimator": {"choice": ["example", "token"]},
                }
            },
            "pruning.importance.criterion",
            "random",
            "pruning.importance.estimator",
        ),
    ],
    ids=["levels of one_shot", "λ of one source", "rewinding without retraining", "random scores"],
)
def test_setting_without_effect_is_no_parameter(
    ranges: dict[str, Any], decider: str, silencing: str, silenced: str, tmp_path: Path
) -> None:
    trial = trial_values(**ranges)
    if "mixing" in ranges:
        trial["pruning"]["mixing"]["coefficient"] = {"uniform": [0.0, 1.0]}
    # The silenced setting comes first in the file: the order of drawing is not the file's.
    trial["pruning"] = dict(reversed(trial["pruning"].items()))
    study = make_study(trial=trial, sampler={"name": "random"})
    proposer = Proposer(study, tmp_path / "journal")
    proposals = [proposer.propose(number) for number in range(20)]
    seen = {proposal.values[decider] for proposal in proposals}
    assert len(seen) == 2
    for number, proposal in enumerate(proposals):
        assert (silenced in proposal.values) == (proposal.values[decider] != silencing)
        told = read_optuna(tmp_path / "journal")[number].params
        assert told == proposal.values


def test_pretrained_objective_is_no_parameter_where_the_source_takes_no_part(
    tmp_path: Path,
) -> None:
    trial = trial_values(
        importance={"pretrained_objective": {"choice": ["task_probe", "task_head"]}},
        mixing={"coefficient": {"choice": [0.0, 1.0]}},
    )
    proposer = Proposer(make_study(trial=trial, sampler={"name": "random"}), tmp_path / "journal")
    for number in range(12):
        values = proposer.propose(number).values
        assert ("pruning.importance.pretrained_objective" in values) == (values[COEFFICIENT] == 1)


def test_first_trials_have_the_given_values(tmp_path: Path) -> None:
    start = [{COEFFICIENT: 0.25, SHAPE: "one_shot"}, {}, {LEVELS: 3, SHAPE: "linear"}]
    study = make_study(start_with=start)
    proposer = Proposer(study, tmp_path / "journal")
    proposals = [proposer.propose(number) for number in range(3)]
    assert proposals[0].values == {COEFFICIENT: 0.25, SHAPE: "one_shot"}
    assert proposals[0].spec.pruning.mixing.coefficient == 0.25
    assert proposals[2].values[LEVELS] == 3
    assert set(proposals[2].values) == {COEFFICIENT, SHAPE, LEVELS}
    free = Proposer(make_study(), tmp_path / "free")
    free.propose(0)
    assert proposals[1].values == free.propose(1).values


def test_choices_can_be_lists_and_nothing(tmp_path: Path) -> None:
    freezes = [["embeddings"], [], ["embeddings", "encoder"]]
    trial = trial_values() | {
        "retraining": {"freeze": {"choice": freezes}, "steps": {"choice": [None, 7]}}
    }
    start = [{"retraining.freeze": freeze} for freeze in freezes]
    study = make_study(trial=trial, start_with=start)
    diary = Diary(Proposer(study, tmp_path / "journal"))
    for freeze in freezes:
        proposal = diary.propose()
        assert proposal.values["retraining.freeze"] == freeze
        assert list(proposal.spec.retraining.freeze) == freeze
    diary.proposer.rebuild(diary.trials)  # which encodes them once more
    steps = {diary.propose().values["retraining.steps"] for _ in range(17)}
    assert steps == {None, 7}


def test_trial_of_which_the_history_knows_nothing_is_gone(tmp_path: Path) -> None:
    """A trial that Optuna thinks is running would repel its sampler for ever."""
    journal = tmp_path / "journal"
    diary = Diary(Proposer(make_study(start_with=[{COEFFICIENT: 0.1}]), journal))
    diary.complete()
    diary.proposer.propose(1)
    diary.proposer._optuna.enqueue_trial({COEFFICIENT: 0.2})
    diary.proposer._journal.flush()
    states = [trial.state for trial in read_optuna(journal)]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING]
    Proposer(make_study(), journal).rebuild(diary.trials)
    assert [trial.state for trial in read_optuna(journal)] == [TrialState.COMPLETE]
