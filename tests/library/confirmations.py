"""A confirmation, made up."""

from __future__ import annotations

from typing import Any

from distprune.library.confirmation import Arm, Confirmation, ConfirmedMask, Difference


def make_difference(estimate: float, low: float, high: float, num_seeds: int = 3) -> Difference:
    return Difference(estimate, low, high, 0.983, num_seeds)


def make_arm(
    name: str, *metrics: float, difference: Difference | None = None, **options: Any
) -> Arm:
    values: dict[str, Any] = {"heads": 36, "neurons": 100, "note": ""}
    return Arm(name=name, metrics=metrics, difference=difference, **(values | options))


def make_mask(**options: Any) -> ConfirmedMask:
    values: dict[str, Any] = {
        "milestones": (0.3, 0.5),
        "trial": 4,
        "level": 2,
        "search_metric": 0.84,
        "report_metric": 0.82,
        "training": "trained once from the pre-trained weights",
        "seeds": (1, 2, 3),
        "arms": (
            make_arm("best", 0.80, 0.81, 0.82),
            make_arm("dense", 0.83, 0.84, 0.83, difference=make_difference(-0.02, -0.03, -0.01)),
            make_arm("random", 0.78, 0.79, 0.80, difference=make_difference(0.021, 0.015, 0.027)),
            make_arm("lambda_0", 0.80, 0.80, 0.82, difference=make_difference(0.003, -0.004, 0.01)),
            make_arm("magnitude", note="same mask as the best"),
            make_arm("inverted", heads=None, neurons=None, note="does not fit: too few removed"),
        ),
    }
    return ConfirmedMask(**(values | options))


def make_confirmation(**options: Any) -> Confirmation:
    values: dict[str, Any] = {
        "study": "mine",
        "metric": "accuracy",
        "higher_is_better": True,
        "most_seeds": 5,
        "looks": (3, 4, 5),
        "confidence": 1 - 0.05 / 3,
        "resamples": 5000,
        "examples": 4000,
        "masks": (make_mask(),),
    }
    return Confirmation(**(values | options))
