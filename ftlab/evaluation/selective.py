"""Selective classification: a confidence threshold below which the classifier answers "unsure"; coverage and accuracy.

A classifier that may leave a text to a person is right more often on the rest. The threshold is chosen on validation
rows and evaluated on test rows. Sources: El-Yaniv and Wiener, Journal of Machine Learning Research 11, 2010; Geifman
and El-Yaniv, 2017.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ftlab.data import group_columns
from ftlab.errors import BadInput
from ftlab.evaluation.comparison import accuracy, correct
from ftlab.intervals import Interval, mean_interval, proportion

NEVER = math.inf  # a threshold above every confidence: all texts are left to a person


def coverage(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return threshold, coverage and accuracy for each distinct confidence in `predictions`, the highest first.

    Coverage is the share of rows whose confidence is at least the threshold; accuracy is that of these rows.
    `predictions` is a table of `prediction_table`. Raises BadInput if it is empty.

    >>> rows = pd.DataFrame({"label": ["a", "b"], "prediction": ["a", "a"], "confidence": [0.9, 0.6]})
    >>> coverage(rows).to_numpy().tolist()
    [[0.9, 0.5, 1.0], [0.6, 1.0, 0.5]]
    """
    if predictions.empty:
        raise BadInput("there are no predictions to draw a coverage from; give at least one")
    order = np.argsort(-predictions["confidence"].to_numpy(), kind="stable")
    confidence = predictions["confidence"].to_numpy()[order]
    right = correct(predictions)[order].cumsum()
    last = np.flatnonzero(np.r_[confidence[1:] != confidence[:-1], True])  # rows of one confidence go together
    answered = last + 1
    return pd.DataFrame(
        {
            "threshold": confidence[last],
            "coverage": answered / len(confidence),
            "accuracy": right[last] / answered,
        }
    )


def threshold(predictions: pd.DataFrame, wanted: float, *, otherwise: float | None = None) -> float:
    """Find the lowest threshold at which the accuracy of the answered rows is at least `wanted`.

    Args:
        predictions: a table of `prediction_table`, of validation rows.
        wanted: the accuracy, above 0 and at most 1.
        otherwise: what to return if no threshold reaches it, such as NEVER.

    Returns:
        A confidence.

    Raises:
        BadInput: `wanted` is not a share, or no threshold reaches it and `otherwise` is not given.
    """
    if not 0 < wanted <= 1:
        raise BadInput(f"the accuracy that is wanted is {wanted}; expected more than 0 and at most 1")
    curve = coverage(predictions)
    enough = curve[curve["accuracy"] >= wanted]
    if enough.empty and otherwise is not None:
        return otherwise
    if enough.empty:
        raise BadInput(
            f"no threshold makes {wanted:.0%} of the answers right: the best is {curve['accuracy'].max():.0%}; ask for "
            "less, or train a better classifier"
        )
    return float(enough["threshold"].iloc[-1])


def at(predictions: pd.DataFrame, threshold: float) -> tuple[Interval, Interval | None]:
    """Return coverage and accuracy of `predictions` (of test rows) at `threshold`.

    The intervals are Wilson's, or if rows share groups, bootstraps over these. The accuracy is None if no row is
    answered.
    """
    sure = (predictions["confidence"] >= threshold).to_numpy(dtype=float)
    answered = predictions[sure == 1]
    groups = group_columns.of(predictions)
    covered = proportion(sure) if groups is None else mean_interval(sure, groups=groups, bounds=(0, 1))
    return covered, accuracy(answered) if len(answered) else None
