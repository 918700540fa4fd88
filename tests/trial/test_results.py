import json

import pytest

from distprune.errors import MaskError
from distprune.trial.results import LevelResult, MilestoneReport
from tests.trial.results import make_result


def test_a_level_survives_json() -> None:
    for level in (0, 3):
        result = make_result(level, 0.1 * level, 1 / 3)
        read = LevelResult.from_json(json.loads(json.dumps(result.to_json())))
        assert read == result
        assert read.lineage.evidence == result.lineage.evidence


def test_a_report_survives_json() -> None:
    report = MilestoneReport(
        milestone=2,
        sparsity=0.2,
        retention=0.75,
        objective=0.8,
        metric=0.81,
        level=3,
        new_levels=(make_result(2, 0.1, 0.9), make_result(3, 0.3, 0.81)),
    )
    assert MilestoneReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_damaged_mask_is_refused() -> None:
    values = make_result(1, 0.1, 0.5).to_json() | {"mask": "1x10:AA|nonsense"}
    with pytest.raises(MaskError, match="packed mask"):
        LevelResult.from_json(values)
