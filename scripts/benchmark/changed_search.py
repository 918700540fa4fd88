"""`distprune search` with one of the switches thrown, in the driver and in all workers of Ray.

python -m scripts.benchmark.changed_search mask_keys STUDY.yaml --json
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

import ray

from distprune.cli.app import main
from scripts.benchmark import switches


def connect(original: Any, hook: str, *args: Any, **kwargs: Any) -> Any:
    """Call `ray.init`, and have every worker call `hook` before it does anything."""
    runtime_env = {
        **(kwargs.pop("runtime_env", None) or {}),
        "worker_process_setup_hook": hook,
    }
    return original(*args, runtime_env=runtime_env, **kwargs)


if __name__ == "__main__":
    _, os.environ[switches.VARIABLE], *arguments = sys.argv
    switches.install()
    ray.init = partial(connect, ray.init, "scripts.benchmark.switches.install")
    sys.argv = ["distprune", "search", *arguments]
    main()
