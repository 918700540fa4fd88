from typing import get_args

from distprune.methods.iterative import IterativePruning
from distprune.methods.registry import METHODS, build_method
from distprune.methods.spec import PruningSpec
from tests.methods.fake_stages import FakeStages
from tests.test_imports import find_heavy_imports


def test_every_method_of_the_settings_is_registered() -> None:
    assert set(get_args(PruningSpec.model_fields["method"].annotation)) == set(METHODS)


def test_the_method_is_bound_to_settings_and_stages() -> None:
    spec, stages = PruningSpec(), FakeStages()
    method = build_method(spec, stages)
    assert isinstance(method, IterativePruning)
    assert method.spec is spec
    assert method.stages is stages


def test_methods_import_no_framework() -> None:
    assert find_heavy_imports("import distprune.methods.registry") == []
