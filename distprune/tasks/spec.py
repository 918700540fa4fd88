"""What a task is: which data, which columns, how they are split and scored.

A `TaskSpec` is a value that a study file holds; it touches neither disk nor network.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from distprune.tasks.metrics import METRICS, MetricName, TaskKind

DEMO_PREFIX = "demo:"
DEMO_DOMAINS = ("movies", "amazon", "tweets", "nyt")
LOCAL_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


def _refuse_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {value}")
    return value


Size = Annotated[int | float, BeforeValidator(_refuse_boolean)]
Limit = Annotated[int | None, BeforeValidator(_refuse_boolean)]


class TaskSpec(BaseModel):
    """A text classification or regression task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field(
        description="demo:movies, demo:amazon, demo:tweets or demo:nyt; the id of a dataset on "
        "the Hugging Face hub; or a local .csv, .tsv, .json, .jsonl or .parquet file or a folder "
        "written by save_to_disk. A local file is one split named train."
    )
    config: str | None = Field(
        default=None, description="Configuration of a hub dataset, for instance sst2 of glue."
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit of a hub dataset; None is its main branch."
    )
    text: str = Field(default="text", description="Column of the text.")
    text_pair: str | None = Field(
        default=None, description="Column of the second text, where an example is a pair of texts."
    )
    label: str = Field(default="label", description="Column of the label.")
    kind: Literal["auto"] | TaskKind = Field(
        default="auto",
        description="auto: a column of floats is regression, everything else classification.",
    )
    metric: Literal["auto"] | MetricName = Field(
        default="auto",
        description="auto: accuracy for classification, pearson_spearman (the mean of both) for "
        "regression. f1 is that of class 1 for two classes and the macro average for more.",
    )
    max_length: int = Field(
        default=128, ge=8, le=8192, description="Tokens of an example, 8 to 8192; more are cut off."
    )
    train_split: str = Field(default="train", description="Split of the source to train on.")
    search_split: str | None = Field(
        default=None,
        description="Split of the source that decisions are made on; None takes search_size out "
        "of the train split.",
    )
    report_split: str | None = Field(
        default=None,
        description="Split of the source for the final figures only; None takes report_size out "
        "of the train split.",
    )
    search_size: Size = Field(
        default=0.2,
        description="Size of a search split made from train: a fraction of its distinct examples "
        "in (0, 1), or a whole number of examples.",
    )
    report_size: Size = Field(
        default=0.2,
        description="Size of a report split made from train: a fraction of its distinct examples "
        "in (0, 1), or a whole number of examples.",
    )
    train_limit: Limit = Field(
        default=None, ge=8, description="At most so many examples to train on, drawn by class."
    )
    search_limit: Limit = Field(
        default=None, ge=8, description="At most so many examples to search on, drawn by class."
    )
    report_limit: Limit = Field(
        default=None, ge=8, description="At most so many examples to report on, drawn by class."
    )
    split_seed: int = Field(
        default=0, ge=0, description="Seed of splits and limits; independent of training seeds."
    )

    @field_validator("dataset")
    @classmethod
    def _check_dataset(cls, value: str) -> str:
        if value.startswith(DEMO_PREFIX):
            if value.removeprefix(DEMO_PREFIX) not in DEMO_DOMAINS:
                choices = ", ".join(DEMO_PREFIX + domain for domain in DEMO_DOMAINS)
                raise ValueError(f"{value!r} is no demo dataset; choose one of {choices}")
        elif not value.strip() or re.match(r"^\w[\w+.-]+://", value):
            raise ValueError(
                f"{value!r} must be demo:NAME, the id of a hub dataset or a local path; "
                "download remote files first"
            )
        return value

    @field_validator("text", "text_pair", "label", "train_split", "search_split", "report_split")
    @classmethod
    def _check_name(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError(f"{value!r} must be a name; leave the field out for its default")
        return value

    @field_validator("search_size", "report_size")
    @classmethod
    def _check_size(cls, value: int | float) -> int | float:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError(
                f"{value} must be a fraction between 0 and 1; for a count write a whole number"
            )
        if isinstance(value, int) and value < 8:
            raise ValueError(f"{value} must be at least 8 examples; for a fraction write 0.x")
        return value

    @model_validator(mode="after")
    def _check_columns(self) -> "TaskSpec":
        columns = [name for name in (self.text, self.text_pair, self.label) if name is not None]
        if len(set(columns)) < len(columns):
            raise ValueError(
                f"text {self.text!r}, text_pair {self.text_pair!r} and label {self.label!r} must "
                "be different columns; name the column of each"
            )
        return self

    @model_validator(mode="after")
    def _check_splits(self) -> "TaskSpec":
        named = {"train_split": self.train_split, "search_split": self.search_split}
        named["report_split"] = self.report_split
        splits = [name for name in named.values() if name is not None]
        if len(set(splits)) < len(splits):
            listed = ", ".join(f"{field} {name!r}" for field, name in named.items() if name)
            raise ValueError(
                f"{listed} must be different splits, else scores are measured on what was "
                "trained or chosen on; leave one out to make it from train"
            )
        made = self.search_split is None and self.report_split is None
        sizes = (self.search_size, self.report_size)
        if made and all(isinstance(size, float) for size in sizes) and sum(sizes) >= 1:
            raise ValueError(
                f"search_size {sizes[0]} + report_size {sizes[1]} must be below 1 to leave "
                "examples to train on; make them smaller"
            )
        return self

    @model_validator(mode="after")
    def _check_metric(self) -> "TaskSpec":
        if self.kind != "auto" and self.metric != "auto":
            expected = METRICS[self.metric].kind
            if expected != self.kind:
                raise ValueError(
                    f"metric {self.metric!r} scores {expected} and kind is {self.kind!r}; "
                    "change one of them or set it to auto"
                )
        return self

    @model_validator(mode="after")
    def _check_hub_fields(self) -> "TaskSpec":
        given = [name for name in ("config", "revision") if getattr(self, name) is not None]
        is_demo = self.dataset.startswith(DEMO_PREFIX)
        if given and (is_demo or self.dataset.lower().endswith(LOCAL_SUFFIXES)):
            raise ValueError(
                f"{' and '.join(given)} belong to hub datasets and dataset is {self.dataset!r}; "
                "remove them"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the source that the task reads: text, the second text if any, label."""
        pair = () if self.text_pair is None else (self.text_pair,)
        return (self.text, *pair, self.label)
