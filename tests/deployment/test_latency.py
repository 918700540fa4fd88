"""The latency table, measured: with operations for seconds it has to predict every mask exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.anatomy import describe_anatomy
from distprune.core.latency_table import Conditions
from distprune.core.mask import Mask
from distprune.core.units import EncoderShape, UnitKind
from distprune.deployment.latency import (
    CENTRE,
    GROUP,
    PredictionCheck,
    check_predictions,
    choose_heads,
    choose_middle,
    choose_neurons,
    draw_check_masks,
    find_architecture,
    fit_latencies,
    fit_rising,
    keep_evenly,
    measure_latencies,
    remove_layers,
    summarise_checks,
    time_beside,
)
from distprune.deployment.latency_measurement import WARM_UP_ROUNDS
from distprune.errors import ConfigError
from tests.deployment.stopwatches import OperationStopwatch
from tests.model_families import CONFIGS, SHAPE, build_classifier

CONDITIONS = Conditions(batch=2, length=8, threads=1)
MINILM = EncoderShape(6, 12, 1536, 384, 32)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_operations_are_predicted_exactly(family: str) -> None:
    dense = build_classifier(family, "eager")
    latencies = measure_latencies(dense, CONDITIONS, 1, OperationStopwatch())
    checks = check_predictions(dense, latencies, 4, 1, OperationStopwatch())
    for check in checks:
        assert check.predicted == pytest.approx(check.measured)
    assert len({check.measured for check in checks}) == 4
    assert latencies.heads[-1] == SHAPE.num_heads
    assert latencies.neurons[-1] == SHAPE.num_neurons


def test_attention_and_ffn_are_told_apart() -> None:
    dense = build_classifier("bert", "eager")
    latencies = measure_latencies(dense, CONDITIONS, 1, OperationStopwatch())
    tokens = CONDITIONS.batch * CONDITIONS.length
    neuron = 2 * tokens * 2 * SHAPE.hidden_size
    head = 2 * tokens * (4 * SHAPE.hidden_size + 2 * CONDITIONS.length) * SHAPE.head_size
    assert latencies.ffn[-1] == pytest.approx(neuron * SHAPE.num_neurons)
    assert latencies.attention[-1] == pytest.approx(head * SHAPE.num_heads)
    assert latencies.constant == pytest.approx(0.0)
    assert latencies.rest > 0.0


def test_slow_phases_of_the_machine_cancel() -> None:
    """One group is measured while the machine is three times as slow."""
    dense = build_classifier("bert", "eager")
    expected = measure_latencies(dense, CONDITIONS, 3, OperationStopwatch())
    calls = (GROUP + 1) * (WARM_UP_ROUNDS + 3)
    slow = OperationStopwatch(lambda call: 3.0 if calls <= call < 2 * calls else 1.0)
    found = measure_latencies(dense, CONDITIONS, 3, slow)
    assert slow.num_calls > 2 * calls
    assert found.attention == pytest.approx(expected.attention, rel=1e-6)
    assert found.ffn == pytest.approx(expected.ffn, rel=1e-6)


def test_groups_are_timed_beside_the_same_model() -> None:
    built: list[int] = []
    models = {n: build_classifier("bert", "eager") for n in range(2)}

    def build(number: int) -> Any:
        built.append(number)
        return models[number % 2]

    names = range(2 * GROUP + 1)
    builders = {name: lambda name=name: build(name) for name in names}
    seconds = time_beside(models[0], builders, CONDITIONS, 1, OperationStopwatch())
    assert built == list(names)
    assert list(seconds) == [CENTRE, *names]
    assert len({round(value) for value in seconds.values()}) == 1


def test_conditions_that_cannot_be_measured() -> None:
    with pytest.raises(ConfigError, match="length: 999 tokens"):
        measure_latencies(build_classifier("bert"), Conditions(1, 999, 1), 1, OperationStopwatch())


class TestFit:
    """From seconds of layers to attention, FFN and the constant."""

    HEADS, NEURONS, MIDDLE = (0, 2, 4), (0, 10, 20), (2, 10)

    def measure(self, **noise: float) -> dict[tuple[int, int], float]:
        """Return 1 + heads + neurons / 10 at the cross, with noise by `h_n`."""
        points = [(h, 10) for h in self.HEADS] + [(2, n) for n in self.NEURONS]
        return {(h, n): 1.0 + h + n / 10 + noise.get(f"at_{h}_{n}", 0.0) for h, n in points}

    def test_by_hand(self) -> None:
        found = fit_latencies(
            CONDITIONS, self.HEADS, self.NEURONS, self.MIDDLE, self.measure(), 0.5
        )
        assert found.attention == pytest.approx((0.0, 2.0, 4.0))
        assert found.ffn == pytest.approx((0.0, 1.0, 2.0))
        assert found.constant == pytest.approx(1.0)
        assert found.rest == 0.5

    def test_larger_layers_that_were_faster_get_the_mean(self) -> None:
        layer = self.measure(at_4_10=-2.5)
        found = fit_latencies(CONDITIONS, self.HEADS, self.NEURONS, self.MIDDLE, layer, 0.5)
        assert found.attention == pytest.approx((0.0, 1.75, 1.75))

    def test_noise_gives_no_negative_seconds(self) -> None:
        layer = self.measure(at_2_10=9.0)
        found = fit_latencies(CONDITIONS, self.HEADS, self.NEURONS, self.MIDDLE, layer, -0.1)
        assert (found.constant, found.rest) == (0.0, 0.0)

    @given(st.lists(st.floats(0.0, 10.0), min_size=2, max_size=12))
    def test_never_falls_and_keeps_the_sum(self, values: list[float]) -> None:
        fitted = fit_rising(values)
        assert (np.diff(fitted) >= 0).all()
        assert fitted.sum() == pytest.approx(sum(values))

    @given(st.lists(st.floats(0.0, 10.0), min_size=2, max_size=12))
    def test_leaves_what_rises_as_it_is(self, values: list[float]) -> None:
        assert fit_rising(sorted(values)).tolist() == pytest.approx(sorted(values))


class TestGrid:
    """Where it is measured."""

    def test_of_minilm(self) -> None:
        assert choose_heads(12) == (0, 1, 2, 4, 6, 8, 10, 12)
        assert choose_neurons(1536) == (
            *(0, 95, 191, 383, 575, 767, 959, 1151, 1343, 1535),
            1536,
        )
        assert (choose_middle(choose_heads(12)), choose_middle(choose_neurons(1536))) == (6, 767)

    @given(st.integers(1, 64), st.integers(1, 5000))
    def test_from_none_to_all(self, num_heads: int, num_neurons: int) -> None:
        for grid, count in (
            (choose_heads(num_heads), num_heads),
            (choose_neurons(num_neurons), num_neurons),
        ):
            assert grid[0] == 0
            assert grid[-1] == count
            assert list(grid) == sorted(set(grid))
            assert len(grid) <= 12
            assert choose_middle(grid) in grid

    def test_even_masks(self) -> None:
        mask = keep_evenly(SHAPE, 1, 7)
        assert mask[UnitKind.HEAD].sum(axis=1).tolist() == [1, 1, 1]
        assert mask[UnitKind.NEURON].sum(axis=1).tolist() == [7, 7, 7]

    @pytest.mark.parametrize("family", sorted(CONFIGS))
    def test_model_without_layers(self, family: str) -> None:
        dense = build_classifier(family)
        rest = remove_layers(dense)
        assert len(describe_anatomy(rest).layers) == 0
        assert len(describe_anatomy(dense).layers) == SHAPE.num_layers
        ids = np.array([[5, 6, 7]])
        import torch

        assert rest(input_ids=torch.as_tensor(ids)).logits.shape == (1, 3)


class TestCheck:
    """Predictions beside measurements."""

    def test_masks_are_from_25_to_75_percent_and_uneven(self) -> None:
        masks = draw_check_masks(MINILM, 9)
        of_heads, of_neurons = (
            [round(mask.sparsity(kind), 3) for mask in masks] for kind in UnitKind
        )
        assert of_heads == pytest.approx(np.linspace(0.25, 0.75, 9), abs=0.01)
        assert sorted(of_neurons) == pytest.approx(np.linspace(0.25, 0.75, 9), abs=0.01)
        assert of_neurons != sorted(of_neurons)
        for mask in masks:
            counts = mask[UnitKind.NEURON].sum(axis=1)
            assert counts.max() - counts.min() > 200

    def test_same_masks_every_time(self) -> None:
        assert draw_check_masks(SHAPE, 3) == draw_check_masks(SHAPE, 3)

    def test_error_is_relative_to_the_measurement(self) -> None:
        checks = [PredictionCheck(0.5, 0.5, p, 2.0) for p in (1.8, 2.0, 2.1, 2.6)]
        error = summarise_checks(checks)
        assert error.median == pytest.approx(0.075)
        assert error.largest == pytest.approx(0.3)
        assert error.num_masks == 4

    def test_measured_latencies_are_not_corrected(self) -> None:
        dense = build_classifier("bert", "eager")
        latencies = measure_latencies(dense, CONDITIONS, 1, OperationStopwatch())
        slow = OperationStopwatch(lambda call: 2.0)
        for check in check_predictions(dense, latencies, 2, 1, slow):
            assert check.error == pytest.approx(0.5)


def test_architecture_is_read_from_the_model() -> None:
    found = find_architecture(build_classifier("roberta"))
    assert (found.model_type, found.shape) == ("roberta", SHAPE)
    assert Mask.dense(SHAPE).matches(found.shape)
