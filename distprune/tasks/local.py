"""Reading of local datasets: one file is one split, a folder is what save_to_disk wrote.

Files are read into memory and leave nothing in any cache.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distprune.errors import DatasetError
from distprune.tasks.spec import LOCAL_SUFFIXES

if TYPE_CHECKING:
    import datasets


def read_folder(folder: Path) -> "dict[str, datasets.Dataset]":
    """Open what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.

    Returns:
        The splits by name; a single dataset is named train.

    Raises:
        DatasetError: if the folder holds something else.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # a damaged folder fails in many ways inside datasets and pyarrow
        raise DatasetError(
            f"dataset {folder}: this folder cannot be read ({_first_line(error)}); give a folder "
            f"written by save_to_disk, or a file ending in {', '.join(LOCAL_SUFFIXES)}"
        ) from error
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}


def read_file(path: Path, text_columns: tuple[str, ...]) -> "datasets.Dataset":
    """Read a .csv, .tsv, .json, .jsonl or .parquet file.

    Tab-separated files quote as comma-separated ones do, but no value may hold a line break: that
    is how a quote that is never closed shows. A .json file is a list of objects or lines of them.

    Args:
        path: the file, UTF-8 with a header line where it is separated by commas or tabs.
        text_columns: columns that stay text even where all their values look like numbers.

    Raises:
        DatasetError: if the file cannot be read as what its name says.
    """
    import datasets

    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            table = _read_separated(path, text_columns)
        elif suffix in (".json", ".jsonl"):
            table = _read_json(path)
        elif suffix == ".parquet":
            from pyarrow import parquet  # type: ignore[import-untyped, unused-ignore]

            table = parquet.read_table(path)
        else:
            raise DatasetError(
                f"dataset {path}: unknown kind of file {suffix!r}; must be one of "
                f"{', '.join(LOCAL_SUFFIXES)} or a folder written by save_to_disk"
            )
    except DatasetError:
        raise
    except (ValueError, TypeError, OSError) as error:  # pyarrow's errors are among these
        raise DatasetError(
            f"dataset {path}: cannot be read as {suffix} ({_first_line(error)}); correct the file"
        ) from error
    return datasets.Dataset(table)


def _read_separated(path: Path, text_columns: tuple[str, ...]) -> Any:
    from pyarrow import compute, csv, string  # type: ignore[import-untyped, unused-ignore]

    is_tab = path.suffix.lower() == ".tsv"
    table = csv.read_csv(
        path,
        parse_options=csv.ParseOptions(delimiter="\t" if is_tab else ",", newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(text_columns, string())),
    )
    for name in text_columns if is_tab else ():
        if name not in table.column_names:
            continue
        if compute.any(compute.match_substring(table[name], "\n")).as_py():
            raise DatasetError(
                f"dataset {path}: column {name!r} has values over several lines, as if a quote "
                "were never closed; double the quotes inside quoted values or write a .jsonl file"
            )
    return table


def _read_json(path: Path) -> Any:
    import pyarrow  # type: ignore[import-untyped, unused-ignore]

    rows = _parse_rows(path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DatasetError(
                f"dataset {path}: entry {number} must be an object of column names and values, "
                f"not {type(row).__name__}"
            )
    names = dict.fromkeys(name for row in rows for name in row)
    return pyarrow.table({name: [row.get(name) for row in rows] for name in names})


def _parse_rows(path: Path) -> list[Any]:
    content = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json" and content.lstrip().startswith("["):
        return list(json.loads(content))
    rows = []
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise DatasetError(
                    f"dataset {path}: line {number} is no JSON ({error}); write one object a line"
                    + (" or one list" if path.suffix.lower() == ".json" else "")
                ) from error
    return rows


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
