"""Calibration: reliability diagram, expected calibration error (ECE), and temperature scaling.

Of the predictions with 90 % confidence, nine in ten should be right. Fine-tuned networks are often overconfident.
Temperature scaling divides their logits by one number, chosen on validation rows: it corrects most of the error and
changes no prediction. Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.errors import BadInput
from ftlab.evaluation.comparison import correct

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BINS = 15  # as in Guo et al.
RANGE = (0.05, 20.0)  # of temperatures
LEAST = float(np.finfo(np.float32).tiny)  # of probabilities: the smallest normal float32


def reliability(predictions: pd.DataFrame, *, bins: int = BINS) -> pd.DataFrame:
    """Compare confidence with accuracy in bins of confidence: the data of a reliability diagram.

    The bins have equal width from 0 to 1. With few classes the lowest are empty, since the largest of k probabilities
    is at least 1/k.

    Args:
        predictions: a table of `prediction_table`.
        bins: how many.

    Returns:
        One line for each bin that has rows: low, high, rows, mean confidence, accuracy, and gap (confidence minus
        accuracy).

    Raises:
        BadInput: fewer than one bin.
    """
    if bins < 1:
        raise BadInput(f"bins is {bins}; expected at least 1")
    confidence = predictions["confidence"].to_numpy(dtype=float)
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, confidence) - 1, 0, bins - 1)  # a bin includes its upper edge
    grouped = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": correct(predictions)}).groupby("bin")
    table = grouped.mean()
    table.insert(0, "low", edges[table.index])
    table.insert(1, "high", edges[table.index + 1])
    table.insert(2, "rows", grouped.size())
    table["gap"] = table["confidence"] - table["accuracy"]
    return table.reset_index(drop=True)


def expected_calibration_error(predictions: pd.DataFrame, *, bins: int = BINS) -> float:
    """Return the ECE of `predictions`: the mean |confidence - accuracy| over `bins` bins, weighted by rows; 0 is best.

    Two rows, both with confidence 0.9, one of them right: |0.9 - 0.5|.

    >>> rows = pd.DataFrame({"label": ["a", "b"], "prediction": ["a", "a"], "confidence": [0.9, 0.9]})
    >>> round(expected_calibration_error(rows), 3)
    0.4
    """
    table = reliability(predictions, bins=bins)
    return float((table["gap"].abs() * table["rows"]).sum() / table["rows"].sum())


def log_loss(predictions: pd.DataFrame) -> float:
    """Return the log loss (cross-entropy) of `predictions`: mean of -log of the true label's probability, in nats.

    >>> rows = pd.DataFrame({"label": ["a", "b"], "p_a": [0.5, 0.75], "p_b": [0.5, 0.25]})
    >>> round(log_loss(rows), 3)  # (log 2 + log 4) / 2
    1.04
    """
    return float(log_losses(predictions).mean())


def log_losses(predictions: pd.DataFrame) -> np.ndarray:
    """Return -log of the true label's probability for each row of `predictions`, in nats, shaped (rows,)."""
    return _losses(*_logits(predictions))


def temperature(predictions: pd.DataFrame) -> float:
    """Return the temperature that minimises the log loss of `predictions`, which are those of validation rows.

    Above 1 the model was overconfident, below 1 underconfident. If every prediction is right, there is no minimum: a
    lower temperature always has a lower loss. Then 1 is returned, which changes nothing.
    """
    from scipy.optimize import minimize_scalar

    if correct(predictions).all():
        return 1.0
    logits, labels = _logits(predictions)
    low, high = np.log(RANGE)
    best = minimize_scalar(
        lambda log_t: _losses(logits / np.exp(log_t), labels).mean(), bounds=(low, high), method="bounded"
    )
    return float(np.exp(best.x))


def scaled(predictions: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """Return `predictions` with the logits divided by `temperature`: the same predictions with other confidences."""
    from scipy.special import softmax

    _require_positive(temperature)
    logits, _ = _logits(predictions)
    shares = softmax(logits / temperature, axis=1)
    columns = dict(zip(_columns(predictions), shares.T, strict=True))
    return predictions.assign(**columns, confidence=shares.max(axis=1))


def fold_into_head(model: PreTrainedModel, temperature: float) -> None:
    """Divide the last layer of the classifier `model` by `temperature`, so that the saved model is calibrated.

    Weights and bias are divided, and so the logits. The last layer is the only linear layer outside the body with one
    output for each label. Raises BadInput if there is no such layer or more than one.
    """
    import torch

    _require_positive(temperature)
    labels = model.config.num_labels
    body = {id(module) for module in model.base_model.modules()}
    heads = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == labels and id(module) not in body
    ]
    if len(heads) != 1:
        raise BadInput(
            f"{type(model).__name__} has {len(heads)} linear layers with {labels} outputs outside its body; expected "
            "one, to fold the temperature into: give a sequence classifier, or divide its logits yourself"
        )
    with torch.no_grad():
        for parameter in heads[0].parameters():
            parameter.div_(temperature)


def _require_positive(temperature: float) -> None:
    if not temperature > 0:
        raise BadInput(f"the temperature is {temperature}; expected more than 0, as `temperature` finds it")


def _columns(predictions: pd.DataFrame) -> list[str]:
    return [column for column in predictions.columns if column.startswith("p_")]


def _logits(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return logits, shaped (rows, classes), and the index of each row's true label.

    Softmax ignores a constant added to all logits of a row, so the logarithms of probabilities can serve as logits.
    """
    columns = _columns(predictions)
    places = {column.removeprefix("p_"): index for index, column in enumerate(columns)}
    probabilities = predictions[columns].to_numpy(dtype=float)
    return np.log(np.clip(probabilities, LEAST, 1)), predictions["label"].map(places).to_numpy(dtype=int)


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return each row's cross-entropy from logits: log-softmax needs no logarithm of a probability rounded to 0."""
    from scipy.special import log_softmax

    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
