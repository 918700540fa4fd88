"""The latency table: exact at its grid, monotone between, and refused where it does not hold."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.latency_table import (
    Conditions,
    LayerLatencies,
    Machine,
    PredictionError,
    locate_table,
    read_table,
    write_table,
)
from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.errors import ConfigError, MaskError, StorageError
from tests.core.latencies import (
    ARCHITECTURE,
    CONDITIONS,
    MACHINE,
    SHAPE,
    make_latencies,
    make_table,
)


def keep(heads: list[int], neurons: list[int]) -> Mask:
    """Keep the first heads and neurons of each layer."""
    return Mask(
        {
            UnitKind.HEAD: np.arange(4) < np.array(heads)[:, None],
            UnitKind.NEURON: np.arange(20) < np.array(neurons)[:, None],
        }
    )


@pytest.mark.parametrize(
    ("heads", "neurons", "ms"),
    [
        ([4, 4], [20, 20], 5 + 2 * (1 + 4 + 2)),
        ([0, 0], [0, 0], 5 + 2 * 1),
        ([2, 0], [10, 20], 5 + (1 + 2 + 1) + (1 + 0 + 2)),
        ([1, 3], [5, 15], 5 + (1 + 1 + 0.5) + (1 + 3 + 1.5)),
    ],
)
def test_by_hand(heads: list[int], neurons: list[int], ms: float) -> None:
    assert make_latencies().predict(keep(heads, neurons)) == pytest.approx(ms / 1e3)


def test_bend_of_the_grid() -> None:
    bent = make_latencies(attention=(0.0, 0.003, 0.004))
    times = [bent.predict_counts([heads], [0]) - 0.006 for heads in range(5)]
    assert times == pytest.approx([0.0, 0.0015, 0.003, 0.0035, 0.004])


@st.composite
def random_latencies(draw: st.DrawFn) -> LayerLatencies:
    heads = (0, *sorted(draw(st.sets(st.integers(1, 3)))), 4)
    neurons = (0, *sorted(draw(st.sets(st.integers(1, 19)))), 20)
    seconds = st.floats(0.0, 10.0)

    def rising(grid: tuple[int, ...]) -> tuple[float, ...]:
        return tuple(sorted(draw(st.lists(seconds, min_size=len(grid), max_size=len(grid)))))

    return LayerLatencies(
        CONDITIONS, heads, rising(heads), neurons, rising(neurons), draw(seconds), draw(seconds)
    )


@given(random_latencies())
def test_exact_at_every_grid_point(latencies: LayerLatencies) -> None:
    pairs = zip(latencies.heads, latencies.attention, strict=True)
    others = zip(latencies.neurons, latencies.ffn, strict=True)
    for (heads, attention), (neurons, ffn) in itertools.product(pairs, others):
        layer = latencies.constant + attention + ffn
        predicted = latencies.predict_counts([heads] * 3, [neurons] * 3)
        assert predicted == pytest.approx(latencies.rest + 3 * layer)


@given(random_latencies(), st.integers(0, 2**30))
def test_removing_units_never_raises_a_prediction(latencies: LayerLatencies, seed: int) -> None:
    generator = np.random.default_rng(seed)
    wide = {kind: generator.random((2, n)) < 0.8 for kind, n in zip(UnitKind, (4, 20), strict=True)}
    narrow = {kind: kept & (generator.random(kept.shape) < 0.8) for kind, kept in wide.items()}
    before, after = (latencies.predict(Mask(kept)) for kept in (wide, narrow))
    assert after <= before + 1e-12


def test_only_counts_matter() -> None:
    flipped = Mask({kind: keep([1, 3], [5, 15])[kind][:, ::-1] for kind in UnitKind})
    latencies = make_latencies()
    assert latencies.predict(flipped) == latencies.predict(keep([1, 3], [5, 15]))


@pytest.mark.parametrize("kind", UnitKind)
def test_mask_of_other_layers_is_refused(kind: UnitKind) -> None:
    mask = keep([4, 4], [20, 20])
    other = Mask({**mask.kept, kind: mask[kind][:, :-1]})
    units = mask[kind].shape[1]
    expected = f"mask: made for {units - 1} {kind}s a layer; the latency table has {units}; "
    with pytest.raises(MaskError, match=expected):
        make_latencies().predict(other)


@pytest.mark.parametrize(
    "change",
    [
        {"heads": (1, 2, 4)},
        {"heads": (0, 4, 2)},
        {"heads": (0, 2, 2)},
        {"heads": (0,), "attention": (0.0,)},
        {"heads": (0, 2.0, 4)},
        {"attention": (0.0, 0.002)},
        {"attention": (0.0, 0.003, 0.002)},
        {"attention": (-0.1, 0.002, 0.003)},
        {"ffn": (0.0, math.nan, 0.1)},
        {"ffn": (0.0, 0.1, math.inf)},
        {"ffn": (0.0, "1", 2.0)},
        {"constant": -1.0},
        {"rest": math.nan},
        {"rest": True},
    ],
    ids=str,
)
def test_values_that_no_measurement_gives(change: dict[str, Any]) -> None:
    (name, *_) = change
    with pytest.raises(ConfigError, match=f"^{name}: ") as caught:
        make_latencies(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True])
def test_conditions_are_whole_numbers(value: Any) -> None:
    with pytest.raises(ConfigError, match=f"batch: {value!r}; it must be a whole number above 0"):
        Conditions(value, 128, 1)


class TestSelect:
    """Which latencies of a table are meant."""

    LARGE = make_latencies(conditions=replace(CONDITIONS, batch=32), rest=0.1)
    TABLE = make_table(make_latencies(), LARGE)

    def test_the_only_ones_need_not_be_told(self) -> None:
        assert make_table().select() == make_latencies()

    def test_by_what_they_differ_in(self) -> None:
        assert self.TABLE.select(batch=32, threads=None) == self.LARGE
        mask = Mask.dense(SHAPE)
        assert self.TABLE.predict(mask, batch=32, length=128) == self.LARGE.predict(mask)

    def test_several(self) -> None:
        with pytest.raises(ConfigError, match=r"2 conditions fit \(1 x 128 .*say which batch"):
            self.TABLE.select(threads=1)

    @pytest.mark.parametrize("wanted", [{"threads": 2}, {"batch": 8}, {"length": 64}])
    def test_none(self, wanted: dict[str, int]) -> None:
        ((name, value),) = wanted.items()
        message = f"nothing was measured for {name} {value}; it has: 1 x 128 tokens, 1 thread, "
        with pytest.raises(ConfigError, match=message):
            self.TABLE.select(**wanted)

    def test_later_measurements_replace_earlier_ones(self) -> None:
        newer = make_latencies(rest=0.2)
        table = self.TABLE.include(newer)
        assert table.select(batch=1) == newer
        assert len(table.latencies) == 2


def test_other_architecture_is_refused() -> None:
    make_table().check_architecture(ARCHITECTURE)
    for other in (
        replace(ARCHITECTURE, model_type="roberta"),
        replace(ARCHITECTURE, shape=replace(SHAPE, num_layers=3)),
        replace(ARCHITECTURE, shape=replace(SHAPE, hidden_size=48, head_size=12)),
    ):
        with pytest.raises(ConfigError, match=r"measured of bert .*; this is .*; measure one"):
            make_table().check_architecture(other)


@pytest.mark.parametrize(
    "change",
    [{"processor": "Slow 1"}, {"features": ()}, {"cpus": 8}, {"accelerator": "Big GPU"}],
    ids=str,
)
def test_other_machine_is_refused(change: dict[str, Any]) -> None:
    make_table().check_machine(MACHINE, "--any-machine")
    other = replace(MACHINE, **change)
    with pytest.raises(ConfigError) as caught:
        make_table().check_machine(other, "--any-machine")
    message = str(caught.value)
    assert f"measured on {MACHINE}; this is {other}" in message
    assert message.endswith("or say --any-machine")
    assert "\n" not in message


class TestFile:
    """A table in a file, and files that are none."""

    def test_round_trip(self, tmp_path: Path) -> None:
        checked = make_latencies(error=PredictionError(0.02, 0.05, 8))
        table = make_table(checked, machine=Machine("P", ("avx2", "bf16"), 4, "GPU"))
        write_table(table, tmp_path / "new" / "latency.json")
        assert read_table(tmp_path / "new" / "latency.json") == table

    def test_folder_stands_for_its_file(self, tmp_path: Path) -> None:
        assert locate_table(tmp_path) == tmp_path / "latency.json"
        assert locate_table(tmp_path / "other.json") == tmp_path / "other.json"

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="does not exist; correct the path"):
            read_table(tmp_path / "nowhere.json")

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{}",
            "[1]",
            "null",
            '{"schema": "distprune.latency_table/2"}',
            "[" * 100_000,
            "\ufffd\x00",
        ],
        ids=["empty", "object", "list", "null", "schema", "deep", "bytes"],
    )
    def test_no_table(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "latency.json"
        path.write_text(text)
        self.check_refused(path)

    @pytest.mark.parametrize(
        ("path_to", "value"),
        [
            (("machine",), 3),
            (("machine", "cores"), 3),
            (("architecture", "shape"), {"num_layers": 3}),
            (("latencies", 0, "heads"), [0, "2", 4]),
            (("latencies", 0, "heads"), None),
            (("latencies", 0, "ffn"), [0, -1, 1]),
            (("latencies", 0, "rest"), math.nan),
            (("latencies", 0, "conditions", "batch"), "1"),
            (("latencies", 0, "error"), [1]),
            (("latencies",), 5),
        ],
        ids=str,
    )
    def test_damaged_value(self, path_to: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
        values = json.loads(make_table().to_json())
        node = values
        for part in path_to[:-1]:
            node = node[part]
        node[path_to[-1]] = value
        path = tmp_path / "latency.json"
        path.write_text(json.dumps(values))
        self.check_refused(path)

    def test_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "latency.json"
        with path.open("wb") as file:
            file.truncate(1 << 25)
        with pytest.raises(StorageError, match="33554432 bytes; no table is that large"):
            read_table(path)

    def check_refused(self, path: Path) -> None:
        with pytest.raises(StorageError) as caught:
            read_table(path)
        message = str(caught.value)
        assert message.startswith(f"latency table {path}: cannot be read (")
        assert "measure it again" in message
        assert "\n" not in message
        assert len(message) < 400 + len(str(path))
