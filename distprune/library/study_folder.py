"""Every file of a study, named in one place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from distprune.errors import ConfigError, StorageError


@dataclass(frozen=True)
class StudyFolder:
    """The folder `<storage>/<study>` and the store beside it.

    Attributes:
        storage: Folder that holds the studies and their common store.
        name: Name of the study.
    """

    storage: Path
    name: str

    @property
    def root(self) -> Path:
        """The study's own folder."""
        return self.storage / self.name

    @property
    def store(self) -> Path:
        """The stage store that all studies of this storage share."""
        return self.storage / "store"

    @property
    def configuration(self) -> Path:
        """The study file as resolved."""
        return self.root / "study.yaml"

    @property
    def environment(self) -> Path:
        """Versions and machine that the study ran with."""
        return self.root / "environment.json"

    @property
    def history(self) -> Path:
        """The append-only record of the study's events."""
        return self.root / "history.jsonl"

    @property
    def lease(self) -> Path:
        """Held by the one driver that works on the study; outside it, so that it can be moved."""
        return self.storage / f".{self.name}.lock"

    @property
    def optuna_journal(self) -> Path:
        """Optuna's journal of proposals and values."""
        return self.root / "optuna.journal"

    @property
    def shared_stages(self) -> Path:
        """Stages that the driver ran for all trials, and what they cost."""
        return self.root / "shared_stages.json"

    @property
    def ray(self) -> Path:
        """What Ray Tune writes."""
        return self.root / "ray"

    @property
    def tracking_database(self) -> Path:
        """MLflow's SQLite database, where no tracking server is named."""
        return self.root / "mlflow.db"

    @property
    def tracking_artifacts(self) -> Path:
        """MLflow's artifacts, where no tracking server is named."""
        return self.root / "mlflow-artifacts"

    @property
    def leaderboard_json(self) -> Path:
        """The leaderboard for programs."""
        return self.root / "leaderboard.json"

    @property
    def leaderboard_csv(self) -> Path:
        """The leaderboard for spreadsheets."""
        return self.root / "leaderboard.csv"

    @property
    def latency_table(self) -> Path:
        """The table that the study predicts latencies with, if its objective is one of latency."""
        return self.root / "latency.json"

    @property
    def report(self) -> Path:
        """Figures of the study."""
        return self.root / "report"

    @property
    def masks(self) -> Path:
        """The library of masks, a folder for each milestone."""
        return self.root / "masks"

    def milestone(self, sparsity: float) -> Path:
        """Folder of the best mask at a milestone."""
        return self.masks / f"{sparsity:g}"

    def mask(self, sparsity: float) -> Path:
        """File of the best mask at a milestone."""
        return self.milestone(sparsity) / "mask.safetensors"

    def evidence(self, sparsity: float) -> Path:
        """File with the numbers that speak for the mask."""
        return self.milestone(sparsity) / "evidence.json"


def find_study(path: Path) -> StudyFolder:
    """Return the folder of a study.

    Raises:
        ConfigError: There is no study at `path`.
    """
    root = path.expanduser().resolve()
    folder = StudyFolder(root.parent, root.name)
    if not folder.configuration.is_file():
        raise ConfigError(
            f"study: {str(path)!r} holds no study; name a folder that `distprune search` made, "
            "for instance studies/quickstart"
        )
    return folder


def read_identifier(folder: StudyFolder) -> str:
    """Return what tells a study from others of its name.

    Raises:
        StorageError: The study's environment.json cannot be read.
    """
    try:
        return str(json.loads(folder.environment.read_text())["study_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"study {folder.root}: its environment.json cannot be read ({error}); start anew with "
            "--fresh"
        ) from error
