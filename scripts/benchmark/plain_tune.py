"""Plain Tune with OptunaSearch and ASHA, no logger, and trials that do nothing.

python -m scripts.benchmark.plain_tune FOLDER --trials 1000 --concurrent 2 --milestones 5
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch


def do_nothing(config: dict[str, Any], num_milestones: int) -> None:
    """Report a value that the configuration decides, once for each milestone."""
    for milestone in range(1, num_milestones + 1):
        tune.report({"objective": 0.7 + 0.2 * config["coefficient"], "milestone": milestone})


def main() -> None:
    """Run the trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--concurrent", type=int, required=True)
    parser.add_argument("--milestones", type=int, required=True)
    parser.add_argument("--reuse", action="store_true", help="not Tune's default")
    arguments = parser.parse_args()
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    trainable = tune.with_parameters(do_nothing, num_milestones=arguments.milestones)
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={
            "coefficient": tune.uniform(0.0, 1.0),
            "learning_rate": tune.loguniform(5e-5, 3e-4),
        },
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="max",
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(
                time_attr="milestone",
                max_t=arguments.milestones,
                grace_period=1,
                reduction_factor=2,
            ),
            num_samples=arguments.trials,
            max_concurrent_trials=arguments.concurrent,
            reuse_actors=arguments.reuse,
        ),
        run_config=tune.RunConfig(
            name="plain", storage_path=str(arguments.folder.resolve()), verbose=0
        ),
    ).fit()


if __name__ == "__main__":
    main()
