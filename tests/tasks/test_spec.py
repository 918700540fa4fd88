import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from distprune.tasks.spec import TaskSpec


def test_defaults_make_both_splits_from_train() -> None:
    spec = TaskSpec(dataset="demo:movies")
    assert (spec.search_split, spec.report_split) == (None, None)
    assert (spec.search_size, spec.report_size, spec.max_length) == (0.2, 0.2, 128)
    assert spec.columns == ("text", "label")


def test_columns_of_a_pair() -> None:
    spec = TaskSpec(dataset="nyu-mll/glue", config="mrpc", text="sentence1", text_pair="sentence2")
    assert spec.columns == ("sentence1", "sentence2", "label")


def test_sizes_keep_their_type() -> None:
    spec = TaskSpec.model_validate({"dataset": "a.csv", "search_size": 100, "report_size": 0.5})
    assert isinstance(spec.search_size, int)
    assert isinstance(spec.report_size, float)


def test_is_frozen_and_round_trips() -> None:
    spec = TaskSpec(dataset="a.csv", train_limit=64)
    with pytest.raises(ValidationError, match="frozen"):
        spec.train_limit = 3  # type: ignore[misc]
    assert TaskSpec.model_validate_json(spec.model_dump_json()) == spec


def test_every_field_is_described() -> None:
    assert [name for name, field in TaskSpec.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "demo:films"}, "'demo:films' is no demo dataset; choose one of demo:movies"),
        ({"dataset": " "}, "must be demo:NAME"),
        ({"dataset": "s3://bucket/a.csv"}, "download remote files first"),
        ({"search_size": 1.0}, "1.0 must be a fraction between 0 and 1; for a count write"),
        ({"report_size": 0.0}, "0.0 must be a fraction between 0 and 1"),
        ({"report_size": float("nan")}, "nan must be a fraction"),
        ({"search_size": 7}, "7 must be at least 8 examples; for a fraction write 0.x"),
        ({"search_size": True}, "must be a number, not True"),
        ({"train_limit": True}, "must be a number, not True"),
        ({"search_size": 0.5, "report_size": 0.5}, "must be below 1 to leave examples"),
        ({"text": "label"}, "must be different columns; name the column of each"),
        ({"text_pair": "text"}, "must be different columns"),
        ({"text": ""}, "'' must be a name; leave the field out"),
        ({"search_split": "train"}, "must be different splits"),
        ({"search_split": "dev", "report_split": "dev"}, "leave one out to make it from train"),
        ({"kind": "regression", "metric": "f1"}, "'f1' scores classification and kind is"),
        ({"dataset": "demo:nyt", "config": "x"}, "config belong to hub datasets"),
        ({"dataset": "a.csv", "revision": "x"}, "revision belong to hub datasets"),
        ({"max_length": 7}, "greater than or equal to 8"),
        ({"max_length": 8193}, "less than or equal to 8192"),
        ({"train_limit": 7}, "greater than or equal to 8"),
        ({"split_seed": -1}, "greater than or equal to 0"),
        ({"metrics": "f1"}, "Extra inputs are not permitted"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TaskSpec.model_validate({"dataset": "data.csv"} | fields)


def test_sizes_may_exceed_one_where_a_split_exists() -> None:
    spec = TaskSpec(dataset="x/y", report_split="validation", search_size=0.6, report_size=0.6)
    assert spec.search_size == 0.6


def test_package_imports_light() -> None:
    heavy = ["torch", "transformers", "datasets", "sklearn", "scipy", "pyarrow", "pandas"]
    code = f"import sys, distprune.tasks; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
