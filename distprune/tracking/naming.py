"""Every name that a tracked study shows: experiments, runs, tags, metrics and artifacts.

Experiment   distprune/<study name>
Study run    <study name>; the resolved study file, summary metrics, leaderboard and figures
Trial run    trial-007, nested; searched and fixed settings as parameters

metrics of a study, step = most seeds of a comparison; from `distprune confirm`
    confirm/<sparsity>/<arm>/mean        the task's metric on the report split, over fresh seeds
    confirm/<sparsity>/<arm>/difference  by how much the best mask is better than the arm
metrics of a trial, step = milestone (1, 2, ...)
    retention             retention of the first model that reaches the milestone
    objective             what the study maximises, after this milestone
    <metric>              the task's metric of that model on the search split
metrics of a trial, step = level (0 = dense)
    level/<metric>        the task's metric on the search split
    level/sparsity        target sparsity of the level, in [0, 1)
    level/heads_kept, level/neurons_kept, level/seconds
    stages/computed, stages/reused, stages/seconds_computed, stages/seconds_saved,
    stages/bytes_written  what the trial's stages have cost and saved up to this level
artifacts of a trial
    masks/level-03.safetensors, importance/level-03.png

Registered model  <study name>, unless another is given; one version for each best mask
Mask run     best at 0.5, nested in the study's run; metrics search, report, retention
artifacts of a mask run, and so of its registered version
    ticket/mask.safetensors, ticket/evidence.json; with a model also MLflow's own files
alias of a version
    best-0_5              best at the milestone 0.5; MLflow takes no dot in an alias
"""

from __future__ import annotations

import re

STUDY = "distprune.study"
"""Tag: name of the study."""
STUDY_ID = "distprune.study_id"
"""Tag: what tells studies of one name apart."""
KIND = "distprune.kind"
"""Tag: `study`, `trial` or `mask`."""
TRIAL = "distprune.trial"
"""Tag: number of the trial."""
OUTCOME = "distprune.outcome"
"""Tag: `completed`, `stopped`, `diverged` or `failed`; absent while the trial runs."""
MESSAGE = "distprune.message"
"""Tag: why a trial diverged or failed."""
MILESTONE = "distprune.milestone"
"""Tag: the last milestone of which everything has been sent."""
HOSTS = "distprune.hosts"
"""Tag of a trial: hosts that have computed stages at its request, and how many each."""
ANSWERED = "distprune.answered_from_store"
"""Tag: `yes`, or the equal trial, where every stage was stored and the trial was not run."""
SEARCHED = "distprune.searched"
"""Tag: names of the parameters that the study searches over; the others are fixed."""

BEST_AT = "distprune.best_at"
"""Tag of a mask: the milestone's sparsity."""
MASK_DIGEST = "distprune.mask"
"""Tag of a mask: SHA-256 of the units that it keeps."""
MODEL_FINGERPRINT = "distprune.model"
"""Tag of a mask with its compact model: SHA-256 of the model's files; `none` without a model."""
CHECKPOINT = "distprune.checkpoint"
"""Tag of a mask: name of its checkpoint."""
CHECKPOINT_FINGERPRINT = "distprune.checkpoint_fingerprint"
"""Tag of a mask: SHA-256 of its checkpoint's files."""
METRIC_NAME = "distprune.metric"
"""Tag of a mask: name of the task's metric."""

PARENT_RUN = "mlflow.parentRunId"
"""MLflow's tag that nests a run."""
SOURCE_NAME = "mlflow.source.name"
"""MLflow's tag of the program."""
DESCRIPTION = "mlflow.note.content"
"""MLflow's tag of the text on a run's page."""

EXPERIMENT_KIND = "mlflow.experimentKind"
"""MLflow's tag of an experiment: which of its pages are shown."""
MODEL_DEVELOPMENT = "custom_model_development"

KIND_STUDY = "study"
KIND_TRIAL = "trial"
KIND_MASK = "mask"

RETENTION = "retention"
OBJECTIVE = "objective"
LEVEL_SPARSITY = "level/sparsity"
LEVEL_HEADS = "level/heads_kept"
LEVEL_NEURONS = "level/neurons_kept"
LEVEL_SECONDS = "level/seconds"
STAGES_COMPUTED = "stages/computed"
STAGES_REUSED = "stages/reused"
STAGES_SECONDS_COMPUTED = "stages/seconds_computed"
STAGES_SECONDS_SAVED = "stages/seconds_saved"
STAGES_BYTES_WRITTEN = "stages/bytes_written"

MASKS = "masks"
"""Artifact folder of a trial's masks."""
IMPORTANCE = "importance"
"""Artifact folder of a trial's importance figures."""
TICKET = "ticket"
"""Artifact folder of a registered mask."""


def name_experiment(study_name: str) -> str:
    """Name the experiment of a study."""
    return f"distprune/{study_name}"


def name_trial(number: int) -> str:
    """Name the run of a trial so that names sort by number."""
    return f"trial-{number:03d}"


def name_mask_run(milestone: float) -> str:
    """Name the run of the best mask at a milestone."""
    return f"best at {milestone:g}"


def name_alias(milestone: float) -> str:
    """Name the alias of the best mask at a milestone."""
    return clean_alias(f"best-{milestone:g}")


def clean_alias(alias: str) -> str:
    """Replace the dot, which MLflow does not allow in an alias, by `_`."""
    return alias.replace(".", "_")


def name_level(level: int) -> str:
    """Name the files of a level, without suffix."""
    return f"level-{level:02d}"


def name_confirmed(milestone: float, arm: str, what: str) -> str:
    """Name a number of a confirmed mask; `what` is `mean` or `difference`."""
    return clean_name(f"confirm/{milestone:g}/{arm}/{what}")


def name_level_metric(metric_name: str) -> str:
    """Name the task's metric of a level."""
    return f"level/{clean_name(metric_name)}"


def clean_name(name: str) -> str:
    """Replace what MLflow does not allow in the name of a metric or parameter by `_`."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def describe_study(metric_name: str, milestones: tuple[float, ...]) -> str:
    """Write the text on the study run's page, Markdown."""
    grid = ", ".join(f"{number}: {sparsity:g}" for number, sparsity in enumerate(milestones, 1))
    return (
        f"Each nested run is one trial. `retention`, `objective` and `{metric_name}` are by "
        f"milestone (step: sparsity = {grid}); metrics under `level/` are by pruning level, 0 = "
        "dense. Masks and importance figures are artifacts of the trials."
    )
