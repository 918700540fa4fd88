"""Latency tables small enough to compute by hand."""

from __future__ import annotations

from typing import Any

from distprune.core.latency_table import (
    Architecture,
    Conditions,
    LatencyTable,
    LayerLatencies,
    Machine,
)
from distprune.core.units import EncoderShape

CONDITIONS = Conditions(batch=1, length=128, threads=1)
MACHINE = Machine("Fast 9000", ("avx2",), 2)
SHAPE = EncoderShape(num_layers=2, num_heads=4, num_neurons=20, hidden_size=24, head_size=6)
ARCHITECTURE = Architecture("bert", SHAPE)


def make_latencies(**changes: Any) -> LayerLatencies:
    """Make a layer of 4 heads and 20 neurons: 1 + heads + neurons / 10 ms, and 5 ms outside."""
    values: dict[str, Any] = {
        "conditions": CONDITIONS,
        "heads": (0, 2, 4),
        "attention": (0.0, 0.002, 0.004),
        "neurons": (0, 10, 20),
        "ffn": (0.0, 0.001, 0.002),
        "constant": 0.001,
        "rest": 0.005,
    }
    return LayerLatencies(**{**values, **changes})


def make_table(*latencies: LayerLatencies, **changes: Any) -> LatencyTable:
    """Make a table; without latencies it has those of `make_latencies`."""
    values: dict[str, Any] = {
        "machine": MACHINE,
        "architecture": ARCHITECTURE,
        "model": "tiny",
        "versions": {"torch": "2.0"},
        "latencies": latencies or (make_latencies(),),
    }
    return LatencyTable(**{**values, **changes})
