"""Classification metrics as `evaluate.Metric` classes that need no hub.

`evaluate.load("accuracy")` downloads a script from the hub; these are the same numbers from scikit-learn, behind the
same interface.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, f1_score


class _LabelMetric(evaluate.Metric):
    """A metric over two lists of label ids."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="Pedregosa et al., Scikit-learn: Machine Learning in Python, JMLR 12, 2011",
            inputs_description="predictions and references: label ids, in the same order",
            features=features,
        )


class Accuracy(_LabelMetric):
    """The share of rows whose predicted label is the true one."""

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class F1(_LabelMetric):
    """F1, the harmonic mean of precision and recall; `average` is scikit-learn's: binary, macro, micro, weighted.

    "binary" takes label 1 as the positive one; "macro" counts each class alike, however rare it is.
    """

    def _compute(self, predictions: list[int], references: list[int], average: str = "macro") -> dict[str, float]:
        return {"f1": float(f1_score(references, predictions, average=average, zero_division=0.0))}


def accuracy_and_f1() -> Callable[[Any], dict[str, float]]:
    """A `compute_metrics` for Trainer: accuracy and macro F1 from (logits, label ids)."""
    accuracy, f1 = Accuracy(), F1()

    def compute_metrics(prediction: Any) -> dict[str, float]:
        logits, labels = prediction
        predictions = np.argmax(logits, axis=-1)
        return {
            **accuracy.compute(predictions=predictions, references=labels),
            **f1.compute(predictions=predictions, references=labels, average="macro"),
        }

    return compute_metrics
