"""What all trials of a study share: facts about checkpoint and task, found before the search."""

from __future__ import annotations

from dataclasses import dataclass

from distprune.core.units import EncoderShape
from distprune.models.checkpoint import CheckpointFacts
from distprune.tasks.prepared import TaskFacts
from distprune.trial.request import StageRequest


@dataclass(frozen=True)
class TrialContext:
    """The resolved surroundings of a trial. Small, without weights; it travels to every trial.

    Attributes:
        checkpoint: Facts about the checkpoint.
        task: Facts about the prepared task.
        prepared: Key of the prepared task in the store.
        precision: `float32` or `bfloat16`, resolved.
        rewinding_points: Fractions of the dense fine-tuning that any trial of the study can rewind
            to, increasing; all are saved in one dense run.
        preparation: The stage that prepares the task, if it is lost; None = it cannot be told.
    """

    checkpoint: CheckpointFacts
    task: TaskFacts
    prepared: str
    precision: str
    rewinding_points: tuple[float, ...]
    preparation: StageRequest | None = None

    @property
    def shape(self) -> EncoderShape:
        """Counts of the dense encoder."""
        return self.checkpoint.shape

    @property
    def num_tokens(self) -> float:
        """Mean tokens of an example of the search split."""
        return self.task.mean_tokens["search"]
