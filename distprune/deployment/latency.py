"""The latency table of a model, measured; and how far its predictions are from measurements.

Each grid point is a whole model, compacted to the same numbers of heads and neurons in all layers,
and its layer's time is what the model takes beyond one without layers, divided by their number. A
layer that is timed alone would find its weights in the caches, where a model's layers push each
other out. The grid is a cross: heads vary at half of the neurons, neurons at half of the heads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from distprune.core.anatomy import describe_anatomy
from distprune.core.compaction import compact
from distprune.core.importance_scores import Importance
from distprune.core.latency_table import (
    Architecture,
    Conditions,
    LayerLatencies,
    PredictionError,
)
from distprune.core.mask import Mask
from distprune.core.selection import SelectionRule, select
from distprune.core.units import EncoderShape, UnitKind
from distprune.deployment.latency_measurement import Stopwatch, time_models

ROUNDS = 12
NUM_CHECKS = 8

GROUP = 6
"""Models that are held in memory at a time, beside the one that all are compared with."""

LAYER_SPREAD = 0.3
"""Standard deviation of what layers differ by in random masks; units in a layer differ by 0.29."""


@dataclass(frozen=True)
class PredictionCheck:
    """A prediction beside the measurement of the whole model.

    Attributes:
        heads: Sparsity of the mask's heads.
        neurons: Sparsity of its neurons.
        predicted: Seconds by the table.
        measured: Median seconds of the rounds.
    """

    heads: float
    neurons: float
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Relative to what was measured."""
        return abs(self.predicted - self.measured) / self.measured


def find_architecture(dense: Any) -> Architecture:
    """Return what the latencies of a dense model hold for."""
    return Architecture(str(dense.config.model_type), describe_anatomy(dense).shape())


def measure_latencies(
    dense: Any,
    conditions: Conditions,
    rounds: int = ROUNDS,
    stopwatch: Stopwatch | None = None,
) -> LayerLatencies:
    """Measure the latencies of a dense model's layers by what they keep.

    Args:
        dense: A dense transformers model; not modified.
        conditions: What to measure under.
        rounds: Timed rounds of each grid point.
        stopwatch: None = that of the device.

    Raises:
        ConfigError: The conditions cannot be measured.
    """
    shape = describe_anatomy(dense).shape()
    heads, neurons = choose_heads(shape.num_heads), choose_neurons(shape.num_neurons)
    middle = choose_middle(heads), choose_middle(neurons)
    points = [(count, middle[1]) for count in heads] + [(middle[0], count) for count in neurons]

    def build(point: tuple[int, int]) -> Callable[[], Any]:
        return lambda: compact(dense, keep_evenly(shape, *point))

    builders = {"rest": lambda: remove_layers(dense)} | {
        point: build(point) for point in points if point != middle
    }
    centre = compact(dense, keep_evenly(shape, *middle))
    seconds = time_beside(centre, builders, conditions, rounds, stopwatch)
    seconds[middle] = seconds.pop(CENTRE)
    rest = seconds["rest"]
    layer = {point: (seconds[point] - rest) / shape.num_layers for point in points}
    return fit_latencies(conditions, heads, neurons, middle, layer, rest)


CENTRE = "centre"
"""Name of the model that all grid points are compared with."""


def time_beside(
    centre: Any,
    builders: Mapping[Any, Callable[[], Any]],
    conditions: Conditions,
    rounds: int,
    stopwatch: Stopwatch | None = None,
) -> dict[Any, float]:
    """Time many models, a few at a time, each group in turn with the same further model.

    A model's time is its median share of the further model's time in the same round, multiplied by
    the median of that over all groups; so what slows the machine down for a while cancels.

    Returns:
        Seconds by the names of `builders`, and by `CENTRE`.
    """
    names, centres = list(builders), []
    shares: dict[Any, float] = {}
    for start in range(0, len(names), GROUP):
        models = {name: builders[name]() for name in names[start : start + GROUP]}
        seconds = time_models({CENTRE: centre, **models}, conditions, rounds, stopwatch)
        centres.append(seconds[CENTRE])
        shares |= {name: float(np.median(seconds[name] / seconds[CENTRE])) for name in models}
    middle = float(np.median(np.concatenate(centres)))
    return {CENTRE: middle} | {name: share * middle for name, share in shares.items()}


def fit_latencies(
    conditions: Conditions,
    heads: tuple[int, ...],
    neurons: tuple[int, ...],
    middle: tuple[int, int],
    layer: Mapping[tuple[int, int], float],
    rest: float,
) -> LayerLatencies:
    """Divide a layer's seconds at the points of a cross into attention, FFN and what is constant.

    Where noise has made a larger layer faster, both get the mean (isotonic regression), so that
    removing a unit never raises a prediction.
    """
    attention = fit_rising([layer[count, middle[1]] for count in heads])
    ffn = fit_rising([layer[middle[0], count] for count in neurons])
    # Both contain the constant and, at the middle, all of the other; together they count it twice.
    constant = attention[0] + ffn[0] - layer[middle]
    return LayerLatencies(
        conditions=conditions,
        heads=heads,
        attention=tuple((attention - attention[0]).tolist()),
        neurons=neurons,
        ffn=tuple((ffn - ffn[0]).tolist()),
        constant=max(float(constant), 0.0),
        rest=max(rest, 0.0),
    )


def fit_rising(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the values that never fall and are nearest by least squares."""
    from scipy.optimize import isotonic_regression

    fitted: NDArray[np.float64] = np.maximum.accumulate(isotonic_regression(values).x)
    return fitted


def check_predictions(
    dense: Any,
    latencies: LayerLatencies,
    num_masks: int = NUM_CHECKS,
    rounds: int = ROUNDS,
    stopwatch: Stopwatch | None = None,
) -> list[PredictionCheck]:
    """Measure whole models of random masks at 25 to 75 % beside what is predicted for them.

    What was measured of them is not corrected for what the machine does meanwhile.
    """
    shape = describe_anatomy(dense).shape()
    masks = draw_check_masks(shape, num_masks)
    checks = []
    for start in range(0, num_masks, GROUP):
        group = dict(enumerate(masks[start : start + GROUP]))
        models = {number: compact(dense, mask) for number, mask in group.items()}
        seconds = time_models(models, latencies.conditions, rounds, stopwatch)
        checks += [
            PredictionCheck(
                heads=mask.sparsity(UnitKind.HEAD),
                neurons=mask.sparsity(UnitKind.NEURON),
                predicted=latencies.predict(mask),
                measured=float(np.median(seconds[number])),
            )
            for number, mask in group.items()
        ]
    return checks


def summarise_checks(checks: Sequence[PredictionCheck]) -> PredictionError:
    """Return the median and the largest error."""
    errors = [check.error for check in checks]
    return PredictionError(float(np.median(errors)), max(errors), len(errors))


def draw_check_masks(shape: EncoderShape, num_masks: int, seed: int = 0) -> list[Mask]:
    """Draw random masks; heads and neurons each lose 25 to 75 %, and layers differ as in searches.

    Sparsities are spread evenly; those of the neurons are in another order than the heads'.
    """
    generator = np.random.default_rng(seed)
    sparsities = np.linspace(0.25, 0.75, num_masks)
    masks = []
    for of_heads, of_neurons in zip(sparsities, generator.permutation(sparsities), strict=True):
        importance = Importance({kind: _draw_scores(shape, kind, generator) for kind in UnitKind})
        mask = Mask.dense(shape)
        for kind, sparsity in ((UnitKind.HEAD, of_heads), (UnitKind.NEURON, of_neurons)):
            mask = select(importance, mask, shape, float(sparsity), SelectionRule((kind,)))
        masks.append(mask)
    return masks


def _draw_scores(
    shape: EncoderShape, kind: UnitKind, generator: np.random.Generator
) -> NDArray[np.float64]:
    units = generator.random((shape.num_layers, shape.units_per_layer(kind)))
    return units + generator.normal(0.0, LAYER_SPREAD, (shape.num_layers, 1))


def choose_heads(num_heads: int) -> tuple[int, ...]:
    """Return the grid of heads: none, one, and sixths of all."""
    sixths = {round(num_heads * part / 6) for part in range(7)}
    return tuple(sorted({0, 1, num_heads} | sixths))


def choose_neurons(num_neurons: int) -> tuple[int, ...]:
    """Return the grid of neurons: none, all, and near the sixteenth and the eighths of all.

    Between the ends counts are odd: masks keep any number, and multiples of what a processor
    computes at once are faster than their neighbours.
    """
    parts = (1 / 16, *(part / 8 for part in range(1, 8)), 1.0)
    inner = {max(round(num_neurons * part) - 1, 0) // 2 * 2 + 1 for part in parts}
    return tuple(sorted({0, num_neurons} | {count for count in inner if count < num_neurons}))


def choose_middle(grid: Sequence[int]) -> int:
    """Return the grid point that is nearest to half of the units."""
    return min(grid, key=lambda count: abs(2 * count - grid[-1]))


def keep_evenly(shape: EncoderShape, heads: int, neurons: int) -> Mask:
    """Return the mask that keeps the first heads and neurons of each layer."""
    kept = {UnitKind.HEAD: heads, UnitKind.NEURON: neurons}
    dense = Mask.dense(shape)
    return Mask(
        {kind: dense[kind] & (np.arange(dense[kind].shape[1]) < kept[kind]) for kind in kept}
    )


def remove_layers(dense: Any) -> Any:
    """Return a copy of a model without its Transformer layers: embeddings, pooler and head."""
    family = describe_anatomy(dense).family
    base = dense.base_model
    # Not copied with the rest: they are most of the model.
    layers = {id(base.get_submodule(family.layers)): nn.ModuleList()}
    return copy.deepcopy(dense, layers)
