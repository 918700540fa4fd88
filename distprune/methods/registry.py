"""The methods by name. To add one: a settings type, a class with `next_ticket`, a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from distprune.methods.iterative import IterativePruning
from distprune.methods.spec import PruningSpec
from distprune.methods.stages import Stages
from distprune.methods.ticket import Ticket


class Method(Protocol):
    """Turns the ticket of one level into the next."""

    def next_ticket(self, ticket: Ticket, sparsity: float, is_last: bool) -> Ticket:
        """Prune `ticket` to `sparsity`; `is_last` marks the last level of the schedule."""


METHODS: dict[str, Callable[[PruningSpec, Stages], Method]] = {"iterative": IterativePruning}


def build_method(spec: PruningSpec, stages: Stages) -> Method:
    """Return the method that `spec` names, bound to its stages."""
    return METHODS[spec.method](spec, stages)
