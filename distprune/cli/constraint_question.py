"""What is asked of a study: the options of `distprune results` that limit a level."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distprune.errors import ConfigError
from distprune.library.constraints import Constraints


@dataclass(frozen=True)
class Question:
    """What is asked of a study; the values of the options, None = not given."""

    max_latency_ms: float | None = None
    min_retention: float | None = None
    max_parameters: float | None = None
    max_macs: float | None = None
    latency_table: Path | None = None
    batch: int | None = None
    length: int | None = None
    threads: int | None = None
    any_machine: bool = False
    mask: Path | None = None

    @property
    def is_asked(self) -> bool:
        """Say whether anything is asked."""
        return self != Question()

    @property
    def constraints(self) -> Constraints:
        """What a level has to meet.

        Raises:
            ConfigError: A limit is none.
        """
        latency = self.max_latency_ms
        if latency is not None and not 0 < latency < float("inf"):
            raise ConfigError(f"--max-latency-ms: {latency:g}; it must be above 0; correct it")
        if self.min_retention is not None and not abs(self.min_retention) < float("inf"):
            raise ConfigError(f"--min-retention: {self.min_retention:g} is no share; correct it")
        for name in ("max_parameters", "max_macs"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ConfigError(
                    f"--{name.replace('_', '-')}: {share:g}; it is a share of the dense encoder, "
                    "above 0 and at most 1; write 0.5 for half of it"
                )
        return Constraints(
            max_latency=None if latency is None else latency / 1e3,
            min_retention=self.min_retention,
            max_parameters=self.max_parameters,
            max_macs=self.max_macs,
        )
