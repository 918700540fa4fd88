"""Prices, worked out by hand on the counts of the tiny checkpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.search.planned_trials import AskedStages, AskedTrial
from distprune.search.stage_prices import PriceList, combine_timings, price_study
from distprune.trial.request import StageRequest
from distprune.trial.stage_kinds import StageKind
from distprune.trial.stage_timing import StageTiming, Timings
from tests.search.synthetic import make_study
from tests.tiny_study import SHAPE

EVALUATE, DENSE = StageKind("evaluate"), StageKind("dense")
CONTEXT: Any = SimpleNamespace(
    shape=SHAPE,
    num_tokens=10.0,
    task=SimpleNamespace(counts={"train": 100, "search": 50, "report": 200}),
    rewinding_points=(0.0, 0.25, 0.5, 1.0),
)


def keep_first(heads: int, neurons: int) -> Mask:
    """Keep the first units of each layer."""
    counts = {UnitKind.HEAD: heads, UnitKind.NEURON: neurons}
    return Mask(
        {
            kind: np.tile(
                np.arange(SHAPE.units_per_layer(kind)) < counts[kind], (SHAPE.num_layers, 1)
            )
            for kind in UnitKind
        }
    )


HALF, QUARTER_GONE = keep_first(2, 10), keep_first(3, 15)
PRICES = PriceList(
    timings={
        EVALUATE: StageTiming(2.0, 0.5, 0.1, 0.06, 1000, 600),
        DENSE: StageTiming(3.0, 0.0, 0.2, 0.2, 500, 500),
    },
    context=CONTEXT,
    lengths={"train": 9, "search": 4, "report": 6},
    target=HALF,
    shared_slots=4,
)


def evaluate(mask: Mask, split: str = "search", weights: str = "w") -> StageRequest:
    return StageRequest("evaluate", {"mask": mask.pack(), "split": split}, {"weights": weights})


@pytest.mark.parametrize(
    ("mask", "example_s", "num_bytes"),
    [(Mask.dense(SHAPE), 0.1, 1000), (QUARTER_GONE, 0.08, 800), (HALF, 0.06, 600)],
    ids=["dense", "between", "target"],
)
def test_price_lies_between_the_dense_and_the_compact_model(
    mask: Mask, example_s: float, num_bytes: float
) -> None:
    """Half of the units of the target's are gone, and so half of its multiply-accumulates."""
    priced = PRICES.price(evaluate(mask))
    assert priced.seconds == pytest.approx(2.0 + 4 * 0.5 + 50 * example_s)
    assert priced.num_bytes == pytest.approx(num_bytes)
    assert (priced.stage, priced.kind, priced.slots) == ("evaluate", "evaluate", 1)


def test_report_split_is_another_stage_with_its_own_examples() -> None:
    request = evaluate(HALF)
    report = PRICES.price_report(request)
    assert report.key == evaluate(HALF, "report").key != request.key
    assert report.seconds == pytest.approx(2.0 + 6 * 0.5 + 200 * 0.06)


def test_dense_stage_takes_shared_cores_and_stores_its_snapshots() -> None:
    recipe = {"steps": None, "epochs": 3.0, "batch_size": 32}
    priced = PRICES.price(StageRequest("dense", {"recipe": recipe}, is_shared=True))
    assert priced.seconds == pytest.approx(3.0 + 300 * 0.2)
    assert (priced.slots, priced.num_bytes) == (4, 3 * 500)


def test_levels_know_their_milestones() -> None:
    """Linear to 0.6 in three levels, milestones at 0.3 and 0.6: the second level reaches 0.3."""
    study = make_study()
    spec = study.make_trial({"pruning.schedule.shape": "linear", "pruning.schedule.levels": 3})
    levels = tuple((evaluate(HALF, weights=str(number)),) for number in range(4))
    asked = AskedStages(spec, (evaluate(Mask.dense(SHAPE)),), ((AskedTrial(spec, 0.5, levels),),))
    (study_planned,) = price_study(asked, PRICES, (0.3, 0.6))
    (planned,) = study_planned.trials
    assert study_planned.qualities == (0.5,)
    assert [level.milestones for level in planned] == [(), (), (1,), (2,)]
    assert [level.levels_left for level in planned] == [2, 2, 1, 1]
    assert len({level.report.key for level in planned}) == 4


def test_one_shot_reaches_all_milestones_at_once() -> None:
    spec = make_study().make_trial({"pruning.schedule.shape": "one_shot"})
    levels = tuple((evaluate(HALF, weights=str(number)),) for number in range(2))
    asked = AskedStages(spec, (evaluate(Mask.dense(SHAPE)),), ((AskedTrial(spec, 0.5, levels),),))
    ((planned,),) = (one.trials for one in price_study(asked, PRICES, (0.2, 0.4, 0.6)))
    assert [level.milestones for level in planned] == [(), (1, 2, 3)]


def test_median_of_processes_and_the_slowest_start_count() -> None:
    def timed(seconds: float, start_s: float) -> Timings:
        return Timings(
            {EVALUATE: StageTiming(seconds, 1.0 / seconds, 1.0, 1.0, 7, 5)}, start_s, seconds
        )

    combined = combine_timings([timed(1.0, 9.0), timed(5.0, 0.0), timed(2.0, 1.0)])
    assert combined.kinds[EVALUATE].fixed_s == 2.0
    assert combined.kinds[EVALUATE].length_s == 0.5
    assert (combined.start_s, combined.total_s) == (9.0, 5.0)
