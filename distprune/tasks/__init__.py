"""Text tasks: what they are, where their examples come from, how they are split and scored.

Importing this package loads neither datasets nor transformers.
"""

from distprune.tasks.metrics import METRICS, Metric, constant_floor, resolve_metric
from distprune.tasks.prepared import PreparedTask, TaskFacts, prepare
from distprune.tasks.sources import load_source, source_fingerprint
from distprune.tasks.spec import TaskSpec

__all__ = [
    "METRICS",
    "Metric",
    "PreparedTask",
    "TaskFacts",
    "TaskSpec",
    "constant_floor",
    "load_source",
    "prepare",
    "resolve_metric",
    "source_fingerprint",
]
