"""Training with `transformers.Trainer`: dense fine-tuning and retraining, by one recipe type."""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn import functional
from transformers import Trainer, TrainerCallback, TrainingArguments

from distprune.core.anatomy import describe_anatomy
from distprune.core.first_token import only_first_token
from distprune.core.selection import ROUNDING
from distprune.errors import DivergedTrialError
from distprune.methods.spec import Recipe
from distprune.tasks.prepared import PreparedTask
from distprune.trial.work.batches import SimilarLengthSampler, make_collator, measure_lengths
from distprune.trial.work.cpu_gradients import fast_cpu_gradients
from distprune.trial.work.inputs import find_device

SaveSnapshot = Callable[[float, Any], None]
"""Called with a rewinding point and the model as it is there."""


def train(
    model: Any,
    task: PreparedTask,
    recipe: Recipe,
    checkpoint: str,
    seed: int,
    precision: str,
    teacher: Any | None = None,
    snapshots: tuple[float, ...] = (),
    save_snapshot: SaveSnapshot | None = None,
    stop_at: float = 1.0,
) -> None:
    """Train `model` in place.

    Args:
        model: Dense or compact classifier.
        task: Prepared task; its training split is used.
        recipe: How to train.
        checkpoint: Names the tokenizer that pads.
        seed: Seed of data order and dropout.
        precision: `float32` or `bfloat16`.
        teacher: Dense fine-tuned model to distil from; None = labels only.
        snapshots: Fractions of the training in [0, 1) at which `save_snapshot` is called.
        save_snapshot: Saves the model at a fraction; it must not change it.
        stop_at: Fraction of the training to stop at, learning rates being those of the whole.

    Raises:
        DivergedTrialError: A weight is not finite afterwards.
        ValueError: The recipe distils and there is no teacher.
    """
    if recipe.distillation.weight > 0 and teacher is None:
        raise ValueError(
            f"distillation.weight: {recipe.distillation.weight} needs a teacher; give one"
        )
    dataset = task.split("train")
    num_steps = count_steps(recipe, len(dataset))
    _freeze(model, recipe)
    _spare_imports()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _DistillingTrainer(
            model=model,
            args=_make_arguments(recipe, num_steps, seed, precision, scratch),
            train_dataset=dataset,
            data_collator=make_collator(checkpoint),
            callbacks=[_Snapshots(snapshots, num_steps, save_snapshot, stop_at)],
        )
        trainer.distil_from(teacher, recipe)
        # The notebook and printing callbacks would write to the user's terminal.
        for callback in list(trainer.callback_handler.callbacks):
            if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
                trainer.remove_callback(callback)
        with fast_cpu_gradients(model), only_first_token(model):
            trainer.train()
    model.requires_grad_(True).to("cpu")
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        raise DivergedTrialError("training: a weight is not finite; lower the learning rate")


def count_steps(recipe: Recipe, num_examples: int) -> int:
    """Return the number of optimiser steps of a recipe, at least one."""
    if recipe.steps is not None:
        return recipe.steps
    steps_per_epoch = math.ceil(num_examples / recipe.batch_size)
    return max(1, math.ceil(recipe.epochs * steps_per_epoch - ROUNDING))


def _make_arguments(
    recipe: Recipe, num_steps: int, seed: int, precision: str, scratch: str
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=scratch,
        max_steps=num_steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule
        if recipe.schedule != "constant"
        else "constant_with_warmup",
        warmup_steps=round(recipe.warmup * num_steps),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.gradient_clip,
        optim="adamw_torch_fused",
        bf16=precision == "bfloat16",
        use_cpu=find_device().type == "cpu",
        seed=seed,
        data_seed=seed,
        save_strategy="no",
        logging_strategy="no",
        # It would wait for the GPU after each step to look at a loss that nobody logs.
        logging_nan_inf_filter=False,
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=find_device().type == "cuda",
    )
    # Trainer would split batches over all cards that it sees, and so change their size.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


@cache
def _spare_imports() -> None:
    """Keep garbage collection off what is loaded by now, once in a process.

    Trainer collects before each training, and would look at all imported modules each time.
    """
    gc.freeze()


def _freeze(model: Any, recipe: Recipe) -> None:
    """Stop the gradients of the recipe's frozen parts, in place."""
    anatomy = describe_anatomy(model)
    in_layers = {id(parameter) for layer in anatomy.layers for parameter in layer.parameters()}
    for name, parameter in model.base_model.named_parameters():
        if id(parameter) in in_layers:
            part = "encoder"
        elif name.startswith("pooler."):
            continue
        else:
            part = "embeddings"  # and what brings them to the width of the layers
        if part in recipe.freeze:
            parameter.requires_grad_(False)


class _DistillingTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose loss can mix in the distance to a teacher's outputs."""

    _teacher: Any | None = None

    def distil_from(self, teacher: Any | None, recipe: Recipe) -> None:
        """Learn from `teacher`'s outputs too, as the recipe weighs them."""
        if teacher is not None:
            self._teacher = teacher.to(self.args.device).eval().requires_grad_(False)
        self._distillation = recipe.distillation

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Return batches of similar length; the lengths come from Arrow, without decoding rows."""
        lengths = measure_lengths(self.train_dataset)
        return SimilarLengthSampler(self.args.train_batch_size, lengths)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the task loss, mixed with the distillation loss where there is a teacher."""
        if self._teacher is None:
            return super().compute_loss(model, inputs, *args, **kwargs)
        outputs = model(**inputs)
        with torch.no_grad():
            targets = self._teacher(**{k: v for k, v in inputs.items() if k != "labels"}).logits
        weight, temperature = self._distillation.weight, self._distillation.temperature
        distance = _distance(outputs.logits.float(), targets.float(), temperature)
        return (1.0 - weight) * outputs.loss + weight * distance


def _distance(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T² KL for classes (Hinton et al. 2015), squared error for a number."""
    if logits.shape[-1] == 1:
        return functional.mse_loss(logits, targets)
    return temperature**2 * functional.kl_div(
        functional.log_softmax(logits / temperature, dim=-1),
        functional.log_softmax(targets / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


class _Snapshots(TrainerCallback):  # type: ignore[misc]
    """Saves the model when the training reaches given fractions of its steps, and may end it."""

    def __init__(
        self,
        points: tuple[float, ...],
        num_steps: int,
        save: SaveSnapshot | None,
        stop_at: float,
    ) -> None:
        self._last_step = round(stop_at * num_steps)
        self._at_step: dict[int, list[float]] = {}
        for point in points:
            self._at_step.setdefault(round(point * num_steps), []).append(point)
        self._save = save

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save what is asked for before the first step."""
        self._save_at(0, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save what is asked for after this step, and end the training where it is to end."""
        self._save_at(state.global_step, kwargs["model"])
        if state.global_step >= self._last_step:
            control.should_training_stop = True

    def _save_at(self, step: int, model: Any) -> None:
        if self._save is None:
            return
        for point in self._at_step.get(step, []):
            self._save(point, model)
