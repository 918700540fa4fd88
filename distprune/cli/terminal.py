"""What reaches the terminal, and how a process that is still busy ends."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence

EXIT_INTERRUPTED = 130


def silence_libraries(names: Sequence[str] = ("ray", "optuna", "transformers", "mlflow")) -> None:
    """Keep other libraries' progress and warnings off the terminal."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)


def leave(code: int) -> None:
    """End the process at once; threads that still send or wait must not hold it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
