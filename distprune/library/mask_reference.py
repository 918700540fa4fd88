"""Mask references: how people name a mask, a file or the best of a study at a milestone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from distprune.core.mask import Mask
from distprune.core.selection import ROUNDING
from distprune.errors import MaskError
from distprune.library.study_folder import StudyFolder, find_study

BEST = re.compile(r"(?P<study>.+?)/+best@(?P<milestone>[0-9]*\.?[0-9]+)(?P<percent>%?)")
"""`studies/movies/best@0.5`; `best@50%` says the same."""

TRACKED = ("runs:/", "models:/")
"""Beginnings of references to MLflow; `distprune.tracking` fetches those."""


@dataclass(frozen=True)
class BestReference:
    """A reference to the best mask of a study at a milestone.

    Attributes:
        folder: The study.
        milestone: The sparsity, as the study has it.
    """

    folder: StudyFolder
    milestone: float

    @property
    def path(self) -> Path:
        """The mask's file."""
        return self.folder.mask(self.milestone)


def parse_best(reference: str) -> BestReference | None:
    """Read a reference to the best mask of a study; None if it is none.

    Raises:
        ConfigError: There is no such study.
        MaskError: The study has no mask at that milestone.
    """
    match = BEST.fullmatch(reference)
    if match is None or reference.startswith(TRACKED):
        return None
    folder = find_study(match["study"])
    wanted = float(match["milestone"]) / (100.0 if match["percent"] else 1.0)
    milestones = list_milestones(folder)
    for milestone in milestones:
        if abs(milestone - wanted) <= ROUNDING:
            return BestReference(folder, milestone)
    have = ", ".join(f"{milestone:g}" for milestone in milestones) or "none yet"
    raise MaskError(
        f"mask: study {folder.name} has no best mask at {wanted:g}; it has {have}; name one of "
        "those, or run `distprune search` to its end"
    )


def list_milestones(folder: StudyFolder) -> list[float]:
    """Return the sparsities at which a study has a best mask, increasing."""
    found = [float(path.parent.name) for path in folder.masks.glob("*/mask.safetensors")]
    return sorted(found)


def load_mask_reference(reference: str) -> Mask:
    """Load a mask by its file, or as `STUDY/best@0.5`.

    Raises:
        ConfigError: There is no such study.
        MaskError: There is no such mask, or it cannot be read.
    """
    best = parse_best(reference)
    return Mask.load(Path(reference).expanduser() if best is None else best.path)
