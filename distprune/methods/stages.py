"""What a method asks of its surroundings: the expensive steps of a trial, as a protocol."""

from __future__ import annotations

from typing import Protocol

from distprune.core.mask import Mask
from distprune.core.units import EncoderShape
from distprune.methods.spec import PretrainedObjective
from distprune.methods.ticket import MeasuredImportance, Ticket, WeightsReference


class Stages(Protocol):
    """The stages that one level is made of; each is a pure function of its arguments."""

    @property
    def shape(self) -> EncoderShape:
        """Counts of the dense encoder."""

    @property
    def num_tokens(self) -> float:
        """Mean number of tokens of an example, for MACs."""

    @property
    def pretrained_objective(self) -> PretrainedObjective:
        """The objective of the pre-trained importance, `auto` resolved."""

    def score_pretrained(self, mask: Mask) -> MeasuredImportance:
        """Measure the raw importance in the pre-trained model under `mask`."""

    def score_finetuned(self, ticket: Ticket) -> MeasuredImportance:
        """Measure the raw importance in the ticket's model."""

    def rewind(self, point: float) -> WeightsReference:
        """Return the dense weights at a fraction of the fine-tuning, 0 = pre-trained."""

    def retrain(self, start: WeightsReference, mask: Mask) -> WeightsReference:
        """Train the compact model of `mask` from `start`."""
