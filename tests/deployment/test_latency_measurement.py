"""Timing: in turn, warm, in serving's conditions; nothing here looks at a real clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch

from distprune.core.compaction import compact
from distprune.core.latency_table import Conditions
from distprune.core.mask import Mask
from distprune.deployment.latency import keep_evenly
from distprune.deployment.latency_measurement import (
    WARM_UP_ROUNDS,
    CudaStopwatch,
    ProcessorStopwatch,
    check_conditions,
    choose_stopwatch,
    computing,
    count_positions,
    draw_full_batch,
    make_forward,
    measure_latency,
    promise_speed_up,
    time_in_turn,
)
from distprune.errors import ConfigError
from tests.deployment.stopwatches import FakeClock, OperationStopwatch
from tests.model_families import CONFIGS, SHAPE, build_classifier

CONDITIONS = Conditions(batch=2, length=8, threads=1)
HALF = keep_evenly(SHAPE, 2, 10)


class TestTurns:
    """Who is timed when."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def calls(self) -> list[str]:
        return []

    @pytest.fixture
    def act(self, clock: FakeClock, calls: list[str]) -> Callable[..., Callable[[], None]]:
        def make(name: str, *seconds: float) -> Callable[[], None]:
            """Take these seconds one call after the other, then the last again and again."""
            left = list(seconds)

            def action() -> None:
                calls.append(name)
                clock.take(left.pop(0) if len(left) > 1 else left[0])

            return action

        return make

    def test_order_alternates_and_short_actions_run_once_untimed(
        self, clock: FakeClock, calls: list[str], act: Any
    ) -> None:
        actions = {"a": act("a", 0.01), "b": act("b", 0.02)}
        seconds = time_in_turn(actions, 4, ProcessorStopwatch(clock))
        assert calls == ["a", "b"] * WARM_UP_ROUNDS + ["a", "a", "b", "b", "b", "b", "a", "a"] * 2
        assert seconds["a"].tolist() == pytest.approx([0.01] * 4)
        assert seconds["b"].tolist() == pytest.approx([0.02] * 4)

    def test_long_actions_run_timed_only(
        self, clock: FakeClock, calls: list[str], act: Any
    ) -> None:
        actions = {"short": act("short", 0.09), "long": act("long", 0.11)}
        time_in_turn(actions, 2, ProcessorStopwatch(clock))
        timed = ["short", "short", "long", "long", "short", "short"]
        assert calls[2 * WARM_UP_ROUNDS :] == timed

    def test_warm_up_and_untimed_calls_do_not_count(
        self, clock: FakeClock, calls: list[str], act: Any
    ) -> None:
        slow = [9.0] * (WARM_UP_ROUNDS - 1)
        action = act("a", *slow, 0.05, 7.0, 0.01, 7.0, 0.02, 7.0, 0.03)
        seconds = time_in_turn({"a": action}, 3, ProcessorStopwatch(clock))
        assert seconds["a"].tolist() == pytest.approx([0.01, 0.02, 0.03])
        assert len(calls) == WARM_UP_ROUNDS + 6


class FakeEvent:
    """An event of a GPU: when it was recorded, in milliseconds."""

    log: ClassVar[list[Any]] = []
    now: ClassVar[float] = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = -1.0

    def record(self) -> None:
        self.at = FakeEvent.now
        FakeEvent.log.append("event")

    def elapsed_time(self, other: FakeEvent) -> float:
        assert FakeEvent.log[-1] == "synchronise"
        return other.at - self.at


def test_gpu_is_waited_for_outside_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []
    monkeypatch.setattr(FakeEvent, "log", log)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("synchronise"))

    def act() -> None:
        log.append("act")
        FakeEvent.now += 250.0

    seconds = time_in_turn({"a": act}, 3, CudaStopwatch(), warm_up=1)
    assert seconds["a"].tolist() == [0.25, 0.25, 0.25]
    timed = ["event", "act", "event"]
    assert log == [*timed, "synchronise", *timed * 3, "synchronise"]


def test_stopwatch_of_each_device() -> None:
    assert isinstance(choose_stopwatch("cpu"), ProcessorStopwatch)
    assert isinstance(choose_stopwatch("cuda"), CudaStopwatch)


class TestConditions:
    """What a model is run under."""

    def test_threads_are_set_and_set_back(self) -> None:
        before = torch.get_num_threads()
        with computing(Conditions(1, 8, threads=before + 1)):
            assert torch.get_num_threads() == before + 1
            assert torch.is_inference_mode_enabled()
        assert torch.get_num_threads() == before
        with pytest.raises(KeyError), computing(Conditions(1, 8, threads=before + 1)):
            raise KeyError
        assert torch.get_num_threads() == before

    @pytest.mark.parametrize("family", sorted(CONFIGS))
    def test_batch_is_full(self, family: str) -> None:
        model = build_classifier(family)
        batch = draw_full_batch(model, CONDITIONS)
        assert {tensor.shape for tensor in batch.values()} == {(2, 8)}
        assert batch["attention_mask"].all()
        assert (batch["input_ids"] != model.config.pad_token_id).all()
        assert batch["input_ids"].max() < model.config.vocab_size
        assert model(**batch).logits.shape == (2, 3)

    @pytest.mark.parametrize("family", sorted(CONFIGS))
    def test_longest_sequence_that_a_model_takes(self, family: str) -> None:
        model = build_classifier(family)
        longest = count_positions(model)
        assert longest is not None
        model(**draw_full_batch(model, Conditions(1, longest, 1)))
        with pytest.raises((IndexError, RuntimeError)):
            model(**draw_full_batch(model, Conditions(1, longest + 1, 1)))
        with pytest.raises(
            ConfigError, match=f"length: {longest + 1} tokens; .* {longest} at most"
        ):
            check_conditions(model, Conditions(1, longest + 1, 1))

    def test_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ConfigError, match="device: 'cuda' and torch finds no GPU; use cpu"):
            check_conditions(build_classifier("bert"), Conditions(1, 8, 1, device="cuda"))

    def test_weights_are_in_the_dtype_and_the_model_is_not_changed(self) -> None:
        model = build_classifier("bert").train()
        with computing(CONDITIONS):
            logits = make_forward(model, Conditions(1, 8, 1, "bfloat16"))().logits  # type: ignore[attr-defined]
        assert logits.dtype == torch.bfloat16
        assert model.training
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}

    def test_model_that_is_ready_is_run_itself(self) -> None:
        model = build_classifier("bert")
        calls = []
        model.register_forward_hook(lambda *_: calls.append(1))
        make_forward(model, CONDITIONS)()
        assert calls == [1]

    def test_dropout_is_off(self) -> None:
        model = build_classifier("bert").train()
        forward = make_forward(model, CONDITIONS)
        first, second = (forward().logits for _ in range(2))  # type: ignore[attr-defined]
        assert torch.equal(first, second)


class TestComparison:
    """A model beside its dense form."""

    def test_dense_model_alone(self) -> None:
        model = build_classifier("bert")
        found = measure_latency(model, CONDITIONS, rounds=6, stopwatch=OperationStopwatch())
        assert found.latency.count == 6
        assert (found.dense, found.speed_up, found.promised, found.realised) == (None,) * 4
        assert found.to_json()["speed_up"] is None

    def test_compact_model_beside_its_dense_form(self) -> None:
        dense = build_classifier("bert")
        model = compact(dense, HALF)
        found = measure_latency(model, CONDITIONS, dense, HALF, 6, OperationStopwatch())
        assert found.dense is not None
        assert found.speed_up is not None
        ratio = found.dense.median / found.latency.median
        assert found.speed_up.median == pytest.approx(ratio)
        assert 1.0 < ratio < 2.0
        assert found.promised == pytest.approx(2.0)
        assert found.realised == pytest.approx(ratio / 2.0)
        values = found.to_json()
        assert values["realised"] == found.realised
        assert values["conditions"]["length"] == 8

    def test_slow_moments_that_meet_both_leave_the_ratio_alone(self) -> None:
        """Each round is slower than the one before; two calls a round, after the warm-up."""
        dense = build_classifier("bert")
        model = compact(dense, HALF)
        calm = measure_latency(model, CONDITIONS, dense, HALF, 8, OperationStopwatch())
        drift = OperationStopwatch(lambda call: 1.3 ** (call // 2))
        busy = measure_latency(model, CONDITIONS, dense, HALF, 8, drift)
        assert calm.speed_up is not None
        assert busy.speed_up is not None
        assert busy.latency.median > 2 * calm.latency.median
        assert busy.speed_up.median == pytest.approx(calm.speed_up.median)
        assert busy.speed_up.high == pytest.approx(busy.speed_up.low)

    def test_promise(self) -> None:
        dense = build_classifier("bert")
        assert promise_speed_up(dense, Mask.dense(SHAPE), 8) == 1.0
        assert promise_speed_up(dense, keep_evenly(SHAPE, 1, 5), 8) == pytest.approx(4.0)
        assert promise_speed_up(dense, keep_evenly(SHAPE, 0, 0), 8) is None
