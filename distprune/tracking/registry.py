"""The best masks of a study as versions of a registered model, and fetching them again.

A version is found again by its tags, so registering twice changes nothing, and what an outage has
interrupted is finished by the next call.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from distprune.core.atomic_file import write_file
from distprune.core.credentials import hide_credentials
from distprune.core.mask import Mask
from distprune.errors import ConfigError, InputError, MaskError, StorageError
from distprune.tasks.demo import cache_folder
from distprune.tracking import naming
from distprune.tracking.batches import Point, log_points, milliseconds
from distprune.tracking.client import SQLITE, is_outage, open_client, prepare_environment
from distprune.tracking.lookup import find_or_create_experiment, find_run
from distprune.tracking.servable import check_servable, write_servable

MASK_FILE = "mask.safetensors"
EVIDENCE_FILE = "evidence.json"
NO_MODEL = "none"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class MaskFiles:
    """Files of the best mask at a milestone of a study.

    Attributes:
        milestone: Sparsity that it reaches at least.
        mask: Its file.
        evidence: The file with the numbers that speak for it.
        model: Folder of a compact model of this mask, if there is one to serve.
    """

    milestone: float
    mask: Path
    evidence: Path
    model: Path | None = None


@dataclass(frozen=True)
class Registry:
    """Where masks are registered.

    Attributes:
        uri: Tracking store: `http(s)://...`, or `sqlite:///` and an absolute path.
        artifact_location: Folder or URI for the artifacts of a new experiment; None leaves the
            choice to the server.
        model_name: Name of the registered model.
        study_name: Name of the study.
        study_id: What tells studies of one name apart.
    """

    uri: str
    artifact_location: str | None
    model_name: str
    study_name: str
    study_id: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w][\w .+-]{0,200}", self.model_name):
            raise ConfigError(
                f"--model-name: {self.model_name!r} must begin with a letter or digit and go on "
                "with letters, digits, blanks, '.', '_', '+' or '-'"
            )


@dataclass(frozen=True)
class RegisteredMask:
    """A mask in the registry.

    Attributes:
        milestone: Milestone that it is the best at.
        name: Name of the registered model.
        version: Number of its version.
        alias: Alias that points to the version.
        is_new: It was registered by this call; False: it was there.
        has_model: The version can be served.
    """

    milestone: float
    name: str
    version: int
    alias: str
    is_new: bool
    has_model: bool

    @property
    def uri(self) -> str:
        """URI that the version is found by."""
        return f"models:/{self.name}@{self.alias}"


def register_mask(registry: Registry, best: MaskFiles) -> RegisteredMask:
    """Register a mask, or find that it is, and let the milestone's alias point to it.

    Raises:
        MaskError: The mask cannot be read, or the model was made of another one.
        CheckpointError: The model's folder cannot be used.
        StorageError: The registry does not answer; the next call goes on.
    """
    prepare_environment()
    mask = Mask.load(best.mask)
    if not best.evidence.is_file():
        raise StorageError(f"evidence {best.evidence}: is missing; run `distprune search` again")
    fingerprint = NO_MODEL if best.model is None else _check_model(best.model, mask)
    tags = _list_tags(registry, best, mask, fingerprint)
    with _answering(registry.uri, "what is missing is registered by the same command"):
        client = open_client(registry.uri)
        _ensure_model(client, registry.model_name)
        version = _find_version(client, registry.model_name, tags, best.model is not None)
        is_new = version is None
        if version is None:
            run = _log_ticket(client, registry, best, mask, tags)
            version = client.create_model_version(
                registry.model_name,
                source=f"{run.info.artifact_uri.rstrip('/')}/{naming.TICKET}",
                run_id=run.info.run_id,
                tags=tags,
                description=_describe(best, mask),
            )
        alias = naming.name_alias(best.milestone)
        client.set_registered_model_alias(registry.model_name, alias, str(version.version))
    has_model = version.tags.get(naming.MODEL_FINGERPRINT, NO_MODEL) != NO_MODEL
    return RegisteredMask(
        best.milestone, registry.model_name, int(version.version), alias, is_new, has_model
    )


def _check_model(folder: Path, mask: Mask) -> str:
    own, fingerprint = check_servable(folder)
    if own != mask:
        raise MaskError(
            f"model {folder}: was made of another mask than the best of this milestone; name the "
            "milestone of its mask with --milestone"
        )
    return fingerprint


def _list_tags(registry: Registry, best: MaskFiles, mask: Mask, fingerprint: str) -> dict[str, str]:
    """Return what a version says about itself; the first four find it again."""
    known = mask.metadata
    checkpoint, metrics = known.get("checkpoint", {}), known.get("metrics", {})
    values = {
        naming.STUDY_ID: registry.study_id,
        naming.BEST_AT: f"{best.milestone:g}",
        naming.MASK_DIGEST: mask.digest,
        naming.MODEL_FINGERPRINT: fingerprint,
        naming.KIND: naming.KIND_MASK,
        naming.STUDY: registry.study_name,
        naming.TRIAL: known.get("trial"),
        naming.CHECKPOINT: checkpoint.get("name"),
        naming.CHECKPOINT_FINGERPRINT: checkpoint.get("fingerprint"),
        naming.METRIC_NAME: metrics.get("name"),
        **{name: _round(value) for name, value in _list_metrics(metrics).items()},
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _list_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    names = ("search", "report", naming.RETENTION)
    return {name: float(metrics[name]) for name in names if metrics.get(name) is not None}


def _round(value: float) -> str:
    return f"{value:.6g}"


def _describe(best: MaskFiles, mask: Mask) -> str:
    heads, neurons = (f"{mask.num_kept(kind)} of {mask[kind].size}" for kind in mask.kept)
    serves = "" if best.model is None else " With a compact model that MLflow serves."
    return (
        f"Best mask at sparsity {best.milestone:g}: keeps {heads} heads and {neurons} neurons. "
        f"Files: {MASK_FILE}, {EVIDENCE_FILE}.{serves}"
    )


def _ensure_model(client: Any, name: str) -> None:
    if not client.search_registered_models(f"name = '{name}'", max_results=1):
        client.create_registered_model(name, tags={naming.KIND: naming.KIND_MASK})


def _find_version(client: Any, name: str, tags: Mapping[str, str], with_model: bool) -> Any | None:
    """Return the newest version with the tags; a version with a model is one of its mask too."""
    wanted = [naming.STUDY_ID, naming.BEST_AT, naming.MASK_DIGEST]
    if with_model:
        wanted.append(naming.MODEL_FINGERPRINT)
    text = f"name = '{name}' and tags.`{naming.MASK_DIGEST}` = '{tags[naming.MASK_DIGEST]}'"
    found = [
        version
        for version in client.search_model_versions(text)
        if all(version.tags.get(tag) == tags[tag] for tag in wanted)
    ]
    return max(found, key=lambda version: int(version.version), default=None)


def _log_ticket(
    client: Any, registry: Registry, best: MaskFiles, mask: Mask, tags: Mapping[str, str]
) -> Any:
    """Write the files of a version down in a run of its own, and return the run."""
    experiment = find_or_create_experiment(
        client, naming.name_experiment(registry.study_name), registry.artifact_location
    )
    with TemporaryDirectory(prefix="distprune-") as aside:
        folder = Path(aside) / naming.TICKET
        if best.model is None:
            folder.mkdir()
        else:
            write_servable(best.model, folder)
        shutil.copyfile(best.mask, folder / MASK_FILE)
        shutil.copyfile(best.evidence, folder / EVIDENCE_FILE)
        run = _open_run(client, experiment, registry, best, tags)
        client.log_artifacts(run.info.run_id, str(folder), naming.TICKET)
    metrics = _list_metrics(mask.metadata.get("metrics", {}))
    points = [Point(name, value, 0) for name, value in metrics.items()]
    log_points(client, run.info.run_id, points, run.info.start_time / 1000)
    client.set_terminated(run.info.run_id)
    return run


def _open_run(
    client: Any, experiment: str, registry: Registry, best: MaskFiles, tags: Mapping[str, str]
) -> Any:
    """Find the run that an earlier call has begun, or make it, nested in the study's."""
    own = (naming.STUDY_ID, naming.KIND, naming.BEST_AT, naming.MASK_DIGEST)
    identity = {name: tags[name] for name in (*own, naming.MODEL_FINGERPRINT)}
    run = find_run(client, experiment, identity)
    if run is not None:
        return run
    study = find_run(
        client,
        experiment,
        {naming.STUDY_ID: registry.study_id, naming.KIND: naming.KIND_STUDY},
    )
    parent = {} if study is None else {naming.PARENT_RUN: study.info.run_id}
    return client.create_run(
        experiment,
        start_time=milliseconds(time.time()),
        run_name=naming.name_mask_run(best.milestone),
        tags={**tags, **parent, naming.SOURCE_NAME: "distprune"},
    )


def fetch_mask_file(uri: str, tracking_uri: str | None = None) -> Path:
    """Fetch a mask from MLflow into the cache, check it, and return its file.

    Args:
        uri: `models:/NAME@best-0.5`, `models:/NAME/3`, `models:/NAME/latest`, or
            `runs:/RUN_ID/path`; a path that is no .safetensors file is a folder with a mask in it.
        tracking_uri: Tracking store; None = as MLflow is set, by MLFLOW_TRACKING_URI
            or in this process.

    Raises:
        ConfigError: The URI is none of these, or names nothing.
        StorageError: The registry does not answer, or the cache cannot be written.
        MaskError: What was fetched is no mask; it is not kept.
    """
    prepare_environment()
    import mlflow

    store = tracking_uri or str(mlflow.get_tracking_uri())
    _check_store(store)
    with TemporaryDirectory(prefix="distprune-") as folder:
        with _answering(store, "nothing was fetched"):
            fetched = Path(_download(open_client(store), store, uri, folder))
        if not fetched.is_file():
            raise ConfigError(f"mask {uri}: is a folder; name the mask's file in it")
        Mask.load(fetched)
        data = fetched.read_bytes()
    target = cache_folder() / "masks" / f"{hashlib.sha256(data).hexdigest()[:32]}{SUFFIX}"
    write_file(target, data)
    return target


def _check_store(uri: str) -> None:
    """Refuse a database that does not exist: MLflow would make it."""
    path = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and not path.is_file():
        raise StorageError(f"tracking database {path}: does not exist; set MLFLOW_TRACKING_URI")


def _download(client: Any, store: str, uri: str, folder: str) -> str:
    parts = [part for part in urlsplit(uri).path.split("/") if part]
    if uri.startswith("runs:/") and len(parts) >= 2:
        run_id, *path = parts
        return str(client.download_artifacts(run_id, _name_file("/".join(path)), folder))
    if uri.startswith("models:/") and parts:
        import mlflow

        source = _find_source(client, parts)
        return str(
            mlflow.artifacts.download_artifacts(
                artifact_uri=f"{source}/{MASK_FILE}", dst_path=folder, tracking_uri=store
            )
        )
    raise ConfigError(
        f"mask {uri!r}: must be models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/PATH; "
        "correct it"
    )


def _name_file(path: str) -> str:
    return path if path.endswith(SUFFIX) else str(PurePosixPath(path) / MASK_FILE)


def _find_source(client: Any, parts: list[str]) -> str:
    """Return where the files of a version are, given the parts of its URI."""
    name, _, alias = parts[0].partition("@")
    if alias and len(parts) == 1:
        number = client.get_model_version_by_alias(name, naming.clean_alias(alias)).version
    elif len(parts) == 2 and parts[1].isdecimal():
        number = parts[1]
    elif parts[1:] == ["latest"]:
        versions = client.search_model_versions(f"name = '{name}'")
        if not versions:
            raise ConfigError(f"registered model {name!r}: has no version; register a mask first")
        number = str(max(int(version.version) for version in versions))
    else:
        raise ConfigError(
            f"registered model {parts[0]!r}: name a version, as in models:/{name}/1, "
            f"models:/{name}/latest or models:/{name}@best-0.5"
        )
    return str(client.get_model_version_download_uri(name, str(number))).rstrip("/")


@contextmanager
def _answering(uri: str, consequence: str) -> Iterator[None]:
    """Turn what MLflow raises into one clear line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not isinstance(error, MlflowException | OSError):
            raise
        place = hide_credentials(uri)
        cause = hide_credentials(" ".join(str(error).split()))[:200] or type(error).__name__
        if is_outage(error):
            raise StorageError(
                f"registry {place}: does not answer ({cause}); start it or correct its address; "
                f"{consequence}"
            ) from error
        raise ConfigError(f"registry {place}: refuses ({cause}); {consequence}") from error
