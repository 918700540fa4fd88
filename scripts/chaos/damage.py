"""Files damaged as a failing disk does it, or a crash in the middle of a write."""

from __future__ import annotations

from pathlib import Path
from random import Random

from distprune.library.study_folder import StudyFolder
from distprune.store.paths import PATHS

TORN_EVENT = b'{"event": "MilestoneReached", "number": 0, "repor'
"""What a driver leaves that dies in the middle of writing an event."""


def truncate(path: Path, random: Random) -> str:
    """Cut a file that is not empty off somewhere, and say where."""
    data = path.read_bytes()
    size = random.randrange(len(data))
    _replace(path, data[:size])
    return f"cut at {size}"


def flip(path: Path, random: Random) -> str:
    """Flip one bit of a file that is not empty, and say where."""
    data = bytearray(path.read_bytes())
    position = random.randrange(len(data))
    data[position] ^= 1 << random.randrange(8)
    _replace(path, bytes(data))
    return f"bit flipped at {position}"


def damage_store(store: Path, random: Random, most: int = 3) -> dict[str, str]:
    """Damage a file of each of a few entries.

    Args:
        store: Folder of the store.
        random: Draws entries, files and damages.
        most: Largest number of entries.

    Returns:
        What was done, by key of the entry; nothing if there are no entries yet.
    """
    entries = sorted((store / PATHS.entries).glob("??/*"))
    chosen = random.sample(entries, min(len(entries), random.randint(1, most)))
    done = {}
    for entry in chosen:
        files = [path for path in sorted(entry.rglob("*")) if path.is_file() and _has_bytes(path)]
        if files:
            path = random.choice(files)
            done[entry.name] = f"{path.name} {random.choice((truncate, flip))(path, random)}"
    return done


def damage_journal(folder: StudyFolder, random: Random) -> str | None:
    """Damage or remove Optuna's journal, and say how; None if there is none yet."""
    path = folder.optuna_journal
    if not path.exists() or not _has_bytes(path):
        return None
    if random.random() < 1 / 3:
        path.unlink()
        return "removed"
    return random.choice((truncate, flip))(path, random)


def tear_history(folder: StudyFolder) -> bool:
    """Leave half an event at the end of the history; False if there is no history yet."""
    if not folder.history.exists():
        return False
    with folder.history.open("ab") as file:
        file.write(TORN_EVENT)
    return True


def _replace(path: Path, data: bytes) -> None:
    """Put other bytes in the place of a file; who has it open reads the old ones to the end.

    So does who has read a file before its disk fails.
    """
    aside = path.with_name(f"{path.name}.damaged")
    aside.write_bytes(data)
    aside.replace(path)


def _has_bytes(path: Path) -> bool:
    return path.stat().st_size > 0
