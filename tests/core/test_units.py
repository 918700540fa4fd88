"""Counts of an encoder: layers and heads are not the same thing."""

from __future__ import annotations

from distprune.core.units import EncoderShape, UnitKind


def test_counts_by_kind() -> None:
    shape = EncoderShape(num_layers=2, num_heads=5, num_neurons=7, hidden_size=30, head_size=6)
    assert [shape.units_per_layer(kind) for kind in (UnitKind.HEAD, UnitKind.NEURON)] == [5, 7]
    assert [shape.total(kind) for kind in (UnitKind.HEAD, UnitKind.NEURON)] == [10, 14]
