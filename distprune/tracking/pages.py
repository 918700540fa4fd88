"""Addresses of MLflow's pages."""

from __future__ import annotations

from distprune.tracking.client import open_client, prepare_environment
from distprune.tracking.naming import name_experiment

TRAINING = "?workflowType=machine_learning"
"""Without it MLflow opens its pages for language model applications."""


def find_study_page(uri: str, study_name: str, root: str) -> str:
    """Return the address of a study's runs; `root` itself if nothing of it is tracked.

    Args:
        uri: Tracking store that can be reached.
        study_name: Name of the study.
        root: Address of the server that shows the store, as in `http://127.0.0.1:5000`.
    """
    prepare_environment()
    experiment = open_client(uri).get_experiment_by_name(name_experiment(study_name))
    if experiment is None:
        return root
    return f"{root.rstrip('/')}/#/experiments/{experiment.experiment_id}/runs{TRAINING}"


def build_run_page(root: str, experiment_id: str, run_id: str) -> str:
    """Return the address of one run."""
    return f"{root.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}{TRAINING}"
