"""When to say "unsure": the share of texts that are answered, against how often the answers are right.

A classifier that may leave a text to a person is right more often on the rest. The threshold of confidence is chosen on
validation rows and judged on others (selective classification: El-Yaniv and Wiener, Journal of Machine Learning
Research 11, 2010; Geifman and El-Yaniv, 2017).
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ftlab.errors import BadInput
from ftlab.evaluation.comparison import correct
from ftlab.intervals import Interval, proportion

NEVER = math.inf  # a threshold that no confidence reaches: every text is left to a person


def coverage(predictions: pd.DataFrame) -> pd.DataFrame:
    """One line for each confidence that a row has, the highest first: threshold, coverage and accuracy.

    Coverage is the share of the rows whose confidence is at least the threshold, accuracy that of these rows.
    `predictions` are those of `prediction_table`. Raises BadInput where there are no rows.
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
    """The lowest confidence from which on these (validation) predictions are right at least `wanted` of the time.

    It answers as many texts as it can. When no threshold is good enough, the result is `otherwise` (such as NEVER);
    without it BadInput is raised.
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
    """Coverage and accuracy of these (test) predictions at a threshold, with intervals; no accuracy if none is sure."""
    sure = (predictions["confidence"] >= threshold).to_numpy()
    right = correct(predictions)[sure]
    return proportion(sure), proportion(right) if len(right) else None
