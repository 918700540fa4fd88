"""The stages of one trial: from settings to requests, from stored results back to values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, cast

from distprune.core.importance_scores import Criterion, Importance
from distprune.core.mask import Mask
from distprune.core.units import EncoderShape, UnitKind
from distprune.errors import DivergedTrialError, StageError
from distprune.methods.spec import PretrainedObjective, Recipe
from distprune.methods.ticket import MeasuredImportance, Ticket, WeightsReference
from distprune.models.checkpoint import CheckpointFacts, missing_mlm_head
from distprune.store.entry import Entry
from distprune.store.store import Store
from distprune.trial.context import TrialContext
from distprune.trial.executor import StageExecutor
from distprune.trial.request import StageRequest, request_snapshot
from distprune.trial.spec import TrialSpec
from distprune.trial.usage import StageLog

WEIGHTS_FILE = "weights.safetensors"
IMPORTANCE_FILE = "importance.safetensors"
METRICS_FILE = "metrics.json"
PROBE = Recipe(epochs=1.0, learning_rate=1e-3, freeze=("embeddings", "encoder"))
"""Recipe of `task_probe`: one epoch of the head on the frozen pre-trained body."""


@dataclass(frozen=True)
class Evaluation:
    """A metric and the entry that it was read from."""

    metric: float
    key: str


@dataclass(frozen=True)
class TrialStages:
    """The stages of the trial `spec`; implements `distprune.methods.stages.Stages`."""

    spec: TrialSpec
    context: TrialContext
    store: Store
    executor: StageExecutor
    log: StageLog = field(default_factory=StageLog, compare=False)

    @property
    def shape(self) -> EncoderShape:
        """Counts of the dense encoder."""
        return self.context.shape

    @property
    def num_tokens(self) -> float:
        """Mean tokens of an example, for MACs."""
        return self.context.num_tokens

    @property
    def pretrained_objective(self) -> PretrainedObjective:
        """The objective of the pre-trained importance, `auto` resolved."""
        return resolve_objective(
            self.spec.pruning.importance.pretrained_objective, self.context.checkpoint
        )

    def prepare_again(self) -> None:
        """Prepare the task again if it is lost; the stages of a trial start with it."""
        if self.context.preparation is not None:
            self._ensure(self.context.preparation)

    def dense(self) -> Ticket:
        """Fine-tune the dense model; weights at all rewinding points are saved on the way."""
        request = self._dense_request()
        self._ensure(request)
        weights = WeightsReference(request.key, WEIGHTS_FILE)
        return Ticket(level=0, sparsity=0.0, mask=Mask.dense(self.shape), weights=weights)

    def rewind(self, point: float) -> WeightsReference:
        """Return the dense weights at a fraction of the fine-tuning."""
        dense = self.dense().weights
        if point == 1.0:
            return dense
        request = request_snapshot(self._dense_request(), point)
        self._ensure(request)
        return WeightsReference(request.key, WEIGHTS_FILE)

    def retrain(self, start: WeightsReference, mask: Mask) -> WeightsReference:
        """Train the compact model of `mask` from `start`; keyed by the mask, not by its choice."""
        recipe = self.spec.retraining
        inputs = {"start": start.key}
        settings = {
            **self._training_settings(recipe),
            "start_file": start.file,
            "mask": mask.pack(),
        }
        if recipe.distillation.weight > 0:
            teacher = self.dense().weights
            inputs["teacher"] = teacher.key
            settings["teacher_file"] = teacher.file
        request = self._request("retrain", settings, inputs)
        self._ensure(request)
        return WeightsReference(request.key, WEIGHTS_FILE)

    def evaluate(self, ticket: Ticket, split: str = "search") -> Evaluation:
        """Measure the task's metric of a ticket.

        Raises:
            DivergedTrialError: The metric is not finite.
        """
        return self.evaluate_weights(ticket.weights, ticket.mask, split)

    def evaluate_weights(self, weights: WeightsReference, mask: Mask, split: str) -> Evaluation:
        """Measure the task's metric of `weights` under `mask`."""
        request = self._request(
            "evaluate",
            {**self._model_settings(), "file": weights.file, "mask": mask.pack(), "split": split},
            {"weights": weights.key},
        )
        metrics = cast(dict[str, Any], self._ensure(request).read_json(METRICS_FILE))
        metric = float(metrics["metric"])
        if not math.isfinite(metric):
            raise DivergedTrialError(f"{split} metric: {metric} is not finite")
        return Evaluation(metric, request.key)

    def score_finetuned(self, ticket: Ticket) -> MeasuredImportance:
        """Measure the raw importance in the ticket's model."""
        return self._score("task", ticket.mask, ticket.weights)

    def score_pretrained(self, mask: Mask) -> MeasuredImportance:
        """Measure the raw importance in the pre-trained model under `mask`."""
        weights = self.rewind(0.0)
        if not self.spec.pruning.importance.criterion.needs_data:
            return self._score("task", mask, weights)
        objective = self.pretrained_objective
        if objective is PretrainedObjective.MLM:
            return self._score("mlm", mask, None)
        if objective is PretrainedObjective.TASK_PROBE:
            return self._score("task", mask, self.probe())
        head = self.dense().weights
        return self._score("task", mask, weights, head=head)

    def probe(self) -> WeightsReference:
        """Train a head on the frozen pre-trained body."""
        request = self._request("probe", self._training_settings(PROBE), is_shared=True)
        self._ensure(request)
        return WeightsReference(request.key, WEIGHTS_FILE)

    def _dense_request(self) -> StageRequest:
        settings = self._training_settings(self.spec.fine_tuning)
        request = self._request("dense", settings, is_shared=True)
        points = {"rewinding_points": self.context.rewinding_points}
        return replace(request, places={**request.places, **points})

    def _score(
        self,
        objective: str,
        mask: Mask,
        weights: WeightsReference | None,
        head: WeightsReference | None = None,
    ) -> MeasuredImportance:
        settings = self._model_settings() | {"objective": objective, "mask": mask.pack()}
        settings |= self._score_settings(objective)
        inputs = {}
        if weights is not None:
            inputs["weights"] = weights.key
            settings["file"] = weights.file
        if head is not None:
            inputs["head"] = head.key
            settings["head_file"] = head.file
        request = self._request("score", settings, inputs)
        return MeasuredImportance(read_importance(self._ensure(request)), request.key)

    def _score_settings(self, objective: str) -> dict[str, Any]:
        importance = self.spec.pruning.importance
        settings: dict[str, Any] = {"criterion": str(importance.criterion)}
        if importance.criterion.needs_data:
            settings |= {
                "estimator": str(importance.estimator),
                "examples": importance.examples,
                "batch_size": importance.batch_size,
            }
        if importance.criterion.needs_data or importance.criterion is Criterion.RANDOM:
            settings["seed"] = self.spec.seed
        if objective == "mlm":
            settings |= {
                "mlm_probability": importance.mlm_probability,
                "mlm_draws": importance.mlm_draws,
            }
        return settings

    def _training_settings(self, recipe: Recipe) -> dict[str, Any]:
        return {
            **self._model_settings(),
            "recipe": recipe.model_dump(mode="json"),
            "seed": self.spec.seed,
        }

    def _model_settings(self) -> dict[str, Any]:
        return {
            "checkpoint": self.context.checkpoint.fingerprint,
            "num_labels": self.context.task.num_labels,
            "precision": self.context.precision,
        }

    def _request(
        self,
        stage: str,
        settings: dict[str, Any],
        inputs: dict[str, str] | None = None,
        is_shared: bool = False,
    ) -> StageRequest:
        return StageRequest(
            stage=stage,
            settings=settings,
            inputs={"task": self.context.prepared, **(inputs or {})},
            places={"checkpoint": self.context.checkpoint.location},
            is_shared=is_shared,
        )

    def _ensure(self, request: StageRequest) -> Entry:
        is_computed = self.executor.ensure(request)
        entry = self.store.find(request.key)
        if entry is None:
            # It was damaged, or removed, since.
            is_computed = self.executor.ensure(request)
            entry = self.store.find(request.key)
        if entry is None:
            raise StageError(
                f"stage {request.stage}: entry {request.key} is not in {self.store.root} after it "
                "was computed; check that all nodes share this storage"
            )
        self.log.note(request.stage, entry, is_computed)
        return entry


def resolve_objective(
    objective: PretrainedObjective, checkpoint: CheckpointFacts
) -> PretrainedObjective:
    """Return the objective to use; `auto` is `mlm` where the checkpoint brings its head.

    Raises:
        CheckpointError: `mlm` is asked for and the checkpoint has no head of its own.
    """
    if objective is PretrainedObjective.AUTO:
        return (
            PretrainedObjective.MLM if checkpoint.has_mlm_head else PretrainedObjective.TASK_PROBE
        )
    if objective is PretrainedObjective.MLM and not checkpoint.has_mlm_head:
        raise missing_mlm_head(checkpoint.name)
    return objective


def read_importance(entry: Entry) -> Importance:
    """Read the raw importance that a `score` stage stored."""
    from safetensors.numpy import load_file

    arrays = load_file(entry.path(IMPORTANCE_FILE))
    return Importance({kind: arrays[str(kind)] for kind in UnitKind})
