from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distprune.errors import DatasetError
from distprune.tasks.spec import TaskSpec
from distprune.tasks.splits import Rows, SplitPlan, apportion, draw_stratified, plan_splits

TWO = ("no", "yes")


def make_spec(**fields: Any) -> TaskSpec:
    return TaskSpec.model_validate({"dataset": "data.csv"} | fields)


def make_rows(count: int, first: int = 0, classes: int = 2) -> Rows:
    return Rows(np.arange(first, first + count), np.arange(count) % classes)


def texts_of(plan: SplitPlan, train: Rows, search: Rows, report: Rows) -> list[set[int]]:
    pairs = ((train, plan.train), (search, plan.search), (report, plan.report))
    return [set(rows.texts[indices].tolist()) for rows, indices in pairs]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.integers(0, 150), min_size=150, max_size=300),
    seed=st.integers(0, 1000),
    size=st.sampled_from([0.1, 0.2, 0.4, 12]),
)
def test_made_from_train(texts: list[int], seed: int, size: int | float) -> None:
    rows = Rows(np.asarray(texts), np.asarray(texts) % 2)
    spec = make_spec(search_size=size, report_size=size, split_seed=seed)
    if isinstance(size, float) and round(size * len(set(texts))) < 8:
        return
    plan = plan_splits(spec, rows, None, None, TWO)
    train, search, report = texts_of(plan, rows, rows, rows)
    assert not (train | report) & search
    assert not train & report
    assert train | search | report == set(texts)
    expected = size if isinstance(size, int) else round(size * len(set(texts)))
    assert len(plan.search) == len(plan.report) == expected
    total = len(plan.train) + len(plan.search) + len(plan.report)
    assert total + plan.dropped_from_train == len(texts)
    assert plan.dropped_from_search == 0
    again = plan_splits(spec, rows, None, None, TWO)
    for name in ("train", "search", "report"):
        np.testing.assert_array_equal(getattr(plan, name), getattr(again, name))
        assert (np.diff(getattr(plan, name)) > 0).all()


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.1, 0.9), seed=st.integers(0, 1000))
def test_classes_keep_their_share(share: float, seed: int) -> None:
    labels = (np.arange(400) < round(400 * share)).astype(int)
    plan = plan_splits(make_spec(split_seed=seed), Rows(np.arange(400), labels), None, None, TWO)
    exact = labels.mean()
    for name, size in (("search", 80), ("report", 80), ("train", 240)):
        indices = getattr(plan, name)
        assert len(indices) == size
        assert abs(labels[indices].sum() - size * exact) <= 2


def test_seed_decides() -> None:
    rows = make_rows(100)
    plans = [plan_splits(make_spec(split_seed=s), rows, None, None, TWO) for s in (0, 1)]
    assert plans[0].search.tolist() != plans[1].search.tolist()


def test_draws_are_pinned() -> None:
    plan = plan_splits(make_spec(search_size=8, report_size=8), make_rows(40), None, None, TWO)
    assert plan.report.tolist() == [0, 3, 11, 20, 23, 26, 30, 35]
    assert plan.search.tolist() == [6, 7, 8, 15, 24, 28, 29, 37]


def test_report_does_not_depend_on_search_or_limits() -> None:
    rows = make_rows(100)
    plain = plan_splits(make_spec(), rows, None, None, TWO)
    other = plan_splits(make_spec(search_size=10, train_limit=9), rows, None, None, TWO)
    np.testing.assert_array_equal(plain.report, other.report)


def test_given_splits_win_over_train_and_report_over_search() -> None:
    train, search, report = make_rows(60), make_rows(20, first=55), make_rows(20, first=73)
    spec = make_spec(dataset="x/y", search_split="dev", report_split="test")
    plan = plan_splits(spec, train, search, report, TWO)
    assert plan.dropped_from_train == 5
    assert plan.dropped_from_search == 2
    sets = texts_of(plan, train, search, report)
    assert [len(texts) for texts in sets] == [55, 18, 20]
    assert not sets[0] & sets[1]
    assert not sets[1] & sets[2]


@pytest.mark.parametrize("given_split", ["search", "report"])
def test_one_given_split_and_one_from_train(given_split: str) -> None:
    train, other = make_rows(100), make_rows(30, first=90)
    spec = make_spec(dataset="x/y", **{f"{given_split}_split": "validation"})
    roles = {"search": None, "report": None, given_split: other}
    plan = plan_splits(spec, train, roles["search"], roles["report"], TWO)
    sets = texts_of(plan, train, roles["search"] or train, roles["report"] or train)
    assert plan.dropped_from_train == 10
    assert sets[0] | sets[1] | sets[2] == set(range(120))
    assert sum(map(len, sets)) == 120
    assert len(getattr(plan, given_split)) == 30


def test_duplicates_inside_train_stay_together() -> None:
    rows = Rows(np.repeat(np.arange(50), 3), np.repeat(np.arange(50), 3) % 2)
    plan = plan_splits(make_spec(), rows, None, None, TWO)
    assert len(plan.search) == len(plan.report) == 10
    assert len(plan.train) == 90
    assert plan.dropped_from_train == 40


def test_limits_are_stratified_and_nested_in_the_split() -> None:
    labels = (np.arange(400) % 4 == 0).astype(int)
    rows = Rows(np.arange(400), labels)
    plain = plan_splits(make_spec(), rows, None, None, TWO)
    limits = {"train_limit": 100, "search_limit": 20, "report_limit": 40}
    plan = plan_splits(make_spec(**limits), rows, None, None, TWO)
    for name in ("train", "search", "report"):
        indices = getattr(plan, name)
        assert len(indices) == limits[f"{name}_limit"]
        assert set(indices) <= set(getattr(plain, name))
        assert labels[indices].sum() == len(indices) // 4
    assert plan.dropped_from_train == 0


def test_regression_is_drawn_at_random() -> None:
    rows = Rows(np.arange(100), np.linspace(0, 1, 100))
    plan = plan_splits(make_spec(report_limit=10), rows, None, None, None)
    assert [len(plan.train), len(plan.search), len(plan.report)] == [60, 20, 10]


@settings(max_examples=200)
@given(counts=st.lists(st.integers(1, 10**6), min_size=1, max_size=12), data=st.data())
def test_apportion(counts: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(counts)))
    shares = apportion(np.asarray(counts), total)
    assert shares.sum() == total
    assert (shares >= 0).all()
    assert (shares <= counts).all()
    if total >= len(counts):
        assert (shares >= 1).all()
    exact = np.asarray(counts) * (total / sum(counts))
    lifted = np.flatnonzero(exact < 1)
    assert (np.abs(shares - exact) <= 1 + len(lifted) + 1e-3).all()


def test_apportion_by_hand() -> None:
    assert apportion(np.asarray([5, 3, 2]), 5).tolist() == [3, 1, 1]
    assert apportion(np.asarray([98, 1, 1]), 10).tolist() == [8, 1, 1]


def test_draws_only_candidates() -> None:
    candidates = np.asarray([3, 5, 8, 13, 21, 34])
    drawn = draw_stratified(candidates, np.asarray([0, 0, 0, 1, 1, 1]), 4, [7])
    assert set(drawn) <= set(candidates)
    assert (drawn < 10).sum() == 2


@pytest.mark.parametrize(
    ("labels", "fields", "message"),
    [
        ([], {}, "split 'train' is empty; choose another split"),
        ([0, 1] * 10, {}, "search split: has 4 examples, must have at least 8; give more data"),
        ([0, 1] * 12, {"search_size": 8, "report_size": 9}, "train split: has 7 examples"),
        (
            [0, 1] * 10,
            {"report_size": 20},
            "report_size 20: leaves nothing to train on, as only 20",
        ),
        ([0, 1] * 10, {"search_size": 15, "report_size": 8}, "search_size 15: leaves nothing"),
        ([0] * 100, {}, "train split: class 'yes' has 0 examples, must have at least 2 of every"),
        ([0] * 97 + [1] * 3, {}, "train split: class 'yes' has 1 examples, must have at least 2"),
    ],
)
def test_refuses(labels: list[int], fields: dict[str, Any], message: str) -> None:
    rows = Rows(np.arange(len(labels)), np.asarray(labels, dtype=np.int64))
    with pytest.raises(DatasetError, match=message):
        plan_splits(make_spec(**fields), rows, None, None, TWO)


def test_refuses_a_given_split_without_a_class() -> None:
    report = Rows(np.arange(100, 120), np.zeros(20, dtype=np.int64))
    with pytest.raises(DatasetError, match="report split: class 'yes' has 0 examples, must have"):
        plan_splits(make_spec(dataset="x/y", report_split="t"), make_rows(80), None, report, TWO)


def test_refuses_one_class() -> None:
    with pytest.raises(DatasetError, match="train split: has 1 class, must have at least 2"):
        plan_splits(make_spec(), make_rows(60, classes=1), None, None, ("only",))


def test_refuses_constant_regression() -> None:
    rows = Rows(np.arange(60), np.full(60, 0.5))
    with pytest.raises(
        DatasetError, match=r"all its labels are 0\.5, must have two values at least"
    ):
        plan_splits(make_spec(), rows, None, None, None)
