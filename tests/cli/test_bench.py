"""`distprune bench`: what is measured, what is printed, what is refused; never how fast it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distprune.cli.bench import list_conditions
from distprune.core.latency_table import Conditions, read_table, write_table
from distprune.core.mask import Mask
from distprune.deployment.latency import keep_evenly
from distprune.deployment.machine import count_cpus
from tests.cli.conftest import Finished, RunCommand
from tests.cli.refusal import check_refusal
from tests.core.latencies import MACHINE, make_table
from tests.tiny_study import SHAPE

SMALL = ("--batch", 2, "--length", 8, "--threads", 1, "--rounds", 6)

RunBench = Callable[..., Finished]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def run_bench(run_command: RunCommand) -> RunBench:
    def run(*arguments: object) -> Finished:
        return run_command("bench", *arguments)

    return run


@pytest.fixture
def mask(tmp_path: Path, mlm_checkpoint: Path) -> Path:
    """A mask that names its checkpoint."""
    path = tmp_path / "mask.safetensors"
    metadata = {"checkpoint": {"name": str(mlm_checkpoint)}}
    keep_evenly(SHAPE, 2, 10).with_metadata(metadata).save(path)
    return path


def measure(finished: Finished) -> Any:
    assert finished.code == 0, finished.err
    return json.loads(finished.out)


class TestConditions:
    """Which combinations are measured."""

    def test_every_one_once(self) -> None:
        found = list_conditions([1, 32, 1], [32, 128], [1, 2], "float32", "cpu")
        assert len(found) == 8
        assert found[0] == Conditions(1, 32, 1)
        assert found[-1] == Conditions(32, 128, 2)

    def test_threads_default_to_one_and_all(self) -> None:
        found = list_conditions([1], [8], None, "float32", "cpu")
        assert {one.threads for one in found} == {1, count_cpus()}
        assert {one.threads for one in list_conditions([1], [8], None, "float32", "cuda")} == {1}


class TestSubject:
    """A checkpoint, a mask, a folder that distprune saved."""

    def test_dense_checkpoint_is_compared_with_nothing(
        self, run_bench: RunBench, mlm_checkpoint: Path
    ) -> None:
        (one,) = measure(run_bench(mlm_checkpoint, *SMALL, "--json"))["comparisons"]
        assert one["latency"]["count"] == 6
        assert (one["dense"], one["speed_up"], one["promised"]) == (None, None, None)
        text = run_bench(mlm_checkpoint, *SMALL).out
        assert "speed-up\n" not in text
        assert "dense" not in text

    def test_mask_beside_the_checkpoint_that_it_names(
        self, run_bench: RunBench, mask: Path
    ) -> None:
        values = measure(run_bench(mask, *SMALL, "--json"))
        (one,) = values["comparisons"]
        assert one["conditions"] == {
            "batch": 2,
            "length": 8,
            "threads": 1,
            "dtype": "float32",
            "device": "cpu",
        }
        assert one["promised"] == pytest.approx(2.0)
        assert one["speed_up"]["low"] <= one["speed_up"]["median"] <= one["speed_up"]["high"]
        assert one["realised"] == pytest.approx(one["speed_up"]["median"] / 2)
        assert values["machine"]["cpus"] == count_cpus()
        assert set(values["versions"]) == {"python", "torch", "transformers"}

    def test_table_for_people(self, run_bench: RunBench, mask: Path) -> None:
        finished = run_bench(mask, *SMALL)
        assert finished.code == 0
        assert f"Latency of {mask}\n" in finished.out
        for words in ("speed-up", "MACs", "2.00", "order statistics", "without padding"):
            assert words in finished.out
        assert "torch " in finished.out.splitlines()[-1]
        assert "measuring: 2 x 8 tokens, 1 thread, float32, cpu" in finished.err

    def test_mask_with_another_checkpoint(
        self, run_bench: RunBench, tmp_path: Path, body_checkpoint: Path
    ) -> None:
        path = tmp_path / "mask.safetensors"
        keep_evenly(SHAPE, 1, 5).save(path)
        check_refusal(run_bench(path, *SMALL), 2, "does not name its checkpoint; say --model")
        finished = run_bench(path, "--model", body_checkpoint, *SMALL, "--json")
        assert measure(finished)["comparisons"][0]["promised"] == pytest.approx(4.0)

    def test_mask_of_another_shape(
        self, run_bench: RunBench, tmp_path: Path, mlm_checkpoint: Path
    ) -> None:
        path = tmp_path / "mask.safetensors"
        Mask.dense(replace(SHAPE, num_heads=2)).save(path)
        finished = run_bench(path, "--model", mlm_checkpoint, *SMALL)
        check_refusal(finished, 2, "mask: made for 2 layers of 2 heads")

    def test_folder_that_distprune_saved(
        self, run_bench: RunBench, tmp_path: Path, mask: Path, mlm_checkpoint: Path
    ) -> None:
        from distprune.deployment.compact_folder import MASK_FILE, save
        from distprune.models.checkpoint import load_classifier

        folder = tmp_path / "small"
        dense, _ = load_classifier(str(mlm_checkpoint), 2, seed=0)
        kept = Mask.load(mask)
        save(kept.compact(dense), folder, kept)
        (one,) = measure(run_bench(folder, *SMALL, "--json"))["comparisons"]
        assert one["promised"] == pytest.approx(2.0)
        (folder / MASK_FILE).unlink()
        (one,) = measure(run_bench(folder, *SMALL, "--json"))["comparisons"]
        assert (one["dense"], one["speed_up"]) == (None, None)
        assert "compared with nothing" in run_bench(folder, *SMALL).out
        refused = run_bench(folder, *SMALL, "--table", tmp_path / "latency.json")
        check_refusal(refused, 2, "--table: the dense form of", "is not known")

    def test_bfloat16(self, run_bench: RunBench, mask: Path) -> None:
        finished = run_bench(mask, *SMALL, "--dtype", "bfloat16", "--json")
        assert measure(finished)["comparisons"][0]["conditions"]["dtype"] == "bfloat16"


class TestTable:
    """A table is measured once, checked, and added to."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "latency.json"

    def test_measured_and_checked(
        self, run_bench: RunBench, mlm_checkpoint: Path, file: Path
    ) -> None:
        finished = run_bench(mlm_checkpoint, *SMALL, "--table", file, "--check", 2)
        assert finished.code == 0
        (latencies,) = read_table(file).latencies
        assert latencies.conditions == Conditions(2, 8, 1)
        assert latencies.error is not None
        assert latencies.error.num_masks == 2
        assert "largest" in finished.out
        assert "2 x 8 tokens, 1 thread, float32, cpu\n" in finished.out
        assert "Latency of" not in finished.out

    def test_what_is_there_is_not_measured_again(
        self, run_bench: RunBench, mlm_checkpoint: Path, file: Path
    ) -> None:
        first = ("--batch", 2, "--length", 8, "--threads", 1, "--rounds", 6, "--table", file)
        assert run_bench(mlm_checkpoint, *first, "--check", 0).code == 0
        before = read_table(file)
        finished = run_bench(mlm_checkpoint, *first, "--length", 4, "--check", 0)
        assert finished.err.count("measuring the layers") == 1
        after = read_table(file)
        assert after.select(length=8) == before.select()
        assert {one.conditions.length for one in after.latencies} == {4, 8}
        finished = run_bench(mlm_checkpoint, *first, "--check", 0, "--measure-again")
        assert finished.err.count("measuring the layers") == 1

    def test_folder_gets_the_file(
        self, run_bench: RunBench, mlm_checkpoint: Path, tmp_path: Path
    ) -> None:
        arguments = (*SMALL, "--table", tmp_path, "--check", 0)
        assert run_bench(mlm_checkpoint, *arguments).code == 0
        assert (tmp_path / "latency.json").exists()

    def test_mask_is_measured_and_predicted(
        self, run_bench: RunBench, mask: Path, file: Path
    ) -> None:
        values = measure(run_bench(mask, *SMALL, "--table", file, "--check", 0, "--json"))
        (one,) = values["comparisons"]
        expected = read_table(file).predict(Mask.load(mask), batch=2, length=8)
        assert one["predicted"] == pytest.approx(expected)
        assert values["table"]["schema"] == "distprune.latency_table/1"

    def test_programs_get_every_check(
        self, run_bench: RunBench, mlm_checkpoint: Path, file: Path
    ) -> None:
        arguments = (*SMALL, "--table", file, "--check", 2, "--json")
        (one,) = measure(run_bench(mlm_checkpoint, *arguments))["checks"]
        assert len(one["masks"]) == 2
        assert one["masks"][0]["measured"] > 0

    def test_table_of_another_machine(
        self, run_bench: RunBench, mlm_checkpoint: Path, file: Path
    ) -> None:
        run_bench(mlm_checkpoint, *SMALL, "--table", file, "--check", 0)
        write_table(replace(read_table(file), machine=MACHINE), file)
        before = file.read_bytes()
        refused = run_bench(mlm_checkpoint, *SMALL, "--table", file)
        check_refusal(refused, 2, "measured on Fast 9000", "or say --any-machine")
        assert file.read_bytes() == before
        allowed = run_bench(mlm_checkpoint, *SMALL, "--table", file, "--any-machine", "--check", 1)
        assert allowed.code == 0
        assert "measuring the layers" not in allowed.err

    def test_table_of_another_architecture(
        self, run_bench: RunBench, mlm_checkpoint: Path, file: Path
    ) -> None:
        other = make_table().architecture
        changed = replace(other, shape=replace(other.shape, num_layers=9))
        write_table(make_table(architecture=changed), file)
        refused = run_bench(mlm_checkpoint, *SMALL, "--table", file, "--any-machine")
        check_refusal(refused, 2, "measured of bert with 9 layers")

    def test_damaged_table(self, run_bench: RunBench, mlm_checkpoint: Path, file: Path) -> None:
        file.write_text("{")
        refused = run_bench(mlm_checkpoint, *SMALL, "--table", file)
        check_refusal(refused, 2, str(file), "cannot be read")
        assert file.read_text() == "{"


class TestBadInput:
    """One line each."""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--length", 999), "length: 999 tokens; the model takes 32 at most"),
            (("--rounds", 5), "--rounds: 5; a 95 % interval takes 6 at least"),
            (("--device", "cuda"), "device: 'cuda' and torch finds no GPU"),
        ],
        ids=str,
    )
    def test_conditions(
        self,
        arguments: tuple[Any, ...],
        words: str,
        run_bench: RunBench,
        mlm_checkpoint: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        finished = run_bench(mlm_checkpoint, *SMALL, *arguments)
        assert finished.code == 2
        last = finished.err.splitlines()[-1]
        assert last.startswith(f"error: {words}")

    def test_nothing_there(self, run_bench: RunBench, tmp_path: Path) -> None:
        check_refusal(run_bench(tmp_path / "nowhere"), 2, "does not exist")

    def test_study_without_that_mask(self, run_bench: RunBench, tmp_path: Path) -> None:
        check_refusal(run_bench(f"{tmp_path}/best@0.5"), 2, "holds no study")

    def test_damaged_configuration(self, run_bench: RunBench, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{")
        check_refusal(run_bench(tmp_path), 2, "config.json", "cannot be read")
