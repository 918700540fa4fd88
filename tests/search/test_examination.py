"""Asking nodes, on a real cluster of one: what they answer, and what if one fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from distprune.search import examination
from distprune.search.examination import (
    PACKAGES,
    Answer,
    Questions,
    ask_all,
    ask_driver,
    describe_silence,
    list_nodes,
)
from distprune.search.findings import DRIVER
from distprune.search.node_checks import NodeExaminer

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture
def questions(tmp_path: Path, mlm_checkpoint: Path) -> Questions:
    return Questions(str(tmp_path), str(mlm_checkpoint), {"storage": str(tmp_path), "ray": "/tmp"})


def ask(questions: Questions) -> tuple[Answer, Answer]:
    driver, (node,) = ask_all(questions)
    return driver, node


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
class TestCluster:
    def test_node_answers_as_the_driver_does(self, questions: Questions, tmp_path: Path) -> None:
        driver, node = ask(questions)
        assert (driver.node, node.node) == (DRIVER, list_nodes()[0].name)
        assert node.problem == driver.problem == ""
        assert node.versions == driver.versions
        assert set(node.versions) == {"python", "distprune", "distprune code", *PACKAGES}
        assert node.written == driver.written == ""
        assert node.unread == driver.unread == {}
        assert node.checkpoint == driver.checkpoint
        assert node.resources["CPU"] == 1.0
        assert node.memory["available"] > 0
        assert node.clock is not None
        assert abs(node.clock.ahead_s) <= node.clock.error_s + 0.01
        assert list(tmp_path.iterdir()) == []

    def test_quick_part_looks_at_less(self, questions: Questions) -> None:
        quick = Questions(questions.store, questions.checkpoint, is_thorough=False)
        driver, node = ask(quick)
        assert node.checkpoint["fingerprint"] is None
        assert node.clock is None
        assert not node.memory
        assert node.written == driver.written == ""

    def test_storage_that_is_not_there_is_told(self, questions: Questions, tmp_path: Path) -> None:
        gone = Questions(str(tmp_path / "gone"), questions.checkpoint, is_thorough=False)
        driver, node = ask(gone)
        assert "there is no folder" in driver.written
        assert "there is no folder" in node.written
        assert node.unread == {}

    def test_storage_of_one_process_alone_is_not_shared(self, questions: Questions) -> None:
        memory = Questions("memory://examination", questions.checkpoint, is_thorough=False)
        driver, node = ask(memory)
        assert list(driver.unread) == [node.node]
        assert list(node.unread) == [DRIVER]

    def test_node_that_fails_is_asked_no_further(
        self, questions: Questions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Failing(NodeExaminer):
            def measure_memory(self) -> dict[str, int]:
                raise RuntimeError("the memory\nis gone")

        monkeypatch.setattr(examination, "NodeExaminer", Failing)
        _, node = ask(questions)
        assert node.problem == "RuntimeError: the memory"
        assert node.versions
        assert node.clock is None


def test_driver_alone(questions: Questions, tmp_path: Path) -> None:
    answer = ask_driver(questions)
    assert (answer.node, answer.written, answer.unread) == (DRIVER, "", {})
    assert answer.checkpoint["problem"] == ""
    assert list(tmp_path.iterdir()) == []


def test_nodes_of_one_address_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(address: str, identifier: str, is_alive: bool = True) -> dict[str, object]:
        values = {"NodeManagerAddress": address, "NodeID": identifier, "Resources": {"CPU": 1.0}}
        return {**values, "Alive": is_alive}

    nodes = [make("n1", "aaaaaaaa"), make("n2", "bbbbbbbb"), make("n2", "cccccccc")]
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, make("n3", "dddddddd", is_alive=False)])
    assert [node.name for node in list_nodes()] == ["n1", "n2/bbbbbb", "n2/cccccc"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ray.exceptions.GetTimeoutError("x"), "no answer in 120 s"),
        (ray.exceptions.ActorDiedError(), "no worker starts there, or it has died"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_silence_is_told_in_one_line(error: Exception, words: str) -> None:
    told = describe_silence(error)
    assert told.startswith(words)
    assert "\n" not in told
