"""Addresses of pages."""

from __future__ import annotations

import pytest

from distprune.tracking.pages import build_run_page, find_study_page
from tests.tracking.conftest import Tracked
from tests.tracking.events import run_trial

pytestmark = pytest.mark.xdist_group("mlflow")
ROOT = "http://127.0.0.1:5000"


def test_page_of_a_study(study: Tracked) -> None:
    assert find_study_page(study.uri, study.name, ROOT) == ROOT
    study.track([*run_trial()])
    page = find_study_page(study.uri, study.name, ROOT)
    experiment = study.client.get_experiment_by_name(f"distprune/{study.name}")
    path = f"{ROOT}/#/experiments/{experiment.experiment_id}/runs"
    assert page == f"{path}?workflowType=machine_learning"


def test_page_of_a_run() -> None:
    page = build_run_page(f"{ROOT}/", "3", "abc")
    assert page == f"{ROOT}/#/experiments/3/runs/abc?workflowType=machine_learning"
