"""What an examination does on a node.

All of it travels to the node by value. So only the standard library is imported here, and a node
without distprune, or with another one, answers too. Questions and answers are plain values.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class NodeExaminer:
    """Examines the node that it runs on."""

    def list_versions(self, packages: Sequence[str]) -> dict[str, str | None]:
        """Return the versions of python, distprune and its code, and packages; None = missing."""
        versions: dict[str, str | None] = {"python": platform.python_version()}
        versions.update(read_installation())
        for name in packages:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = None
        return versions

    def read_clock(self) -> float:
        """Return this node's time, in seconds since the epoch."""
        return time.time()

    def write_probe(self, root: str, name: str, text: str) -> str:
        """Write a small file to the storage; return what prevents it, or nothing."""
        try:
            if "://" in root:
                filesystem, prefix = _open_remote(root)
                filesystem.pipe_file(f"{prefix}/{name}", text.encode())
            else:
                _write_durably(Path(root), name, text)
        except Exception as error:  # every file system has errors of its own
            return describe(error)
        return ""

    def read_probes(
        self, root: str, probes: Mapping[str, str], patience_s: float
    ) -> dict[str, str]:
        """Read the files of others; return by file what prevents it.

        Args:
            root: The storage.
            probes: Texts by file.
            patience_s: Seconds to wait for a file; network file systems show them late.
        """
        deadline = time.monotonic() + patience_s
        problems = _read_all(root, probes)
        while problems and time.monotonic() < deadline:
            time.sleep(0.2)
            problems = _read_all(root, {name: probes[name] for name in problems})
        return problems

    def remove_probes(self, root: str, names: Sequence[str]) -> None:
        """Remove files of the examination; those that are not here do not count."""
        for name in names:
            try:
                if "://" in root:
                    filesystem, prefix = _open_remote(root)
                    filesystem.rm_file(f"{prefix}/{name}")
                else:
                    (Path(root) / name).unlink()
            except Exception:
                continue

    def find_checkpoint(self, location: str, is_thorough: bool) -> dict[str, Any]:
        """Look for a checkpoint as stages do.

        Args:
            location: Its name, as stages get it.
            is_thorough: Read all of its files for their fingerprint.

        Returns:
            `place` (None = it has to be downloaded), `fingerprint` where it was read, `num_bytes`
            of the download, and `problem`, empty if there is none.
        """
        answer: dict[str, Any] = {
            "place": None,
            "fingerprint": None,
            "num_bytes": None,
            "problem": "",
        }
        try:
            from distprune.models import source

            folder = source.find_present(location)
            if folder is None:
                answer["num_bytes"] = source.measure_download(location)
            else:
                answer["place"] = str(folder)
                if is_thorough:
                    answer["fingerprint"] = source.fingerprint_checkpoint(folder)
        except Exception as error:  # whatever keeps a stage from its checkpoint
            answer["problem"] = describe(error)
        return answer

    def measure_disks(self, places: Mapping[str, str | None]) -> dict[str, dict[str, Any]]:
        """Return by name the free and total bytes of the disks that hold these places.

        Args:
            places: Paths; None = the cache folder of this user.
        """
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return {name: measure_disk(Path(place or cache)) for name, place in places.items()}

    def measure_memory(self) -> dict[str, int]:
        """Return `total` and `available` bytes of memory, as far as this container may use them."""
        return measure_memory()

    def measure_cards(self) -> list[int]:
        """Return the bytes of memory of each GPU; none where `nvidia-smi` is missing."""
        command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return []
        return [int(line) << 20 for line in told.stdout.split() if line.isdigit()]


def read_installation() -> dict[str, str | None]:
    """Return the version of distprune and a digest of its code, without importing it."""
    spec = importlib.util.find_spec("distprune")
    if spec is None or spec.origin is None:
        return {"distprune": None, "distprune code": None}
    folder = Path(spec.origin).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    told = re.search(r'^__version__ = "(.+)"', Path(spec.origin).read_text(), re.MULTILINE)
    version = told[1] if told else "unknown"
    return {"distprune": version, "distprune code": digest.hexdigest()[:12]}


def measure_disk(place: Path) -> dict[str, Any]:
    """Return `place`, `free` and `total` bytes of the disk that holds it, or would hold it."""
    folder = place.expanduser().absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return {"place": str(place.expanduser()), "free": usage.free, "total": usage.total}


def measure_memory() -> dict[str, int]:
    """Return `total` and `available` bytes of memory; limits of control groups count."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    facts = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    total, available = facts["MemTotal"], facts["MemAvailable"]
    for limit, used in _read_limits():
        total, available = min(total, limit), min(available, max(0, limit - used))
    return {"total": total, "available": available}


def describe(error: Exception) -> str:
    """Return an error as one line that holds no password."""
    reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    line = re.sub(r"(?<=://)[^\s/@]+@", "***@", str(reason).splitlines()[0])[:300]
    is_own = type(error).__module__.startswith("distprune.") or isinstance(error, OSError)
    return line if is_own else f"{type(error).__name__}: {line}"


def _open_remote(root: str) -> tuple[Any, str]:
    import fsspec

    filesystem, prefix = fsspec.core.url_to_fs(root, use_listings_cache=False)
    if hasattr(filesystem, "retries"):
        filesystem.retries = 1  # of s3fs, on top of those of botocore
    return filesystem, prefix.rstrip("/")


def _write_durably(folder: Path, name: str, text: str) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    with (folder / name).open("w") as file:
        # The store's leases are locks of files.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _read_all(root: str, probes: Mapping[str, str]) -> dict[str, str]:
    problems = {}
    for name, text in probes.items():
        try:
            if "://" in root:
                filesystem, prefix = _open_remote(root)
                found = bytes(filesystem.cat_file(f"{prefix}/{name}")).decode()
            else:
                found = (Path(root) / name).read_text()
        except Exception as error:
            problems[name] = describe(error)
            continue
        if found != text:
            problems[name] = "holds something else"
    return problems


def _read_limits() -> list[tuple[int, int]]:
    """Return limit and use in bytes of the control groups that this process is in."""
    groups = Path("/sys/fs/cgroup")
    limits = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names = ("memory.max", "memory.current", "inactive_file")
            limits += _read_group(groups, path, names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            limits += _read_group(groups / "memory", path, names)
    return limits


def _read_group(root: Path, path: str, names: tuple[str, str, str]) -> list[tuple[int, int]]:
    """Read the limits of a group and of those that it is in; what files hold can be given back."""
    folder = root / path.lstrip("/")
    found = []
    for group in (folder, *folder.parents):
        if not group.is_relative_to(root):
            break
        try:
            limit = (group / names[0]).read_text().strip()
            used = int((group / names[1]).read_text())
            statistics = dict(
                line.split() for line in (group / "memory.stat").read_text().splitlines()
            )
            reclaimable = int(statistics.get(names[2], 0))
        except (OSError, ValueError):
            continue
        if limit.isdigit():
            found.append((int(limit), max(0, used - reclaimable)))
    return found
