"""What a refusal looks like: one line a problem, nothing trained, nothing half written."""

from __future__ import annotations

from pathlib import Path

from distprune.store.store import Store
from tests.cli.conftest import Finished

STARTING = ["search", "run"]
"""Verbs that read checkpoint and data; `validate` reads neither."""


def check_refusal(finished: Finished, code: int, *words: str) -> None:
    """Check that the words are in one line, and that there is nothing but lines of problems."""
    assert finished.code == code, finished.err
    lines = [line for line in finished.err.splitlines() if not line.startswith("[")]
    assert lines
    assert all(line.startswith("error: ") for line in lines), finished.err
    assert "Traceback" not in finished.out + finished.err
    assert any(all(word in line for word in words) for line in lines), finished.err


def check_nothing_done(folder: Path) -> None:
    """Check that no model was trained and that no file is there in part."""
    store = folder / "studies" / "store"
    assert list_stages(store) <= {"prepare"}
    left = [path for place in ("temporary", "leases") for path in (store / place).rglob("*")]
    assert {path.name for path in left} <= {"guard"}
    names = {path.name for path in (folder / "studies").rglob("*") if store not in path.parents}
    assert names <= {"tiny", "store", ".tiny.lock", "study.yaml", "environment.json"}


def list_stages(root: Path) -> set[object]:
    """Return the kinds of stage of which a store holds results."""
    if not root.exists():
        return set()
    store = Store(str(root))
    entries = [store.find(key) for key in list(store.keys())]
    return {entry.record["stage"] for entry in entries if entry}
