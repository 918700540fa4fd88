"""Every file of a study, named in one place."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from distprune.errors import ConfigError, StorageError
from distprune.library.study_mirror import StudyMirror
from distprune.store.opening import is_remote, local_folder, open_objects
from distprune.store.paths import cache_folder
from distprune.store.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of studies; no other folder behind a URI is one."""


@dataclass(frozen=True)
class StudyStorage:
    """Where studies are kept, and the store that they share.

    Attributes:
        folder: Folder of the studies; with a URI, of this machine's working copies.
        uri: The fsspec URI that they are kept behind; None = they are kept in the folder.
    """

    folder: Path
    uri: str | None = None

    @property
    def store(self) -> str:
        """Path or URI of the stage store that all studies of this storage share."""
        return str(self.folder / "store") if self.uri is None else f"{self.uri}/store"

    def open_store(self) -> Store:
        """Open the store; touches neither disk nor network.

        Raises:
            StorageError: Nothing installed knows such URIs.
        """
        return Store(self.store)

    def find_study(self, name: str) -> StudyFolder:
        """Return the folder of a study, whether there is one or not."""
        return StudyFolder(self.folder, name, self.uri)

    def list_names(self) -> list[str]:
        """Return the names of what can be studies, sorted.

        Raises:
            StorageError: The storage cannot be read.
        """
        if self.uri is not None:
            names = open_objects(self.uri).list_folders()
            return [name for name in names if name != "store" and _NAME.fullmatch(name)]
        try:
            names = sorted(path.name for path in self.folder.iterdir() if path.is_dir())
        except OSError as error:
            raise StorageError(
                f"storage {self.folder}: cannot be read ({error.strerror or error}); name the "
                "folder of the studies"
            ) from error
        return [name for name in names if name != "store"]

    def has_store(self) -> bool:
        """Tell whether anything is stored.

        Raises:
            StorageError: The storage cannot be read.
        """
        if self.uri is None:
            return (self.folder / "store").is_dir()
        return "store" in open_objects(self.uri).list_folders()


@dataclass(frozen=True)
class StudyFolder:
    """The folder `<storage>/<study>` and the store beside it.

    Attributes:
        storage: Folder that holds the studies and, without a URI, their common store.
        name: Name of the study.
        uri: The fsspec URI behind which the studies are kept, of which `storage` then holds this
            machine's working copies; None = they are kept in `storage`.
    """

    storage: Path
    name: str
    uri: str | None = None

    @property
    def root(self) -> Path:
        """The study's own folder."""
        return self.storage / self.name

    @property
    def place(self) -> StudyStorage:
        """Where the study is kept, with others."""
        return StudyStorage(self.storage, self.uri)

    @property
    def reference(self) -> str:
        """What names the study to all verbs."""
        return str(self.root) if self.uri is None else f"{self.uri}/{self.name}"

    @property
    def store(self) -> Path:
        """Stage store that all studies of this storage share; with a URI it is no folder."""
        return self.storage / "store"

    def open_store(self) -> Store:
        """Open the stage store, wherever it is; touches neither disk nor network.

        Raises:
            StorageError: Nothing installed knows such URIs.
        """
        return self.place.open_store()

    @property
    def mirror(self) -> StudyMirror | None:
        """The study behind its URI; None = it has none. The same one each time."""
        return None if self.uri is None else _open_mirror(self)

    def pull(self) -> None:
        """Bring the working copy up to date with what is behind the URI, if there is one.

        Raises:
            StorageError: The storage cannot be read.
        """
        if self.mirror is not None:
            self.mirror.pull()

    def push(self) -> None:
        """Copy what has changed in the working copy to behind the URI, if there is one.

        Raises:
            StorageError: The storage cannot be written.
        """
        if self.mirror is not None:
            self.mirror.push()

    def set_aside(self, name: str) -> None:
        """Give the study another name.

        Raises:
            StorageError: The storage cannot be written.
        """
        if self.mirror is not None:
            self.mirror.set_aside(name)
            return
        try:
            self.root.rename(self.root.with_name(name))
        except OSError as error:
            raise StorageError(
                f"study {self.root}: cannot be set aside ({error.strerror}); move it yourself"
            ) from error

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


def locate_storage(text: str | Path, base: Path | None = None) -> StudyStorage:
    """Return the storage that a path or URI names; touches neither disk nor network.

    Args:
        text: A path or an fsspec URI.
        base: Folder that relative paths are below; None = the working folder.

    Raises:
        StorageError: It is a file:// URI of no absolute folder.
    """
    location = str(text)
    if is_remote(location):
        uri = location.rstrip("/")
        return StudyStorage(cache_folder("studies", uri), uri)
    folder = local_folder(location) if "://" in location else Path(location).expanduser()
    return StudyStorage(((base or Path.cwd()) / folder).resolve())


def find_study(reference: str | Path) -> StudyFolder:
    """Return the folder of a study; with a URI, its working copy is brought up to date.

    Raises:
        ConfigError: There is no study of that path or URI.
        StorageError: The storage cannot be read.
    """
    text = str(reference)
    folder: StudyFolder | None
    if is_remote(text):
        parent, _, name = text.rstrip("/").rpartition("/")
        known = is_remote(parent) and _NAME.fullmatch(name)
        folder = locate_storage(parent).find_study(name) if known else None
    else:
        root = local_folder(text) if "://" in text else Path(text).expanduser()
        folder = StudyFolder(root.resolve().parent, root.resolve().name)
    if folder is not None:
        folder.pull()
    if folder is None or not folder.configuration.is_file():
        raise ConfigError(
            f"study: {str(reference)!r} holds no study; name a folder that `distprune search` "
            "made, for instance studies/quickstart"
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
            f"study {folder.reference}: its environment.json cannot be read ({error}); start anew "
            "with --fresh"
        ) from error


@lru_cache(maxsize=256)
def _open_mirror(folder: StudyFolder) -> StudyMirror:
    """Open the mirror of a study once, since it knows what it has copied."""
    assert folder.uri is not None
    return StudyMirror(
        objects=open_objects(folder.uri).below(folder.name),
        folder=folder.root,
        history=folder.history,
        lease=folder.lease,
        local=(
            folder.optuna_journal.name,
            folder.tracking_database.name,
            folder.tracking_artifacts.name,
            f"{folder.ray.name}/",
        ),
    )
