"""Where the examples of a task come from: demo data, the Hugging Face hub or local files.

A source is loaded as it is, reduced to the splits and columns that the task names.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distprune.errors import DatasetError
from distprune.tasks.demo import fingerprint_demo, load_demo
from distprune.tasks.local import read_file, read_folder
from distprune.tasks.spec import DEMO_PREFIX, LOCAL_SUFFIXES, TaskSpec

if TYPE_CHECKING:
    import datasets

_BATCH_ROWS = 10_000

SourceKind = Literal["demo", "folder", "file", "hub"]


def load_source(spec: TaskSpec) -> "dict[str, datasets.Dataset]":
    """Load the splits and columns that a task names.

    Args:
        spec: the task; a local path may start with ~ or be relative to the working folder.

    Returns:
        Splits by their name in the source, with the columns of `spec.columns` only.

    Raises:
        DatasetError: if the data cannot be found, fetched or read, or lacks a split or a column.
    """
    kind = find_source_kind(spec)
    with quiet_datasets():
        if kind == "demo":
            splits = {"train": load_demo(spec.dataset.removeprefix(DEMO_PREFIX))}
        elif kind == "hub":
            splits = _load_hub(spec)
        elif kind == "folder":
            splits = read_folder(_local_path(spec))
        else:
            splits = {"train": read_file(_local_path(spec), spec.columns[:-1])}
        return {name: _select_columns(spec, splits, name) for name in _find_split_names(spec)}


def source_fingerprint(
    spec: TaskSpec, source: "Mapping[str, datasets.Dataset] | None" = None
) -> str:
    """Name the content of a task's source: equal data, equal name, in every process.

    It covers the bytes of a local file, the archive of a demo domain, and the rows (of the splits
    and columns that the task names) of a hub dataset or a folder written by save_to_disk.

    Args:
        spec: the task.
        source: what `load_source` returned for it; None loads it where its rows are needed.

    Returns:
        Hex SHA-256.

    Raises:
        DatasetError: as `load_source`.
    """
    kind = find_source_kind(spec)
    if kind == "demo":
        return fingerprint_demo(spec.dataset.removeprefix(DEMO_PREFIX))
    if kind == "file":
        return _hash_file(_local_path(spec))
    return fingerprint_rows(load_source(spec) if source is None else source)


def fingerprint_rows(splits: "Mapping[str, datasets.Dataset]") -> str:
    """Hash splits by their names, label names and rows, whatever file or cache they are in."""
    digest = hashlib.sha256()
    for name in sorted(splits):
        split = splits[name]
        columns = sorted(split.column_names)
        names = [getattr(split.features[column], "names", None) for column in columns]
        digest.update(json.dumps([name, split.num_rows, columns, names]).encode())
        for rows in split.select_columns(columns).iter(batch_size=_BATCH_ROWS):
            digest.update(json.dumps(rows, default=str).encode())
    return digest.hexdigest()


def find_source_kind(spec: TaskSpec) -> SourceKind:
    """Tell what the dataset of a task is; whatever exists locally is local.

    Raises:
        DatasetError: if a local path does not exist, or has fields that only the hub knows.
    """
    if spec.dataset.startswith(DEMO_PREFIX):
        return "demo"
    path = _local_path(spec)
    if not path.exists():
        looks_local = spec.dataset.lower().endswith(LOCAL_SUFFIXES) or path.is_absolute()
        if looks_local or spec.dataset.startswith(("./", "../")):
            raise DatasetError(
                f"dataset {spec.dataset}: there is no such file or folder (working folder "
                f"{Path.cwd()}); correct the path"
            )
        return "hub"
    if spec.config is not None or spec.revision is not None:
        raise DatasetError(
            f"dataset {spec.dataset}: is a local path, where config and revision mean nothing; "
            "remove them, or run in another folder to get the hub dataset of this name"
        )
    return "folder" if path.is_dir() else "file"


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Silence the progress bars of datasets inside, and restore them after."""
    import datasets

    were_disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            datasets.enable_progress_bars()


def _load_hub(spec: TaskSpec) -> "dict[str, datasets.Dataset]":
    import datasets

    try:
        loaded = datasets.load_dataset(spec.dataset, spec.config, revision=spec.revision)
    except Exception as error:  # network, name, access and format fail in unrelated classes
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise DatasetError(
            f"dataset {spec.dataset!r} (config {spec.config!r}, revision {spec.revision!r}): "
            f"is no local path and cannot be loaded from the hub ({cause}); check the name, "
            "the config and the network, or write it with save_to_disk where there is a network "
            "and give that folder"
        ) from error
    return dict(loaded)


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"dataset {path}: cannot be read ({error}); correct the path") from error


def _local_path(spec: TaskSpec) -> Path:
    return Path(spec.dataset).expanduser()


def _find_split_names(spec: TaskSpec) -> list[str]:
    names = (spec.train_split, spec.search_split, spec.report_split)
    return [name for name in names if name is not None]


def _select_columns(
    spec: TaskSpec, splits: "Mapping[str, datasets.Dataset]", name: str
) -> "datasets.Dataset":
    if name not in splits:
        raise DatasetError(
            f"dataset {spec.dataset}: there is no split {name!r}; there are {', '.join(splits)}; "
            "set train_split, search_split and report_split to these, or leave out the latter two"
        )
    present = splits[name].column_names
    for field, column in zip(("text", "text_pair"), spec.columns[:-1], strict=False):
        _check_column(spec, name, present, field, column)
    _check_column(spec, name, present, "label", spec.label)
    # A saved folder may carry an output format; rows are read as plain values here.
    return splits[name].select_columns(list(spec.columns)).with_format(None)


def _check_column(spec: TaskSpec, split: str, present: list[str], field: str, column: str) -> None:
    if column not in present:
        raise DatasetError(
            f"dataset {spec.dataset}: split {split!r} has no column {column!r}; its columns are "
            f"{', '.join(present)}; set {field} to one of them"
        )
