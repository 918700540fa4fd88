"""What the benchmark makes of its measurements."""

from __future__ import annotations

import pytest

from scripts.benchmark.figures.trials import measure_growth
from scripts.benchmark.machine import parse_memory, parse_processor
from scripts.benchmark.processes import parse_shared_memory
from scripts.benchmark.results import Limit, Row, Values, format_table
from scripts.benchmark.spread import Spread, divide, fit_slope, summarise


def test_median_and_quartiles() -> None:
    assert summarise([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert summarise([7.0]) == Spread(7.0, 7.0, 7.0, 1)
    assert str(summarise([7.0])) == "7"
    assert str(summarise([1.0, 2.0, 3.0])) == "2 [1.5, 2.5]"


def test_ratios_are_taken_round_by_round() -> None:
    assert divide([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="shorter"):
        divide([1.0, 2.0], [1.0])


def test_slope() -> None:
    assert fit_slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) == pytest.approx(2.0)
    assert fit_slope([(1.0, 1.0), (1.0, 3.0)]) == 0.0


def test_growth_is_read_after_the_warm_up_and_before_the_end() -> None:
    warm_up = [(float(trials), 100.0 + trials) for trials in range(0, 200, 50)]
    flat = [(float(trials), 300.0 + 0.02 * trials) for trials in range(200, 1000, 50)]
    end = [(1000.0, 900.0), (1000.0, 50.0)]
    assert measure_growth([*warm_up, *flat, *end], 1000) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("sign", "value", "is_reached"), [("<=", 0.5, True), ("<=", 0.4, False), (">=", 0.5, True)]
)
def test_limits(sign: str, value: float, is_reached: bool) -> None:
    row = Row("a / b", summarise([0.5]), Limit(sign, value, "aim 1"))
    assert row.is_reached is is_reached
    (line,) = format_table([row]).splitlines()[2:]
    mark = "yes" if is_reached else "no"
    assert line == f"| a / b | 0.5 | {'≤' if sign == '<=' else '≥'} {value}, aim 1 | {mark} |"
    assert Values([row]).to_json()["rows"][0]["reached"] is is_reached


def test_what_the_system_tells() -> None:
    rollup = "00400000-7fff ---p 00000000 00:00 0 [rollup]\nRss:  9000 kB\nPss:    4096 kB\n"
    assert parse_shared_memory(rollup) == 4096 * 1024
    assert parse_shared_memory("") == 0
    assert parse_memory("MemFree: 1 kB\nMemTotal:  2048 kB\n") == 2
    assert parse_memory("") is None
    processor = parse_processor("model name\t: Fast 9\nflags\t\t: sse avx2 amx_bf16\n")
    assert processor == {"name": "Fast 9", "features": ["avx2", "amx_bf16"]}
