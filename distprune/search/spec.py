"""Settings of a study: what is searched, how, where it is kept and what it may use."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from distprune.core.credentials import has_credentials
from distprune.methods.spec import Spec
from distprune.store.opening import explain_bad_location
from distprune.trial.reporter import Objective

RESERVED_NAMES = ("store",)


class SamplerSpec(Spec):
    """Who proposes configurations."""

    name: Literal["tpe", "random"] = "tpe"
    """Optuna's TPE, or uniform draws."""
    startup_trials: int = Field(6, ge=1)
    """Trials drawn uniformly before TPE has something to go by."""


class StoppingSpec(Spec):
    """ASHA over milestones: at a rung, a trial goes on if it is among the best so far."""

    reduction_factor: int = Field(2, ge=2)
    """One in this many trials goes on at each rung."""
    grace_milestones: int = Field(1, ge=1)
    """The first milestone at which a trial can be stopped."""


class ResourcesSpec(Spec):
    """What stages and trials may use; None = from the cluster."""

    cpus_per_stage: int = Field(1, ge=1)
    """Cores, and so threads, of one stage."""
    gpus_per_stage: float | None = Field(None, ge=0.0, le=1.0)
    """GPUs of one stage; fractions share a card. None = one where the cluster has any."""
    shared_cpus: int | None = Field(None, ge=1)
    """Cores of a stage that all trials wait for; None = all cores of a node."""
    max_concurrent: int | None = Field(None, ge=1)
    """Trials at a time; None = half as many again as stages fit on the cluster, as it grows and
    shrinks."""
    trial_memory_mib: int = Field(300, ge=64)
    """Memory of the light process that walks a trial."""
    stage_memory_mib: int | None = Field(None, ge=1)
    """Memory of one stage, so that a node gets no more of them than it has memory for, its trials
    included. None = not asked for."""
    autoscale_cpus: int | None = Field(None, ge=1)
    """Cores that the cluster may grow to: stages that wait are shown to Ray's autoscaler up to that
    many. None = the cluster is taken as it is."""


class TrackingSpec(Spec):
    """Where MLflow keeps the runs, and whether each level has its figure there."""

    uri: str | None = None
    """http(s) address of a tracking server; None = a SQLite file beside the study."""

    figures: Literal["all", "none"] = "all"
    """Whether what chose the mask of each level is drawn, a fifth of a second of one core each. A
    search of many levels a second gets ahead of that, and its end waits for the figures."""

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, uri: str | None) -> str | None:
        if uri is not None and has_credentials(uri):
            raise ValueError(
                "must hold no user and no password, which all could read who see the study; "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or "
                "MLFLOW_TRACKING_TOKEN) where the study is started"
            )
        return uri


class StoreSpec(Spec):
    """The store that all studies of a storage folder share."""

    max_gib: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    """GiB that it may take; while this study runs (behind a URI: when it has ended), the least
    recently used weights that nobody needs are removed above it. None = no limit."""


class LatencyLimit(Spec):
    """A latency to meet, predicted by a table that `distprune bench MODEL --table FILE` measured.

    The study keeps the table that it began with. What the table has once need not be told.
    """

    latency_ms: float = Field(gt=0.0, allow_inf_nan=False)
    """Milliseconds of one batch."""
    table: str = Field(min_length=1)
    """File of the table, or a folder with `latency.json`."""
    batch: int | None = Field(None, ge=1)
    """Sequences that are computed together."""
    length: int | None = Field(None, ge=1)
    """Tokens of each."""
    threads: int | None = Field(None, ge=1)
    """Threads of the processor."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Weights and arithmetic."""
    machine: Literal["this", "any"] = "this"
    """`this`: the table must have been measured on the machine that starts the study."""


def _name_form(objective: Any) -> str:
    """Return the tag of an objective's form; validation leaves both out of names."""
    return "dict" if isinstance(objective, Mapping | LatencyLimit) else "str"


class StudySpec(Spec):
    """A study file, ranges in `trial` unresolved."""

    name: str = Field(min_length=1, max_length=100)
    """Name of the study and of its folder."""
    storage: str = "studies"
    """Folder of all studies and their common store, on a cluster one that all nodes share; or a URI
    such as s3://bucket/prefix."""
    num_trials: int = Field(20, ge=1)
    """Trials in all."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the proposals."""
    objective: Annotated[
        Annotated[Objective, Tag("str")] | Annotated[LatencyLimit, Tag("dict")],
        Discriminator(_name_form),
    ] = Objective.CURVE
    """`curve`: mean retention over the milestones reached; `target`: at the last one reached;
    `{latency_ms: 4, table: FILE}`: best retention of the levels that are predicted to meet it."""
    milestones: tuple[float, ...] | int = 5
    """Sparsities at which trials are compared, the last is the target; or how many equal steps."""
    sampler: SamplerSpec = SamplerSpec()
    stopping: StoppingSpec | None = StoppingSpec()
    """None = every trial runs to the target."""
    start_with: tuple[dict[str, Any], ...] = ()
    """Values, by dotted name below `trial`, of the first trials."""
    resources: ResourcesSpec = ResourcesSpec()
    tracking: TrackingSpec = TrackingSpec()
    store: StoreSpec = StoreSpec()
    trial: dict[str, Any]
    """A trial's settings; any of them can be a range."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name in RESERVED_NAMES:
            raise ValueError(
                "must begin with a letter or digit, go on with letters, digits, '.', '_' or '-', "
                "and not be 'store'"
            )
        return name

    @field_validator("storage")
    @classmethod
    def _check_storage(cls, storage: str) -> str:
        problem = explain_bad_location(storage)
        if problem is not None:
            raise ValueError(problem)
        return storage

    @field_validator("milestones")
    @classmethod
    def _check_milestones(cls, milestones: tuple[float, ...] | int) -> tuple[float, ...] | int:
        if isinstance(milestones, int):
            if not 1 <= milestones <= 100:
                raise ValueError("must be 1 to 100 milestones")
            return milestones
        ordered = all(a < b for a, b in itertools.pairwise(milestones))
        if not milestones or not ordered or milestones[0] <= 0 or milestones[-1] >= 1:
            raise ValueError("must increase, and lie between 0 and 1, both excluded")
        return milestones
