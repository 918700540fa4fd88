"""Trials on the tiny checkpoint, as the tests of a trial have them."""

from tests.trial.conftest import shared_store, study

__all__ = ["shared_store", "study"]
