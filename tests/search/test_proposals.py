"""Proposals: the same file proposes the same trials; settings without effect are no parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from distprune.library.history import Outcome
from distprune.search.proposals import Proposal, Proposer
from distprune.search.study_file import Study
from tests.search.synthetic import make_study, read_optuna, trial_values

COEFFICIENT = "pruning.mixing.coefficient"
OPERATOR = "pruning.mixing.operator"
LEVELS = "pruning.schedule.levels"
SHAPE = "pruning.schedule.shape"


def propose_all(study: Study, journal: Path, count: int = 12) -> list[Mapping[str, Any]]:
    """Propose trials one after the other; each completes with its λ as objective."""
    proposer = Proposer(study, journal)
    return [complete(proposer, number).values for number in range(count)]


def complete(proposer: Proposer, number: int) -> Proposal:
    proposal = proposer.propose(number)
    value = float(proposal.values.get(COEFFICIENT, 0.5))
    proposer.tell(proposal.number, Outcome.COMPLETED, value)
    return proposal


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_same_file_same_proposals_also_where_the_journal_is_reopened(
    sampler: str, tmp_path: Path
) -> None:
    study = make_study(sampler={"name": sampler, "startup_trials": 3})
    whole = propose_all(study, tmp_path / "whole")
    in_parts = [
        complete(Proposer(study, tmp_path / "parts"), number).values for number in range(12)
    ]
    assert whole == in_parts
    assert len({repr(values) for values in whole}) > 6


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
            proposer = Proposer(study, tmp_path / f"{sampler}{sign}")
            for number in range(8):
                proposal = proposer.propose(number)
                value = sign * float(proposal.values[COEFFICIENT])
                proposer.tell(proposal.number, Outcome.COMPLETED, value)
            proposals[sampler, sign] = dict(proposer.propose(8).values)
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
    for proposal in proposals:
        assert (silenced in proposal.values) == (proposal.values[decider] != silencing)
        told = read_optuna(tmp_path / "journal")[proposal.number].params
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
    for _ in range(2):  # a reopened journal decodes what an earlier process has encoded
        proposer = Proposer(study, tmp_path / "journal")
        for number, freeze in enumerate(freezes):
            proposal = proposer.propose(number)
            assert proposal.values["retraining.freeze"] == freeze
            assert list(proposal.spec.retraining.freeze) == freeze
    steps = {proposer.propose(number).values["retraining.steps"] for number in range(3, 20)}
    assert steps == {None, 7}


def test_orphans_of_a_dead_driver_are_closed(tmp_path: Path) -> None:
    """A trial that Optuna thinks is running would repel its sampler for ever."""
    journal = tmp_path / "journal"
    first = Proposer(make_study(start_with=[{COEFFICIENT: 0.1}]), journal)
    first.propose(0)
    first._optuna.enqueue_trial({COEFFICIENT: 0.2})
    states = [trial.state for trial in read_optuna(journal)]
    assert states == [TrialState.RUNNING, TrialState.WAITING]
    Proposer(make_study(), journal).reconcile({})
    assert [trial.state for trial in read_optuna(journal)] == [TrialState.FAIL] * 2


def test_orphans_change_no_proposal(tmp_path: Path) -> None:
    study = make_study(sampler={"name": "tpe", "startup_trials": 2})
    expected = propose_all(study, tmp_path / "whole", 8)
    for number in range(8):
        orphaned = Proposer(study, tmp_path / "orphaned")
        orphaned.propose(number)
        proposer = Proposer(study, tmp_path / "orphaned")
        proposer.reconcile({})
        assert complete(proposer, number).values == expected[number]
