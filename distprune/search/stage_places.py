"""Where stages run, so that whoever waits for one hears that its node was lost.

Ray tells too, but not always soon: of a host that lost its power while a task ran there it hears
from the network, which may take minutes (ray 2.60: up to seven).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class LostNodeError(Exception):
    """The node of a stage was lost; the stage has to run elsewhere."""


@dataclass
class _Run:
    """One run of a stage: the node that it was started on, None until it tells, and its loss."""

    node: str | None = None
    loss: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class StagePlaces:
    """The stages that run, by tokens that their starter makes, and the nodes that live."""

    _living: frozenset[str] = frozenset()
    _runs: dict[str, _Run] = field(default_factory=dict)

    @contextmanager
    def follow(self, token: str) -> Iterator[asyncio.Event]:
        """Follow a run inside the block; the event comes when its node is lost."""
        run = self._runs[token] = _Run()
        try:
            yield run.loss
        finally:
            del self._runs[token]

    def note(self, token: str, node: str) -> None:
        """Note on which node a run has begun; one that nobody waits for any more is none."""
        if token in self._runs:
            self._runs[token].node = node

    def look(self, living: frozenset[str]) -> None:
        """Compare with the nodes that live now.

        A run that has not begun may be on its way to any node: the loss of one is taken for its
        own. If that was wrong it is started twice, and the second one finds what the first stored.
        """
        is_any_lost = bool(self._living - living)
        self._living = living
        for run in self._runs.values():
            if is_any_lost if run.node is None else run.node not in living:
                run.loss.set()
