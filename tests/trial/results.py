"""Level results made up of a sparsity and a metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.methods.ticket import Evidence
from distprune.trial.results import LevelResult, Lineage


def make_result(level: int, sparsity: float, metric: float, **options: Any) -> LevelResult:
    """Make a level whose mask keeps ten units less `level`."""
    kept = np.arange(10)[None] >= level
    values = {
        "packed_mask": Mask({UnitKind.HEAD: kept, UnitKind.NEURON: kept}).pack(),
        "lineage": Lineage(
            evaluation=f"{level:064x}",
            weights=f"{level + 100:064x}",
            weights_file="weights.safetensors",
            evidence=Evidence("a" * 64, "b" * 64, "mlm") if level else Evidence(),
        ),
        "seconds": 1.5,
    }
    return LevelResult(level=level, sparsity=sparsity, metric=metric, **values | options)


def make_results(sparsities: Sequence[float], metrics: Sequence[float]) -> list[LevelResult]:
    """Make level 0 and one level for each further sparsity."""
    pairs = enumerate(zip(sparsities, metrics, strict=True))
    return [make_result(level, sparsity, metric) for level, (sparsity, metric) in pairs]
