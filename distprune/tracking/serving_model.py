"""What `mlflow models serve` runs for a compact model: sentences in, labels and scores out.

MLflow copies this file beside the model and runs it as it is. It needs mlflow, torch and
transformers; the model's own folder has the code of its class, so distprune is not needed.
"""

from __future__ import annotations

from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from pydantic import BaseModel

BATCH_SIZE = 32


class Prediction(BaseModel):
    """The answer to one sentence.

    Attributes:
        label: The class with the highest score; `value` for regression.
        scores: Probability of each class; the predicted value for regression.
    """

    label: str
    scores: dict[str, float]


class SentenceClassifier(PythonModel):  # type: ignore[misc]
    """A compact sequence classification model with its tokenizer."""

    def load_context(self, context: Any) -> None:
        """Load model and tokenizer from the folder that was logged."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = context.artifacts["model"]
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForSequenceClassification.from_pretrained(
            folder, trust_remote_code=True
        ).eval()

    def predict(self, model_input: list[str], params: Any = None) -> list[Prediction]:
        """Return the answer to each sentence, as a dictionary with the fields of `Prediction`."""
        return [
            answer
            for begin in range(0, len(model_input), BATCH_SIZE)
            for answer in self._answer(model_input[begin : begin + BATCH_SIZE])
        ]

    def _answer(self, sentences: list[str]) -> list[Any]:
        import torch

        batch = self._tokenizer(
            sentences,
            padding=True,
            truncation=True,
            max_length=self._count_positions(),
            return_tensors="pt",
        )
        with torch.no_grad():
            logits = self._model(**batch).logits.float()
        if logits.shape[1] == 1:
            return [{"label": "value", "scores": {"value": row[0]}} for row in logits.tolist()]
        names = [self._model.config.id2label[number] for number in range(logits.shape[1])]
        answers = []
        for row in logits.softmax(dim=1).tolist():
            scores = dict(zip(names, row, strict=True))
            answers.append({"label": max(names, key=lambda name: scores[name]), "scores": scores})
        return answers

    def _count_positions(self) -> int:
        """Return how many tokens the model takes; RoBERTa's positions begin after padding's."""
        config = self._model.config
        skipped = config.pad_token_id + 1 if config.model_type == "roberta" else 0
        return int(min(self._tokenizer.model_max_length, config.max_position_embeddings - skipped))


set_model(SentenceClassifier())
