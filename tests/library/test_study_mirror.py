"""The mirror of a study behind a URI: files follow, events lead, nothing is mixed or lost."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprune.core.mask import Mask
from distprune.errors import ConfigError, StorageError, StudyExistsError
from distprune.library import study_folder
from distprune.library.history import Event, History, read_trials
from distprune.library.mask_reference import load_mask_reference
from distprune.library.study_folder import StudyFolder, find_study, locate_storage
from distprune.library.study_mirror import KNOWN
from distprune.store.objects import Objects
from distprune.store.opening import open_objects
from tests.library.records import end, make_start, reach
from tests.model_families import SHAPE

EVENTS: list[Event] = [make_start(0), reach(0, 1, []), make_start(1), end(0), reach(1, 1, [])]


class Host:
    """A machine: a cache folder of its own."""

    def __init__(self, uri: str, cache: Path) -> None:
        self.uri = uri
        self.cache = cache

    def open(self, name: str = "mine") -> StudyFolder:
        return StudyFolder(self.cache, name, self.uri)

    def update(self) -> StudyFolder:
        folder = self.open()
        assert folder.mirror is not None
        folder.mirror.update()
        return folder

    def append(self, *events: Event) -> None:
        folder = self.open()
        history = History(folder.history, folder.mirror)
        for event in events:
            history.append(event)


@pytest.fixture
def uri() -> str:
    return f"memory://{uuid.uuid4().hex}/studies"


@pytest.fixture
def make_host(uri: str, tmp_path: Path) -> Callable[[str], Host]:
    return lambda name: Host(uri, tmp_path / name)


@pytest.fixture
def here(make_host: Callable[[str], Host]) -> Host:
    return make_host("here")


@pytest.fixture
def there(make_host: Callable[[str], Host]) -> Host:
    return make_host("there")


@pytest.fixture
def objects(uri: str) -> Objects:
    return open_objects(uri).below("mine")


def begin(host: Host, study_id: str = "x") -> StudyFolder:
    """Begin a study on a host, as a driver does."""
    folder = host.update()
    folder.root.mkdir(parents=True)
    folder.environment.write_text(json.dumps({"study_id": study_id}))
    folder.configuration.write_text("name: mine\n")
    folder.push()
    return folder


def list_files(folder: StudyFolder) -> list[str]:
    files = (path for path in folder.root.rglob("*") if path.is_file() and path.name != KNOWN)
    return sorted(path.relative_to(folder.root).as_posix() for path in files)


def test_a_study_that_is_not_there_leaves_nothing(here: Host, objects: Objects) -> None:
    folder = here.update()
    folder.push()
    assert not folder.root.exists()
    assert objects.list_sizes() == {}


def test_files_and_events_reach_another_host(here: Host, there: Host, objects: Objects) -> None:
    folder = begin(here)
    here.append(*EVENTS)
    Mask.dense(SHAPE).save(folder.mask(0.5))
    folder.push()
    other = there.update()
    assert list_files(other) == list_files(folder)
    for name in list_files(folder):
        assert (other.root / name).read_bytes() == (folder.root / name).read_bytes()
    assert list(History(other.history).events()) == EVENTS
    names = [name for name in objects.list_sizes() if name.startswith("history/")]
    assert sorted(names) == [f"history/{number:08d}.json" for number in range(len(EVENTS))]


def test_an_event_is_an_object_before_it_is_a_line(
    here: Host, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(here)

    def die(self: History, line: bytes) -> None:
        raise KeyboardInterrupt

    here.append(EVENTS[0])
    with monkeypatch.context() as patch:
        patch.setattr(History, "_write", die)
        with pytest.raises(KeyboardInterrupt):
            here.append(EVENTS[1])
    assert objects.exists("history/00000001.json")
    assert len(list(History(here.open().history).events())) == 1
    here.update()
    here.append(EVENTS[2])
    assert list(History(here.open().history).events()) == EVENTS[:3]


def test_an_event_that_the_storage_refuses_is_no_event(
    here: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(here)

    def refuse(*arguments: object) -> bool:
        raise StorageError("storage: cannot create")

    monkeypatch.setattr(Objects, "create", refuse)
    with pytest.raises(StorageError, match="cannot create"):
        here.append(EVENTS[0])
    assert not here.open().history.exists()


def test_the_second_writer_of_an_event_is_found_out(here: Host, there: Host) -> None:
    begin(here)
    here.append(*EVENTS[:2])
    there.update()
    there.append(EVENTS[2])
    with pytest.raises(StudyExistsError, match=r"another driver works on it.* event 2"):
        here.append(EVENTS[2])  # the same event, by somebody else
    assert list(History(there.open().history).events()) == EVENTS[:3]
    assert len(list(History(here.open().history).events())) == 2
    here.update()
    assert list(History(here.open().history).events()) == EVENTS[:3]


@given(
    known=st.integers(0, 5), packed=st.integers(0, 5), cut=st.integers(0, 40), strange=st.booleans()
)
def test_whatever_is_here_the_events_are_those_of_the_mirror(
    known: int, packed: int, cut: int, strange: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Lines of an earlier session, a packed file of another time, a line cut off, another study."""
    uri = f"memory://{uuid.uuid4().hex}"
    here, there, third = (Host(uri, tmp_path_factory.mktemp(name)) for name in "abc")
    folder = begin(here)
    here.append(*EVENTS[:packed])
    folder.push()
    if known > packed:
        here.append(*EVENTS[packed:known])
    other = there.update()
    here.append(*EVENTS[max(known, packed) :])
    if cut and other.history.exists():
        data = other.history.read_bytes()
        other.history.write_bytes(data[: -min(cut, len(data))])
    if strange and other.history.exists():
        data = other.history.read_bytes()
        other.history.write_bytes(data.replace(b"writer", b"author"))
    for host in (there, third):
        assert list(History(host.update().history).events()) == EVENTS
        assert host.open().history.read_bytes() == folder.history.read_bytes()


def test_what_is_known_is_not_read_again(
    here: Host, there: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(here)
    here.append(*EVENTS[:3])
    other = there.update()
    here.append(*EVENTS[3:])
    asked: list[str] = []
    original = Objects.read_many

    def note(self: Objects, names: list[str]) -> dict[str, bytes]:
        asked.extend(names := list(names))
        return original(self, names)

    monkeypatch.setattr(Objects, "read_many", note)
    there.update()
    assert [name for name in asked if name.startswith("history/")] == [
        "history/00000003.json",
        "history/00000004.json",
    ]
    changed = other.history.stat().st_mtime_ns
    there.update()
    assert other.history.stat().st_mtime_ns == changed


def test_an_event_that_is_missing_is_named(here: Host, there: Host, objects: Objects) -> None:
    begin(here)
    here.append(*EVENTS)
    objects.remove("history/00000002.json")
    with pytest.raises(StorageError, match=r"event 2 is missing; restore .*00000002"):
        there.update()


def test_what_is_for_this_machine_stays_here(here: Host, there: Host) -> None:
    folder = begin(here)
    local = ["optuna.journal", "optuna.journal.lock", "mlflow.db", "mlflow.db-wal"]
    local += ["mlflow-artifacts/a/b", "ray/session/x", "masks/.mask.x1", ".hidden"]
    for name in [*local, "rays.json"]:
        (folder.root / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.root / name).write_text(name)
    folder.push()
    assert list_files(there.update()) == ["environment.json", "rays.json", "study.yaml"]
    here.update()
    assert set(local) < set(list_files(folder))


def test_what_changed_there_is_taken_and_what_changed_here_is_pushed(
    here: Host, there: Host
) -> None:
    mine = begin(here)
    for name in "abcd":
        (mine.root / name).write_text("first")
    mine.push()
    other = there.update()
    (mine.root / "a").write_text("second")
    (mine.root / "b").unlink()
    mine.push()
    (other.root / "c").write_text("of there")
    (other.root / "e").write_text("new there")
    there.update()
    texts = {name: (other.root / name).read_text() for name in "acde"}
    assert texts == {"a": "second", "c": "of there", "d": "first", "e": "new there"}
    assert not (other.root / "b").exists()
    other.push()
    here.update()
    assert list_files(mine) == list_files(other)
    assert (mine.root / "c").read_text() == "of there"


def test_nothing_is_written_twice(here: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begin(here)
    written: list[str] = []
    original = Objects.write

    def note(self: Objects, name: str, data: bytes) -> None:
        written.append(name)
        original(self, name, data)

    monkeypatch.setattr(Objects, "write", note)
    (folder.root / "a").write_text("x")
    folder.push()
    folder.push()
    here.update()
    folder.push()
    assert written == ["a"]


def test_a_study_begun_afresh_elsewhere_replaces_the_working_copy(here: Host, there: Host) -> None:
    mine = begin(here, "first")
    here.append(*EVENTS)
    mine.optuna_journal.write_text("of the first")
    other = there.update()
    other.set_aside("mine.before-20261121-120000")
    assert not other.root.exists()
    begin(there, "second")
    there.append(make_start(0))
    here.update()
    assert list_files(mine) == ["environment.json", "history.jsonl", "study.yaml"]
    assert list(History(mine.history).events()) == [make_start(0)]
    aside = there.open("mine.before-20261121-120000")
    aside.pull()
    assert list(History(aside.history).events()) == EVENTS


def test_a_study_that_was_removed_is_gone_here_too(here: Host, objects: Objects) -> None:
    folder = begin(here)
    for name in objects.list_sizes():
        objects.remove(name)
    here.update()
    assert not folder.root.exists()


@pytest.mark.parametrize("name", ["../../escaped", "masks/../../../escaped", "a//b"])
def test_no_object_leaves_the_folder(
    name: str, here: Host, there: Host, objects: Objects, tmp_path: Path
) -> None:
    begin(here)
    objects.write(name, b"evil")
    with pytest.raises(StorageError, match="would be a file outside the study's folder"):
        there.update()
    assert not list(tmp_path.rglob("escaped"))


class TestReferences:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    @pytest.fixture
    def study(self, uri: str, here: Host) -> str:
        folder = begin(here)
        Mask.dense(SHAPE).save(folder.mask(0.5))
        folder.push()
        return f"{uri}/mine"

    def test_a_study_is_found(self, study: str, tmp_path: Path, uri: str) -> None:
        for text in (study, f"{study}/"):
            folder = find_study(text)
            assert (folder.uri, folder.name, folder.reference) == (uri, "mine", study)
            assert folder.root.is_relative_to(tmp_path / "cache" / "distprune" / "studies")
            assert folder.place.store == f"{uri}/store"
            assert folder.open_store().root == folder.place.store

    def test_a_mask_is_loaded(self, study: str) -> None:
        assert load_mask_reference(f"{study}/best@50%") == Mask.dense(SHAPE)

    @pytest.mark.parametrize("name", ["nothing", "..", "a b", ".mine.lock"])
    def test_no_study(self, study: str, uri: str, name: str) -> None:
        with pytest.raises(ConfigError, match="holds no study"):
            find_study(f"{uri}/{name}")
        with pytest.raises(ConfigError, match="holds no study"):
            find_study("memory://bucket")

    def test_storages_are_told_apart(self, tmp_path: Path) -> None:
        one, other = (locate_storage(f"s3://bucket/{name}") for name in "ab")
        assert one.folder != other.folder
        assert locate_storage("s3://bucket/a/") == one
        assert locate_storage(tmp_path.as_uri()) == locate_storage(tmp_path)
        assert locate_storage("x", tmp_path).folder == tmp_path / "x"
        assert locate_storage("x", tmp_path).uri is None

    def test_names_are_listed(self, study: str, uri: str) -> None:
        storage = open_objects(uri)
        for name in ("store/entries/x", ".mine.lock/1.json", "other/study.yaml", "a b/c", "top"):
            storage.write(name, b"")
        assert locate_storage(uri).list_names() == ["mine", "other"]
        assert locate_storage(uri).has_store()


def test_a_driver_on_this_machine_keeps_its_working_copy(here: Host) -> None:
    from distprune.search.driver_lease import hold_study

    folder = begin(here)
    assert folder.mirror is not None
    with hold_study(folder.lease, folder.name):
        study_folder._open_mirror.cache_clear()
        objects = open_objects(here.uri).below("mine")
        objects.write("new", b"x")
        folder.pull()
        assert not (folder.root / "new").exists()
        (folder.root / "half").write_text("of the driver")
        folder.push()
        assert not objects.exists("half")
    folder.pull()
    assert (folder.root / "new").exists()


def test_trials_are_read_from_the_working_copy(here: Host, there: Host) -> None:
    begin(here)
    here.append(*EVENTS)
    trials = read_trials(History(there.update().history).events())
    assert sorted(trials) == [0, 1]
    assert trials[0].end is not None
