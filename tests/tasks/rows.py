"""Small datasets of distinct texts, and files of them."""

import csv
import json
from pathlib import Path
from typing import Any

WORDS = ("good", "bad", "film", "book", "very", "not", "the", "a")


def make_rows(count: int, pair: bool = False) -> list[dict[str, Any]]:
    """Rows of distinct texts with alternating labels 0 and 1."""
    rows = []
    for number in range(count):
        # The binary digits of the number, spelled in words: distinct, and all in the vocabulary.
        words = [WORDS[int(digit)] for digit in f"{number:o}"]
        row: dict[str, Any] = {"text": " ".join(["the", *words])}
        if pair:
            row["second"] = " ".join(reversed(words))
        rows.append(row | {"label": number % 2})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
