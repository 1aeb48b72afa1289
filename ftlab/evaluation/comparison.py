"""The scores of prediction tables: accuracy with its interval, two models compared row by row, the report by class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ftlab.intervals import Comparison, Interval, mean_interval, paired, proportion

__all__ = ["Comparison", "Interval", "accuracy", "compare", "correct", "mean_interval", "report"]


def correct(predictions: pd.DataFrame) -> np.ndarray:
    """For each row of a prediction table, 1.0 where the prediction is the label and 0.0 where it is not."""
    return (predictions["label"] == predictions["prediction"]).to_numpy(dtype=float)


def accuracy(predictions: pd.DataFrame, *, level: float = 0.95) -> Interval:
    """The accuracy of a prediction table with its (Wilson) interval."""
    return proportion(correct(predictions), level=level)


def compare(first: pd.DataFrame, second: pd.DataFrame, *, seed: int = 0) -> Comparison:
    """The accuracy of `first` less that of `second`, paired by row id (see `intervals.paired`).

    Both tables must hold the same row ids, in any order.
    """
    second = second.set_index("id").loc[first["id"]].reset_index()
    return paired(correct(first), correct(second), seed=seed)


def report(predictions: pd.DataFrame) -> pd.DataFrame:
    """Precision, recall, F1 and support for each class, and their macro and weighted means."""
    from sklearn.metrics import classification_report

    result = classification_report(predictions["label"], predictions["prediction"], output_dict=True, zero_division=0.0)
    result.pop("accuracy", None)
    table = pd.DataFrame(result).T.rename(columns={"f1-score": "f1"})
    return table.astype({"support": int})
