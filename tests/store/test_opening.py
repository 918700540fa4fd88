import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from distprune.errors import StorageError
from distprune.store.store import Store


def test_paths_become_absolute_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store("results/store").root == str(tmp_path / "results" / "store")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/store").root == str(tmp_path / "store")


def test_file_uris_are_paths(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    assert Store(folder.as_uri()).root == str(folder)
    assert Store(f"file://localhost{tmp_path}").root == str(tmp_path)


@pytest.mark.parametrize("root", ["", "  ", "file://host/store", "file://", "nosuch://store"])
def test_roots_that_cannot_be_opened_are_refused(root: str) -> None:
    with pytest.raises(StorageError, match="storage"):
        Store(root)


def test_default_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entry = Store("memory://opening").commit("0" * 64, lambda folder: (folder / "a").touch(), {})
    assert entry.path("a").is_relative_to(tmp_path / "distprune" / "store")


def test_opening_imports_nothing_heavy(
    start_python: Callable[..., "subprocess.Popen[str]"],
) -> None:
    script = (
        "import sys, distprune.store.store as s; s.Store('x');"
        "print(*{'torch', 'ray', 'pydantic', 'fsspec', 'transformers'} & set(sys.modules))"
    )
    with start_python(script) as child:
        output, _ = child.communicate()
    assert child.returncode == 0
    assert output.split() == []
