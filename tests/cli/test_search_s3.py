"""A study behind s3://: everything dies, and another host with an empty cache goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distprune import Mask
from distprune.errors import ConfigError
from distprune.library.history import History
from distprune.library.study_folder import StudyFolder, find_study
from distprune.store.opening import open_objects
from tests.cli.conftest import RunCommand
from tests.cli.ended_study import MILESTONES, count_runs, describe_trials, tracked_values
from tests.cli.sessions import Ended, start_search
from tests.s3_server import S3Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(600),
]


def count_events(reference: str) -> int:
    """Count the events of a study, as anybody can who watches it."""
    time.sleep(0.5)
    try:
        return len(list(History(find_study(reference).history).events()))
    except ConfigError:
        return 0


def test_another_host_goes_on(
    make_search: Callable[[str], Path],
    undisturbed: Ended,
    s3_uri: str,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_command: RunCommand,
) -> None:
    study = make_search("behind-s3")
    storage, reference = f"{s3_uri}/studies", f"{s3_uri}/studies/tiny"

    def move_to(host: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / host))

    move_to("first")
    with start_search(study, "--storage", storage) as session:
        move_to("watcher")
        session.wait_for(lambda: count_events(reference) >= 3)
        refused = run_command("search", study, "--storage", storage)
        session.kill_all()
    assert refused.code == 2
    assert f"study 'tiny': process {session.process.pid} on " in refused.err
    num_events = count_events(reference)

    s3_server.methods, s3_server.lost_answers = ("PUT",), 5
    move_to("second")
    with start_search(study, "--storage", storage) as session:
        code = session.wait()
    assert code == 0, session.err
    assert "Best masks of tiny" in session.out
    assert f"distprune export {reference}/best@0.6 FOLDER" in session.out
    second = find_study(reference)
    assert count_runs(second) == count_runs(undisturbed.folder)
    assert tracked_values(second) == tracked_values(undisturbed.folder)

    move_to("third")
    here, there = find_study(reference), undisturbed.folder
    assert len(list(History(here.history).events())) > num_events
    check_results(here, there)
    check_verbs(run_command, storage, reference, there, tmp_path)
    names = open_objects(storage).list_sizes()
    assert not [name for name in names if "ray/" in name or "optuna" in name or "mlflow" in name]
    assert [*here.open_store().keys()] == [*there.open_store().keys()]
    assert here.open_store().list_leftovers() == []


def check_results(here: StudyFolder, there: StudyFolder) -> None:
    """Check that a study has come to what the undisturbed one came to."""
    assert describe_trials(here) == describe_trials(there)
    assert here.leaderboard_json.read_bytes() == there.leaderboard_json.read_bytes()
    for milestone in MILESTONES:
        assert here.mask(milestone).read_bytes() == there.mask(milestone).read_bytes()
    figures = [path.name for path in sorted(there.report.iterdir())]
    assert [path.name for path in sorted(here.report.iterdir())] == figures


def check_verbs(
    run_command: RunCommand, storage: str, reference: str, there: StudyFolder, tmp_path: Path
) -> None:
    """Check that the verbs take what is behind a URI."""
    found = json.loads(run_command("results", reference, "--json").out)
    assert found["rows"] == json.loads(there.leaderboard_json.read_text())["rows"]
    shown = run_command("mask", "show", f"{reference}/best@0.6", "--json")
    assert json.loads(shown.out)["digest"] == Mask.load(there.mask(0.6)).digest
    small = tmp_path / "small"
    done = run_command("export", f"{reference}/best@0.6", small, "--no-latency")
    assert (done.code, done.err) == (0, "")
    assert (small / "certificate.json").is_file()
    registered = run_command(
        "register", reference, "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--json"
    )
    assert len(json.loads(registered.out)) == len(MILESTONES)
    status = json.loads(run_command("store", "status", storage, "--json").out)
    assert status["store"] == f"{storage}/store"
    assert status["total"]["entries"] == len(list(there.open_store().keys()))
    assert run_command("store", "verify", storage).code == 0
    kept = json.loads(
        run_command("store", "gc", storage, "--max-gib", 0, "--dry-run", "--json").out
    )
    assert any(row["what"].startswith("pinned: mask library of tiny") for row in kept["stays"])
    nothing = run_command("results", f"{storage}/nothing")
    assert (nothing.code, "holds no study" in nothing.err) == (2, True)
