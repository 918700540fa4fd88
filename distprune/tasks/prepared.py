"""A task on disk, ready to train on: tokenised splits in Arrow and the facts about them.

It is written once and memory-mapped by everyone who trains on it.
"""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from distprune.errors import DatasetError
from distprune.tasks.metrics import Metric, MetricName, TaskKind, constant_floor, resolve_metric
from distprune.tasks.spec import TaskSpec
from distprune.tasks.splits import SPLIT_NAMES

if TYPE_CHECKING:
    import datasets
    import transformers

    from distprune.tasks.examples import DividedTask

FACTS_FILE = "facts.json"
SplitName = Literal["train", "search", "report"]


class TaskFacts(BaseModel):
    """What there is to know about a prepared task.

    Attributes:
        kind: classification or regression.
        num_labels: outputs of a model for it: the number of classes, or 1 for regression.
        label_names: names of the classes in order; empty for regression.
        metric: name of the metric that models are compared by.
        higher_is_better: the direction of that metric.
        counts: examples of each split.
        floors: metric of the constant predictor on search and on report.
        mean_tokens: tokens of an example of each split, on average.
        duplicates_dropped: rows of train and of search left out because report (or search) has
            their text.
        source_fingerprint: hex SHA-256 of the content of the source.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: TaskKind
    num_labels: int
    label_names: tuple[str, ...]
    metric: MetricName
    higher_is_better: bool
    counts: dict[str, int]
    floors: dict[str, float]
    mean_tokens: dict[str, float]
    duplicates_dropped: dict[str, int]
    source_fingerprint: str


@dataclass(frozen=True)
class PreparedTask:
    """A task that `prepare` wrote.

    Attributes:
        folder: where it is.
        facts: what there is to know about it.
    """

    folder: Path
    facts: TaskFacts

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a prepared task; splits are mapped when asked for.

        Raises:
            DatasetError: if the folder holds no prepared task, or a damaged one.
        """
        path = folder / FACTS_FILE
        try:
            facts = TaskFacts.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            cause = " ".join(str(error).split())[:200]
            raise DatasetError(
                f"prepared task {folder}: {FACTS_FILE} cannot be read ({cause}); prepare it again"
            ) from error
        return cls(folder, facts)

    @property
    def metric(self) -> Metric:
        """The metric that models of this task are compared by."""
        return resolve_metric(self.facts.metric, self.facts.kind)

    def split(self, name: SplitName) -> "datasets.Dataset":
        """Map one split from disk.

        Args:
            name: train, search or report.

        Returns:
            Columns input_ids, attention_mask, token_type_ids (if the tokenizer makes them),
            labels; not padded.

        Raises:
            DatasetError: if the split is damaged.
        """
        import datasets

        if name not in SPLIT_NAMES:
            raise ValueError(f"split {name!r}: must be one of {', '.join(SPLIT_NAMES)}")
        try:
            return datasets.load_from_disk(str(self.folder / name))
        except Exception as error:  # damaged files fail in many ways inside datasets and pyarrow
            raise DatasetError(
                f"prepared task {self.folder}: split {name} cannot be read "
                f"({' '.join(str(error).split())[:200]}); prepare it again"
            ) from error


def prepare(
    spec: TaskSpec,
    tokenizer: "transformers.PreTrainedTokenizerBase",
    folder: Path,
    vocabulary_size: int | None = None,
) -> None:
    """Load, split and tokenise a task and write it for `PreparedTask.open`.

    The facts are written last: a folder with facts is complete.

    Args:
        spec: the task.
        tokenizer: the tokenizer of the checkpoint.
        folder: where to write; made if it does not exist.
        vocabulary_size: rows of the checkpoint's embedding table; if given, ids are checked.

    Raises:
        DatasetError: if the data cannot be had or used.
        CheckpointError: if the tokenizer does not fit the checkpoint.
        ConfigError: if the metric does not fit the labels, or `max_length` the tokenizer.
    """
    from distprune.tasks.examples import divide_task
    from distprune.tasks.sources import load_source, quiet_datasets, source_fingerprint
    from distprune.tasks.tokens import check_tokenizer

    check_tokenizer(spec, tokenizer, vocabulary_size)
    source = load_source(spec)
    fingerprint = source_fingerprint(spec, source)
    task = divide_task(spec, source)
    metric = resolve_metric(spec.metric, task.encoding.kind)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_datasets():
        mean_tokens = _write_splits(spec, task, tokenizer, folder, vocabulary_size)
    facts = _gather_facts(task, metric, mean_tokens, fingerprint)
    (folder / FACTS_FILE).write_text(facts.model_dump_json(indent=2) + "\n")


def _write_splits(
    spec: TaskSpec,
    task: "DividedTask",
    tokenizer: "transformers.PreTrainedTokenizerBase",
    folder: Path,
    vocabulary_size: int | None,
) -> dict[str, float]:
    """Write the Arrow files of all splits and return their mean numbers of tokens."""
    from distprune.tasks.tokens import measure_tokens, tokenise

    mean_tokens = {}
    for name, examples in task.splits.items():
        # A name given by us: datasets would hash the tokenizer, or draw a random one.
        label = hashlib.sha256(f"{name}:{spec.model_dump_json()}".encode()).hexdigest()[:16]
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as scratch:
            scratch_file = Path(scratch) / "tokens.arrow"
            tokenised = tokenise(spec, examples, tokenizer, scratch_file, label)
            mean_tokens[name] = measure_tokens(tokenised, tokenizer, vocabulary_size)
            tokenised.save_to_disk(str(folder / name))
    return mean_tokens


def _gather_facts(
    task: "DividedTask", metric: Metric, mean_tokens: dict[str, float], fingerprint: str
) -> TaskFacts:
    labels = {name: examples.labels for name, examples in task.splits.items()}
    return TaskFacts(
        kind=task.encoding.kind,
        num_labels=task.encoding.num_labels,
        label_names=task.encoding.names,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        counts={name: len(values) for name, values in labels.items()},
        floors={
            name: constant_floor(metric, labels["train"], labels[name])
            for name in ("search", "report")
        },
        mean_tokens=mean_tokens,
        duplicates_dropped=task.duplicates_dropped,
        source_fingerprint=fingerprint,
    )
