"""From a stage's submission to its first training step, in a cold worker and in a warm one.

python -m scripts.benchmark.worker_start WORK --examples 320 --stages 5
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import ray

from distprune.search.cluster import connect_cluster
from distprune.search.stage_broker import RayExecutor, start_broker
from distprune.search.study_file import load_study
from distprune.store.store import Store
from distprune.trial import executor
from distprune.trial.executor import StageWork
from distprune.trial.resolve import resolve_context
from distprune.trial.stages import TrialStages
from scripts.benchmark.changed_search import connect
from scripts.benchmark.configurations import QUICKSTART
from scripts.benchmark.models import draw_mask
from scripts.benchmark.switches import replace_attribute

NOTES = "DISTPRUNE_BENCHMARK_STEPS"
"""Environment variable: the file in which workers note their first training steps."""


def install() -> None:
    """Have this worker note when each of its stages begins and takes its first training step."""

    def note_stages(original: Any) -> Any:
        def find_work(stage: str) -> StageWork:
            found = time.time()
            work: StageWork = original(stage)
            note_first_steps(found)
            return work

        return find_work

    replace_attribute(executor, "find_work", note_stages)


def note_first_steps(found: float) -> None:
    """Note the first step of each training; `found` is when the worker began the stage."""
    from distprune.trial.work import training

    class NotingTrainer(training._DistillingTrainer):
        has_begun = False

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if not self.has_begun:
                self.has_begun = True
                note = {"pid": os.getpid(), "found": found, "stepped": time.time()}
                with Path(os.environ[NOTES]).open("a") as file:
                    file.write(json.dumps(note) + "\n")
            return super().training_step(*args, **kwargs)

    training._DistillingTrainer = NotingTrainer  # type: ignore[misc]


def measure_starts(work: Path, examples: int, num_stages: int) -> list[dict[str, Any]]:
    """Fine-tune once, retrain under several masks one after the other, and time each one's start.

    Returns:
        For each stage: its worker's process, the seconds from submission to the worker's work, and
        those to the first training step.
    """
    os.environ[NOTES] = str(work / "steps.jsonl")
    limits = {f"trial.task.{split}_limit": examples for split in ("train", "search", "report")}
    study = load_study(QUICKSTART, limits)
    store = Store(str(work / "store"))
    context = resolve_context(study.base, store, study.rewinding_points, uses_gpu=False)
    # As `distprune search` starts Ray, with a hook in each worker.
    ray.init = partial(connect, ray.init, "scripts.benchmark.worker_start.install")
    with connect_cluster(None, verbose=False):
        resources = replace_shared(study.spec.resources)
        stages = TrialStages(
            study.base, context, store, RayExecutor(start_broker(store, resources), store)
        )
        starts = [time.time()]
        dense = stages.dense().weights
        for index in range(num_stages):
            starts.append(time.time())
            stages.retrain(dense, draw_mask(context.shape, 0.1 * (index + 1)))
    notes = [json.loads(line) for line in Path(os.environ[NOTES]).read_text().splitlines()]
    return [
        {
            "pid": note["pid"],
            "to_worker_s": note["found"] - start,
            "to_step_s": note["stepped"] - start,
        }
        for start, note in zip(starts, notes, strict=True)
    ]


def replace_shared(resources: Any) -> Any:
    """Return resources in which the dense stage has no more cores than the others."""
    return resources.model_copy(update={"shared_cpus": 1, "gpus_per_stage": 0.0})


def main() -> None:
    """Print the starts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--examples", type=int, default=320)
    parser.add_argument("--stages", type=int, default=5)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(json.dumps(measure_starts(arguments.work, arguments.examples, arguments.stages)))


if __name__ == "__main__":
    main()
