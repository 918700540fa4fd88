"""Problems of a file, gathered so that the user sees all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from distprune.errors import ConfigError

Value = TypeVar("Value")


@dataclass
class Problems:
    """Everything that is wrong with a study file, one line each, no line twice."""

    lines: dict[str, None] = field(default_factory=dict)

    def add(self, line: str) -> None:
        """Add a line."""
        self.lines[line] = None

    def collect(self, check: Callable[[], Value]) -> Value | None:
        """Return what `check` returns; None where it finds problems, which are added."""
        try:
            return check()
        except ConfigError as error:
            for line in str(error).splitlines():
                self.add(line)
            return None

    def error(self) -> ConfigError:
        """Return the error that tells all of them."""
        return ConfigError("\n".join(self.lines))
