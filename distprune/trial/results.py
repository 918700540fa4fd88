"""What a trial yields: one result a level, and a report for each milestone newly reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from distprune.core.mask import Mask
from distprune.methods.ticket import Evidence
from distprune.trial.usage import StageUse


@dataclass(frozen=True)
class Lineage:
    """The store keys that a level's numbers come from.

    Attributes:
        evaluation: Entry of the evaluation on the search split.
        weights: Entry of the weights.
        weights_file: Name of the weights file in it.
        evidence: Entries of the scores that chose the mask.
    """

    evaluation: str
    weights: str
    weights_file: str
    evidence: Evidence


@dataclass(frozen=True)
class LevelResult:
    """One level of a trial.

    Attributes:
        level: 0 = the dense fine-tuned model.
        sparsity: The level's target sparsity, in [0, 1).
        packed_mask: `mask` as text: a study keeps the levels of all its trials in memory.
        metric: The task's metric on the search split.
        lineage: Where it comes from.
        seconds: Wall time of the level; small where stages were stored already.
        uses: Stages that this level was the trial's first to need.
    """

    level: int
    sparsity: float
    packed_mask: str
    metric: float
    lineage: Lineage
    seconds: float
    uses: tuple[StageUse, ...] = ()

    @property
    def mask(self) -> Mask:
        """The units that are kept."""
        return Mask.unpack(self.packed_mask)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values; `from_json` reads them."""
        return {
            "level": self.level,
            "sparsity": self.sparsity,
            "metric": self.metric,
            "lineage": asdict(self.lineage),
            "seconds": self.seconds,
            "uses": [asdict(use) for use in self.uses],
            "mask": self.packed_mask,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LevelResult:
        """Read what `to_json` wrote."""
        lineage = dict(values["lineage"])
        evidence = Evidence(**lineage.pop("evidence"))
        return cls(
            level=values["level"],
            sparsity=values["sparsity"],
            packed_mask=Mask.unpack(values["mask"]).pack(),
            metric=values["metric"],
            lineage=Lineage(**lineage, evidence=evidence),
            seconds=values["seconds"],
            uses=tuple(StageUse(**use) for use in values.get("uses", ())),
        )


@dataclass(frozen=True)
class MilestoneReport:
    """What a trial reports when it reaches a milestone.

    Attributes:
        milestone: 1 for the first milestone of the study, rising by one.
        sparsity: The milestone's sparsity.
        retention: Retention of the first model whose sparsity reaches the milestone.
        objective: The study's objective after this milestone, higher is better.
        metric: Metric of that model on the search split.
        level: Level of that model.
        new_levels: Levels since the report before, this one's included; empty where one model
            answers several milestones.
    """

    milestone: int
    sparsity: float
    retention: float
    objective: float
    metric: float
    level: int
    new_levels: tuple[LevelResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; `from_json` reads them."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "new_levels": [level.to_json() for level in self.new_levels]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MilestoneReport:
        """Read what `to_json` wrote."""
        levels = tuple(LevelResult.from_json(level) for level in values["new_levels"])
        return cls(**{**values, "new_levels": levels})
