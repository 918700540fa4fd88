"""The very examples of a prepared task as JSON lines, for programs that know nothing of distprune.

python -m scripts.benchmark.export STUDY.yaml FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from distprune.search.study_file import load_study
from distprune.tasks.examples import divide_task
from distprune.tasks.sources import load_source


def export_splits(study: Path, folder: Path) -> None:
    """Write train.jsonl and search.jsonl of a study's task: one text and label a line."""
    spec = load_study(study).base.task
    task = divide_task(spec, load_source(spec))
    folder.mkdir(parents=True, exist_ok=True)
    (column,) = spec.columns[:-1]
    for name in ("train", "search"):
        examples = task.splits[name]
        rows = zip(examples.texts[column][:], examples.labels.tolist(), strict=True)
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    export_splits(Path(sys.argv[1]), Path(sys.argv[2]))
