"""Latency, measured: a model beside its dense form, in turn, so that both meet the same machine.

Inference as in serving: evaluation mode, no gradients, sequences of full length without padding.
Before each timed call that is short the same model runs once untimed, so that it finds the caches
as its own calls leave them and not as those of the other model.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distprune.core.anatomy import describe_anatomy
from distprune.core.cost import encoder_cost
from distprune.core.latency_table import Conditions
from distprune.core.mask import Mask
from distprune.core.median_interval import MedianInterval, estimate_median
from distprune.deployment.example_batches import FIRST_TOKEN, takes_token_types
from distprune.errors import ConfigError

WARM_UP_ROUNDS = 3
ROUNDS = 20

PRIMED_BELOW_S = 0.1
"""Longer calls are not run untimed before: weights come from memory in a fraction of that."""

Action = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)


class Stopwatch(Protocol):
    """Times actions on one kind of device."""

    def time(self, action: Action) -> Callable[[], float]:
        """Run an action; return what tells its seconds after `synchronise`."""

    def synchronise(self) -> None:
        """Wait until all actions have ended."""


class ProcessorStopwatch:
    """Times actions that have ended when they return."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock

    def time(self, action: Action) -> Callable[[], float]:
        """Run an action between two looks at the clock."""
        started = self._clock()
        action()
        elapsed = self._clock() - started
        return lambda: elapsed

    def synchronise(self) -> None:
        """Do nothing; there is nothing to wait for."""


class CudaStopwatch:
    """Times actions on a GPU by events in its stream; nobody waits between actions."""

    def time(self, action: Action) -> Callable[[], float]:
        """Run an action between two events."""
        event: Any = torch.cuda.Event
        started, ended = event(enable_timing=True), event(enable_timing=True)
        started.record()
        action()
        ended.record()
        return lambda: float(started.elapsed_time(ended)) / 1e3

    def synchronise(self) -> None:
        """Wait for the GPU."""
        torch.cuda.synchronize()


@dataclass(frozen=True)
class LatencyComparison:
    """The measured latency of a model, beside its dense form where that is known.

    Attributes:
        conditions: Batch, length, threads, dtype, device.
        latency: Seconds of the model.
        dense: Seconds of its dense form; None = it is unknown, or the model is dense.
        speed_up: dense / model, by rounds.
        promised: Speed-up of the encoder if time went by MACs.
    """

    conditions: Conditions
    latency: MedianInterval
    dense: MedianInterval | None = None
    speed_up: MedianInterval | None = None
    promised: float | None = None

    @property
    def realised(self) -> float | None:
        """Measured speed-up / promised by MACs."""
        if self.speed_up is None or self.promised is None:
            return None
        return self.speed_up.median / self.promised

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values; times are in seconds."""
        return {**asdict(self), "realised": self.realised}


def measure_latency(
    model: Any,
    conditions: Conditions,
    dense: Any | None = None,
    mask: Mask | None = None,
    rounds: int = ROUNDS,
    stopwatch: Stopwatch | None = None,
) -> LatencyComparison:
    """Time a model, in turn with its dense form where that is given.

    Args:
        model: A transformers model; not modified.
        conditions: What to measure under.
        dense: Its dense form.
        mask: The mask that made `model` of `dense`, for the speed-up that MACs promise.
        rounds: Timed rounds; each times each model once, in alternating order.
        stopwatch: None = that of the device.

    Raises:
        ConfigError: The conditions cannot be measured, or there are too few rounds.
    """
    models = {"model": model} if dense is None else {"dense": dense, "model": model}
    seconds = time_models(models, conditions, rounds, stopwatch)
    if dense is None:
        return LatencyComparison(conditions, estimate_median(seconds["model"].tolist()))
    promised = None if mask is None else promise_speed_up(dense, mask, conditions.length)
    return compare_rounds(seconds, conditions, promised)


def compare_rounds(
    seconds: Mapping[str, NDArray[np.float64]], conditions: Conditions, promised: float | None
) -> LatencyComparison:
    """Compare the rounds of `model` with those of `dense`, pair by pair.

    Args:
        seconds: Seconds of each round by these two names.
        conditions: What they were measured under.
        promised: Speed-up that MACs promise; None = not known.
    """
    return LatencyComparison(
        conditions,
        estimate_median(seconds["model"].tolist()),
        estimate_median(seconds["dense"].tolist()),
        estimate_median((seconds["dense"] / seconds["model"]).tolist()),
        promised,
    )


def promise_speed_up(dense: Any, mask: Mask, length: int) -> float | None:
    """Return dense / kept MACs of the encoder; None where none are kept."""
    shape = describe_anatomy(dense).shape()
    before, after = (encoder_cost(shape, m, length).macs for m in (Mask.dense(shape), mask))
    return before / after if after > 0 else None


def time_models(
    models: Mapping[Name, Any],
    conditions: Conditions,
    rounds: int,
    stopwatch: Stopwatch | None = None,
) -> dict[Name, NDArray[np.float64]]:
    """Return the seconds of each round by model; the models are not modified.

    Raises:
        ConfigError: The conditions cannot be measured.
    """
    for model in models.values():
        check_conditions(model, conditions)
    with computing(conditions):
        forwards = {name: make_forward(model, conditions) for name, model in models.items()}
        return time_in_turn(forwards, rounds, stopwatch or choose_stopwatch(conditions.device))


def time_in_turn(
    actions: Mapping[Name, Action],
    rounds: int,
    stopwatch: Stopwatch,
    warm_up: int = WARM_UP_ROUNDS,
) -> dict[Name, NDArray[np.float64]]:
    """Time each action once a round, so that a slow moment of the machine meets all of them.

    Args:
        actions: What to time, by name; in every second round in reverse order.
        rounds: Timed rounds.
        stopwatch: Times one action.
        warm_up: Rounds before them that do not count; one at least.

    Returns:
        Seconds of each round by name.
    """
    for _ in range(warm_up):
        first = {name: stopwatch.time(action) for name, action in actions.items()}
    stopwatch.synchronise()
    primed = {name for name, read in first.items() if read() < PRIMED_BELOW_S}
    readings: dict[Name, list[Callable[[], float]]] = {name: [] for name in actions}
    for number in range(rounds):
        for name in list(actions) if number % 2 == 0 else reversed(list(actions)):
            if name in primed:
                actions[name]()
            readings[name].append(stopwatch.time(actions[name]))
    stopwatch.synchronise()
    return {name: np.array([read() for read in reads]) for name, reads in readings.items()}


def make_forward(model: Any, conditions: Conditions) -> Action:
    """Return what runs a model on one batch; the model itself is not modified.

    `bfloat16` is that of the weights, as a model is served, not autocast.
    """
    dtype = getattr(torch, conditions.dtype)
    parameter = next(model.parameters())
    is_ready = parameter.dtype == dtype and parameter.device.type == conditions.device
    if not is_ready or model.training:
        model = copy.deepcopy(model).to(device=conditions.device, dtype=dtype).eval()
    batch = draw_full_batch(model, conditions)
    return lambda: model(**batch)


def draw_full_batch(model: Any, conditions: Conditions) -> dict[str, Tensor]:
    """Draw random tokens without padding, on the device.

    Returns:
        `input_ids` and `attention_mask`, [batch, length], and `token_type_ids` where the model
        takes them.
    """
    config = model.config
    first = min(FIRST_TOKEN, config.vocab_size - 1)
    shape = (conditions.batch, conditions.length)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(first, config.vocab_size, shape, generator=generator)
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if takes_token_types(model):
        batch["token_type_ids"] = torch.zeros_like(tokens)
    return {name: tensor.to(conditions.device) for name, tensor in batch.items()}


@contextmanager
def computing(conditions: Conditions) -> Iterator[None]:
    """Compute inside the block with the conditions' threads, and without gradients."""
    before = torch.get_num_threads()
    torch.set_num_threads(conditions.threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def choose_stopwatch(device: str) -> Stopwatch:
    """Return the stopwatch of a device."""
    return CudaStopwatch() if device == "cuda" else ProcessorStopwatch()


def check_conditions(model: Any, conditions: Conditions) -> None:
    """Check that a model can be measured under these conditions.

    Raises:
        ConfigError: The sequences are too long for it, or there is no such device.
    """
    positions = count_positions(model)
    if positions is not None and conditions.length > positions:
        raise ConfigError(
            f"length: {conditions.length} tokens; the model takes {positions} at most; lower it"
        )
    if conditions.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: 'cuda' and torch finds no GPU; use cpu")


def count_positions(model: Any) -> int | None:
    """Count the positions that a model embeds; None = it has no limit of that kind."""
    embeddings = describe_anatomy(model).embeddings
    table = getattr(embeddings, "position_embeddings", None)
    if table is None:
        return None
    # RoBERTa's positions begin after its padding token's.
    return int(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
