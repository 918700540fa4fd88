"""The Ray trainable: a light process that walks one trial and reports its milestones."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.exceptions import RayError, RayTaskError

from distprune.core.retention import Reference
from distprune.errors import DistpruneError, DivergedTrialError, StorageError
from distprune.library.history import Outcome
from distprune.search.stage_broker import RayExecutor
from distprune.search.tune_adapters import ABORT, FAILURE, MILESTONE, OBJECTIVE, REPORT
from distprune.store.store import Store
from distprune.trial.context import TrialContext
from distprune.trial.latency_objective import LatencyObjective
from distprune.trial.reporter import Objective, count_levels_left, report_milestones
from distprune.trial.results import LevelResult
from distprune.trial.runner import run_trial
from distprune.trial.spec import TrialSpec
from distprune.trial.stages import TrialStages


@dataclass(frozen=True)
class TrialSurroundings:
    """What every trial of a study gets beside its settings; small enough to travel."""

    context: TrialContext
    reference: Reference
    milestones: tuple[float, ...]
    objective: Objective | LatencyObjective
    store: Store
    broker: Any


def walk_trial(config: dict[str, Any], surroundings: TrialSurroundings) -> None:
    """Run the trial `config['spec']` and report to Tune, once for each milestone."""
    spec = TrialSpec.model_validate_json(config["spec"])
    executor = RayExecutor(surroundings.broker, surroundings.store)
    stages = TrialStages(spec, surroundings.context, surroundings.store, executor)
    try:
        for report in report_milestones(
            _hurry_near_milestones(run_trial(stages), spec, surroundings.milestones, executor),
            surroundings.milestones,
            surroundings.reference,
            surroundings.objective,
        ):
            tune.report(
                {
                    MILESTONE: report.milestone,
                    OBJECTIVE: report.objective,
                    REPORT: json.dumps(report.to_json()),
                }
            )
    except DivergedTrialError as error:
        _report_failure(Outcome.DIVERGED, str(error))
    except StorageError as error:
        tune.report({OBJECTIVE: float("nan"), ABORT: str(error)})
    except RayError as error:
        if not isinstance(error, RayTaskError):
            raise  # Trouble of the cluster is not the trial's; Tune starts it again.
        _report_failure(Outcome.FAILED, describe_failure(error))
    except Exception as error:
        _report_failure(Outcome.FAILED, describe_failure(error))


def _hurry_near_milestones(
    levels: Iterator[LevelResult],
    spec: TrialSpec,
    milestones: tuple[float, ...],
    executor: RayExecutor,
) -> Iterator[LevelResult]:
    """Pass levels on, and tell the executor how far each is from the next milestone."""
    sparsities = spec.pruning.sparsities
    executor.levels_left = count_levels_left(sparsities, milestones, 0)
    for result in levels:
        executor.levels_left = count_levels_left(sparsities, milestones, result.level)
        yield result


def describe_failure(error: Exception) -> str:
    """Return the message of our own errors, and of others the whole traceback."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, DistpruneError):
        return str(cause)
    return "".join(traceback.format_exception(error)).strip()


def _report_failure(outcome: Outcome, message: str) -> None:
    # Tune insists on the metric in each report; a NaN here never reaches a rung.
    failure = {"outcome": str(outcome), "message": message}
    tune.report({OBJECTIVE: float("nan"), FAILURE: failure})
