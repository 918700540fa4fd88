"""From the store back to the picture: the scores that chose a level's mask, mixed once more."""

from __future__ import annotations

from distprune.core.importance_scores import Criterion, Importance, Normalisation, normalise
from distprune.core.mask import Mask
from distprune.errors import StorageError
from distprune.library.history import TrialStarted
from distprune.methods.iterative import mix_sources
from distprune.methods.spec import PruningSpec
from distprune.report.importance_figure import draw_importance
from distprune.store.store import Store
from distprune.trial.results import LevelResult
from distprune.trial.stages import read_importance


def draw_level(store: Store, start: TrialStarted, level: LevelResult, previous: Mask) -> bytes:
    """Draw what chose the mask of a level as PNG.

    Args:
        store: Has the scores that the level's lineage names.
        start: First event of the trial, with its specification.
        level: A level after level 0.
        previous: Mask of the level before, under which the scores were taken.

    Raises:
        StorageError: The scores are no longer in the store.
    """
    spec = PruningSpec.model_validate(start.spec["pruning"])
    evidence = level.lineage.evidence
    pretrained = _read(store, evidence.pretrained_key)
    finetuned = _read(store, evidence.finetuned_key)
    raw = {
        _name_pretrained(evidence.pretrained_objective): pretrained,
        _name_finetuned(spec): finetuned,
    }
    # Random scores are mixed as they are, see `mix_sources`.
    normalisation = Normalisation.NONE if _is_random(spec) else spec.importance.normalisation
    sources = {
        name: None if importance is None else normalise(importance, previous, normalisation)
        for name, importance in raw.items()
    }
    mixed = mix_sources(spec, pretrained, finetuned, previous)
    return draw_importance(sources, mixed, previous, level.mask, _write_title(start, level, spec))


def _read(store: Store, key: str | None) -> Importance | None:
    if key is None:
        return None
    entry = store.find(key)
    if entry is None:
        raise StorageError(
            f"scores {key[:12]}: not in {store.root} any more; start the search again to compute "
            "them"
        )
    return read_importance(entry)


def _name_pretrained(objective: str | None) -> str:
    return f"pre-trained ({objective})" if objective else "pre-trained"


def _name_finetuned(spec: PruningSpec) -> str:
    return "random" if _is_random(spec) else "fine-tuned"


def _is_random(spec: PruningSpec) -> bool:
    return spec.importance.criterion is Criterion.RANDOM


def _write_title(start: TrialStarted, level: LevelResult, spec: PruningSpec) -> str:
    result = (
        f"Trial {start.number}, level {level.level}: sparsity {level.sparsity:.3g}, "
        f"metric {level.metric:.4g}"
    )
    return f"{result}\n{_describe_rule(spec)}, higher = keep"


def _describe_rule(spec: PruningSpec) -> str:
    if _is_random(spec):
        return "random scores"
    mixing = spec.mixing
    coefficient = f", λ = {mixing.coefficient:.3g}" if mixing.operator.takes_coefficient else ""
    return (
        f"{spec.importance.criterion}, {mixing.operator}{coefficient}; head scores normalised per "
        f"layer ({spec.importance.normalisation})"
    )
