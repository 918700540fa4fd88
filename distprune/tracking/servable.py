"""A compact model's folder as an MLflow model that `mlflow models serve` serves; without pickle."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distprune.core.mask import Mask
from distprune.errors import CheckpointError
from distprune.store.key import content_key
from distprune.tracking.client import prepare_environment

EXAMPLE = ["a quiet little film that stays with you", "two hours that nobody gets back"]
"""Input example of every model; any text will do."""

REQUIREMENTS = ("mlflow", "torch", "transformers", "safetensors")
"""What serving needs; the versions are those of this environment."""

MASK_FILE = "mask.safetensors"


def check_servable(folder: Path) -> tuple[Mask, str]:
    """Check a folder that distprune saved, without running any code of it.

    Returns:
        The mask that the model was compacted to, and what tells the model from others.

    Raises:
        CheckpointError: It is no such folder, damaged, no classifier, or its code is not the code
            that this version of distprune writes.
        MaskError: Its mask cannot be read.
    """
    from distprune.core.compact_model import name_auto_classes
    from distprune.deployment.compact_folder import load
    from distprune.models.source import fingerprint_checkpoint

    if not folder.is_dir():
        raise CheckpointError(f"model {folder}: no such folder; name one that distprune saved")
    model = load(folder)
    if "AutoModelForSequenceClassification" not in name_auto_classes(model):
        raise CheckpointError(
            f"model {folder}: {type(model).__name__} classifies no sentences; register a model "
            "with a classification head, as `distprune train --save` writes it"
        )
    _check_code(folder, model)
    mask = Mask.load(folder / MASK_FILE)
    parts = {"files": fingerprint_checkpoint(folder), "mask": mask.digest}
    return mask, content_key(parts)


def _check_code(folder: Path, model: Any) -> None:
    """Refuse code that serving would run and that distprune has not written."""
    from distprune.core import compact_model

    classes = compact_model.name_auto_classes(model)
    own = Path(compact_model.__file__).read_text()
    expected = {
        compact_model.CODE_FILE: own,
        compact_model.MODELING_FILE: compact_model.write_modeling(list(classes.values())),
    }
    module = Path(compact_model.MODELING_FILE).stem
    auto_map = {name: f"{module}.{class_.__name__}" for name, class_ in classes.items()}
    found = {path.name: path.read_text() for path in folder.rglob("*.py")}
    is_ours = (
        found == expected
        and _read_auto_map(folder / "config.json") == auto_map
        and _read_auto_map(folder / "tokenizer_config.json") is None
    )
    if not is_ours:
        raise CheckpointError(
            f"model {folder}: its code is not what this version of distprune writes, and serving "
            "would run it; save the model again with this version"
        )


def _read_auto_map(path: Path) -> Any:
    return json.loads(path.read_text()).get("auto_map") if path.exists() else None


def write_servable(folder: Path, path: Path) -> None:
    """Write an MLflow model around a compact model's folder, and let it answer once.

    Args:
        folder: Folder that `check_servable` has checked.
        path: New folder of the MLflow model.
    """
    prepare_environment()
    import mlflow

    code = Path(__file__).with_name("serving_model.py")
    mlflow.pyfunc.save_model(
        path=str(path),
        python_model=str(code),
        artifacts={"model": str(folder)},
        input_example=EXAMPLE,
        pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
    )
    # MLflow only warns where the example cannot be answered.
    answers = mlflow.pyfunc.load_model(str(path)).predict(EXAMPLE)
    assert len(answers) == len(EXAMPLE)
