"""Accuracy, F1 and Matthews correlation as metrics of the library `evaluate`, without the network.

`evaluate.load("accuracy")` downloads a script from the hub. These classes have the same interface and compute the same
numbers with scikit-learn.
"""

from __future__ import annotations

import datasets
import evaluate
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


class _LabelMetric(evaluate.Metric):
    """A metric of predicted and true label ids in the same order."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=features)


class Accuracy(_LabelMetric):
    """The share of rows whose predicted label is the true label."""

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class F1(_LabelMetric):
    """F1, the harmonic mean of precision and recall, with scikit-learn's `average`.

    "macro" counts each class equally, however rare it is; "weighted" counts each class by its rows; "binary" is the F1
    of the class `pos_label`.
    """

    def _compute(
        self, predictions: list[int], references: list[int], average: str = "macro", pos_label: int = 1
    ) -> dict[str, float]:
        score = f1_score(references, predictions, average=average, pos_label=pos_label, zero_division=0.0)
        return {"f1": float(score)}


class MatthewsCorrelation(_LabelMetric):
    """The correlation of predicted and true labels, from -1 to 1; guessing gets 0, however rare a class is.

    Sources: Matthews 1975; for several classes, Gorodkin 2004.
    """

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}
