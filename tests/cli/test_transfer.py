"""`distprune transfer`: from the command line to what is measured, the table, the files."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from distprune import Mask
from distprune.cli.downstream_tables import format_transfer
from distprune.cli.transfer import choose_storage, write_results
from distprune.cli.transfer_plan import Call, plan_transfer
from distprune.errors import ConfigError, DatasetError, MaskError
from distprune.library.study_folder import StudyFolder, StudyStorage
from distprune.search.transfer import NamedMask
from tests.cli.best_masks import MASKS, write_ended_study
from tests.cli.conftest import RunCommand
from tests.cli.refusal import check_refusal
from tests.library.transfer_tables import make_cell, make_column, make_row, make_table
from tests.trial.studies import keep


@pytest.fixture
def ended(tmp_path: Path) -> StudyFolder:
    """A study on demo:movies that has ended."""
    return write_ended_study(tmp_path / "studies", dataset="demo:movies")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mask.safetensors"
    keep(3, 11).with_metadata({"checkpoint": {"name": "./tiny-bert"}}).save(path)
    return path


def write_task(folder: Path, name: str, **settings: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"dataset": f"{name}.csv", **settings}))
    return path


class TestPlan:
    def test_demo(self) -> None:
        plan = plan_transfer(Call(is_search=True, is_demo=True, milestone=0.3))
        assert list(plan.tasks) == ["movies", "amazon", "tweets", "nyt"]
        assert {task.max_length for task in plan.tasks.values()} == {48}
        assert plan.masks == ()
        assert plan.spec.checkpoint == "demo:minilm"
        assert plan.spec.pruning.target_sparsity == plan.milestone == 0.3
        assert plan.seeds == (1, 2, 3)

    def test_limit_and_settings_hold_for_every_task(self, tmp_path: Path) -> None:
        task = write_task(tmp_path, "mine", max_length=64)
        call = Call(
            is_search=True,
            model="./bert",
            tasks=("demo:nyt", str(task)),
            overrides={"task.search_limit": 50, "retraining.epochs": 2, "resources.shared_cpus": 1},
            limit=100,
            num_seeds=1,
        )
        plan = plan_transfer(call)
        assert list(plan.tasks) == ["nyt", "mine"]
        assert {(t.train_limit, t.search_limit) for t in plan.tasks.values()} == {(100, 50)}
        assert [task.max_length for task in plan.tasks.values()] == [128, 64]
        assert plan.tasks["mine"].dataset == "mine.csv"
        assert plan.spec.retraining.epochs == 2
        assert call.read_resources().shared_cpus == 1

    def test_settings_of_a_search(self) -> None:
        overrides = {"pruning.mixing.coefficient": 0.0, "pruning.schedule.levels": 2}
        plan = plan_transfer(
            Call(is_search=True, is_demo=True, overrides=overrides, rewinding="continue")
        )
        assert plan.spec.pruning.mixing.coefficient == 0.0
        assert plan.spec.pruning.schedule.levels == 2
        assert plan.spec.pruning.rewinding == "continue"
        assert plan.rewinding_points == (1.0,)

    def test_best_masks_of_studies(self, ended: StudyFolder) -> None:
        plan = plan_transfer(Call(studies=(str(ended.root),), milestone=0.25))
        (mask,) = plan.masks
        assert (mask.name, mask.home, mask.mask) == ("tiny", "movies", MASKS[0.25])
        assert plan.milestone == 0.25
        assert plan.spec.checkpoint == "tiny"
        assert {task.max_length for task in plan.tasks.values()} == {16}
        assert plan.spec.fine_tuning.epochs == 6.0

    def test_last_milestone_and_the_study_s_own_rewinding(self, ended: StudyFolder) -> None:
        """It was not searched for, so the mask's metadata does not have it."""
        plan = plan_transfer(Call(studies=(str(ended.root),)))
        assert plan.milestone == 0.5
        assert plan.masks[0].rewinding == 0.5
        given = plan_transfer(Call(studies=(str(ended.root),), rewinding="0.2"))
        assert given.masks[0].rewinding == 0.2
        assert given.rewinding_points == (0.2,)

    def test_settings_of_a_study_s_own_data_hold_on_no_other(self, tmp_path: Path) -> None:
        folder = write_ended_study(tmp_path, dataset="reviews.csv")
        plan = plan_transfer(Call(studies=(folder.root,)))
        assert {task.max_length for task in plan.tasks.values()} == {128}
        assert plan.masks[0].home is None

    def test_files_are_at_home_where_they_say(self, file: Path, tmp_path: Path) -> None:
        found = tmp_path / "found.safetensors"
        keep(3, 11, seed=3).with_metadata({"task": {"dataset": "demo:nyt"}}).save(found)
        call = Call(masks=(f"movies={file}", f"mine={file}", f"other={found}"), model="tiny")
        assert [mask.home for mask in plan_transfer(call).masks] == ["movies", None, "nyt"]

    def test_checkpoint_of_the_masks(self, file: Path) -> None:
        assert plan_transfer(Call(masks=(f"m={file}",))).spec.checkpoint == "./tiny-bert"
        assert plan_transfer(Call(masks=(f"m={file}",), model="other")).spec.checkpoint == "other"


class TestRefusal:
    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (Call(), "--search .*one of the two"),
            (Call(is_search=True, masks=("m=f",)), "one of the two"),
            (Call(is_search=True), "--model: nothing says which checkpoint"),
            (Call(masks=("file",)), "--masks 'file': has no name and file"),
            (Call(is_demo=True, is_search=True, tasks=("demo:nyt",) * 2), "'nyt' names two"),
            (Call(is_demo=True, is_search=True, overrides={"checkpoint": "x"}), "no setting"),
            (Call(is_demo=True, is_search=True, tasks=("movies",)), "neither a demo task"),
        ],
    )
    def test_call(self, call: Call, words: str) -> None:
        with pytest.raises(ConfigError, match=words) as caught:
            plan_transfer(call)
        assert "\n" not in str(caught.value)

    def test_unknown_demo_task(self) -> None:
        with pytest.raises(DatasetError, match=r"'demo:movie' .* did you mean 'demo:movies'\?"):
            plan_transfer(Call(is_demo=True, is_search=True, tasks=("demo:movie",)))

    def test_two_masks_of_one_name(self, file: Path) -> None:
        with pytest.raises(ConfigError, match="'m' names two of them"):
            plan_transfer(Call(masks=(f"m={file}", f"m={file}")))

    def test_pruning_settings_of_masks_that_are_given(self, file: Path) -> None:
        overrides = {"pruning.target_sparsity": 0.3}
        with pytest.raises(ConfigError, match=r"--set pruning.target_sparsity: is no setting"):
            plan_transfer(Call(masks=(f"m={file}",), overrides=overrides))

    def test_milestone_that_a_study_has_not(self, ended: StudyFolder) -> None:
        with pytest.raises(ConfigError, match=r"0\.3 is none of study 'tiny'; it has 0\.25, 0\.5"):
            plan_transfer(Call(studies=(str(ended.root),), milestone=0.3))

    def test_damaged_mask(self, tmp_path: Path) -> None:
        (tmp_path / "m").write_bytes(b"\x80\x04pickle")
        with pytest.raises(MaskError, match="not a safetensors file"):
            plan_transfer(Call(masks=(f"m={tmp_path / 'm'}",)))

    def test_resources(self) -> None:
        with pytest.raises(ConfigError, match=r"resources\.cpus_per_stage: 0"):
            Call(overrides={"resources.cpus_per_stage": 0}).read_resources()

    def test_folder_without_a_study(self, tmp_path: Path, run_command: RunCommand) -> None:
        check_refusal(run_command("transfer", tmp_path / "no"), 2, "holds no study")

    def test_bad_call(self, run_command: RunCommand) -> None:
        check_refusal(run_command("transfer"), 2, "one of the two")


def test_storage_is_that_of_the_first_study(ended: StudyFolder, tmp_path: Path) -> None:
    studies = (str(ended.root),)
    assert choose_storage(None, studies) == ended.place
    assert choose_storage(str(tmp_path / "mine"), studies) == StudyStorage(tmp_path / "mine")
    assert choose_storage("s3://bucket/mine/", studies).store == "s3://bucket/mine/store"
    assert choose_storage(None, ()) == StudyStorage(Path.cwd() / "studies")


def test_files_of_a_transfer(tmp_path: Path) -> None:
    table = make_table()
    write_results(table, [NamedMask("movies", keep(3, 11), "movies", 0.0)], tmp_path)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert names == [
        "masks/movies.safetensors",
        "transfer.csv",
        "transfer.json",
        "transfer.png",
    ]
    assert Mask.load(tmp_path / "masks" / "movies.safetensors") == keep(3, 11)
    assert (tmp_path / "transfer.json").read_text() == table.to_json()
    assert json.loads(table.to_json())["seeds"] == [1, 2]


def render(table: Any, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(format_transfer(table))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.parametrize("width", [80, 160])
def test_table_for_people(width: int) -> None:
    lines = render(make_table(), width)
    assert "movies 0.820 ± 0.028* 0.400 ± 0.141" in lines
    assert "+0.120 ± 0.028 +0.100 ± 0.283" in lines
    assert "random 0.700 ± 0.000 0.500 ± 0.141" in lines
    assert "dense 0.910 ± 0.014 0.910 ± 0.014" in lines
    assert "constant 0.500 0.500" in lines
    text = " ".join(lines)
    assert "mean ± standard deviation over 2 seeds" in text
    assert "* = the mask was found on this task" in text
    assert "Each mask keeps 4 heads and 20 neurons." in text


def test_four_domains_fit_a_terminal() -> None:
    names = ("movies", "amazon", "tweets", "nyt")
    table = replace(
        make_table(),
        rows=tuple(make_row(name, name) for name in names),
        columns=tuple(make_column(name) for name in names),
        cells=tuple(
            make_cell(mask, task, [0.8, 0.84], [0.7, 0.7]) for mask in names for task in names
        ),
    )
    lines = render(table, 80)
    cells = ["0.820 ± 0.028*" if name == "nyt" else "0.820 ± 0.028" for name in names]
    assert " ".join(["nyt", *cells]) in lines


def test_column_in_which_nothing_was_learned() -> None:
    """The dense model's error on `prices` is 0.91, that of a constant prediction 0.5."""
    text = " ".join(render(make_table(), 100))
    assert "on prices the dense model is no better than a constant prediction" in text
    learned = replace(make_column("prices", higher_is_better=False), floor=0.95)
    table = make_table()
    table = replace(table, columns=(table.columns[0], learned))
    assert "warning" not in " ".join(render(table, 100))


def test_masks_of_two_sizes_have_two_random_masks() -> None:
    table = make_table()
    small = replace(make_row("small"), heads=2)
    cells = [make_cell("small", task, [0.6, 0.6], [0.5, 0.5]) for task in ("movies", "prices")]
    lines = render(
        replace(table, rows=(*table.rows, small), cells=(*table.cells, *cells)), width=120
    )
    assert "random as small 0.500 ± 0.000 0.500 ± 0.000" in lines
    assert "Each mask keeps" not in " ".join(lines)


def test_table_of_one_seed_states_no_spread() -> None:
    table = make_table()
    cells = tuple(
        replace(cell, metrics=cell.metrics[:1], random=cell.random[:1]) for cell in table.cells
    )
    columns = tuple(replace(column, dense=column.dense[:1]) for column in table.columns)
    text = " ".join(render(replace(table, seeds=(1,), cells=cells, columns=columns), 100))
    assert "one seed" in text
    assert "± 0" not in text
