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
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


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

    "binary" is the F1 of one class, label 1 unless `pos_label` says otherwise; "macro" counts each class alike, however
    rare it is; "weighted" counts each class by its rows.
    """

    def _compute(
        self, predictions: list[int], references: list[int], average: str = "macro", pos_label: int = 1
    ) -> dict[str, float]:
        score = f1_score(references, predictions, average=average, pos_label=pos_label, zero_division=0.0)
        return {"f1": float(score)}


class MatthewsCorrelation(_LabelMetric):
    """The correlation of predicted and true labels, from -1 to 1; 0 is what guessing gets, however rare a class is.

    Sources: Matthews 1975; for several classes, Gorodkin 2004.
    """

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}


def classification_scores() -> Callable[[Any], dict[str, float]]:
    """A `compute_metrics` for Trainer: accuracy, macro F1, weighted F1 and MCC from (logits, label ids)."""
    accuracy, f1, mcc = Accuracy(), F1(), MatthewsCorrelation()

    def compute_metrics(prediction: Any) -> dict[str, float]:
        logits, labels = prediction
        answers = {"predictions": np.argmax(logits, axis=-1), "references": labels}
        return {
            **accuracy.compute(**answers),
            **f1.compute(**answers, average="macro"),
            "f1_weighted": f1.compute(**answers, average="weighted")["f1"],
            **mcc.compute(**answers),
        }

    return compute_metrics
