"""How sure may it be? Confidence against accuracy, and one number that mends it.

Of the answers given with 90 % confidence, nine in ten should be right. Fine-tuned networks are often surer than that;
dividing their logits by one temperature, chosen on validation rows, mends most of it and changes no answer.
Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
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
LEAST = float(np.finfo(np.float32).tiny)  # of probabilities: what float32 holds in full


def reliability(predictions: pd.DataFrame, *, bins: int = BINS) -> pd.DataFrame:
    """One line for each bin of confidence that has rows: low, high, rows, mean confidence, accuracy and gap.

    The bins have equal width from 0 to 1; with few classes the lowest are empty, since the best of k probabilities is
    at least 1/k.
    """
    if bins < 1:
        raise BadInput(f"bins is {bins}; expected at least 1")
    confidence = predictions["confidence"].to_numpy(dtype=float)
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, confidence) - 1, 0, bins - 1)  # a bin holds its upper end
    grouped = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": correct(predictions)}).groupby("bin")
    table = grouped.mean()
    table.insert(0, "low", edges[table.index])
    table.insert(1, "high", edges[table.index + 1])
    table.insert(2, "rows", grouped.size())
    table["gap"] = table["confidence"] - table["accuracy"]
    return table.reset_index(drop=True)


def expected_calibration_error(predictions: pd.DataFrame, *, bins: int = BINS) -> float:
    """The mean distance of confidence from accuracy over the bins of `reliability`, weighed by rows; 0 is perfect."""
    table = reliability(predictions, bins=bins)
    return float((table["gap"].abs() * table["rows"]).sum() / table["rows"].sum())


def log_loss(predictions: pd.DataFrame) -> float:
    """The mean negative logarithm of the probability that each row's true label got (cross-entropy, in nats)."""
    return _loss(*_logits(predictions))


def temperature(predictions: pd.DataFrame) -> float:
    """The temperature that makes the log loss of these (validation) predictions smallest.

    Above 1 the model was too sure, below 1 not sure enough. Where every answer is right there is no best: the lower,
    the smaller the loss, and rows without a mistake do not show how often one happens. Then it is 1: nothing changes.
    """
    from scipy.optimize import minimize_scalar

    if correct(predictions).all():
        return 1.0
    logits, labels = _logits(predictions)
    low, high = np.log(RANGE)
    best = minimize_scalar(lambda log_t: _loss(logits / np.exp(log_t), labels), bounds=(low, high), method="bounded")
    return float(np.exp(best.x))


def scaled(predictions: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """The predictions with the logits divided by `temperature`: the same answers, other confidences."""
    from scipy.special import softmax

    _require_positive(temperature)
    logits, _ = _logits(predictions)
    shares = softmax(logits / temperature, axis=1)
    columns = dict(zip(_columns(predictions), shares.T, strict=True))
    return predictions.assign(**columns, confidence=shares.max(axis=1))


def fold_into_head(model: PreTrainedModel, temperature: float) -> None:
    """Divide the weights of the classifier's last layer by `temperature`, so that the saved model is calibrated itself.

    Its logits are then those of before, divided by the temperature. Raises BadInput for a model whose last layer cannot
    be found: the only linear layer with as many outputs as there are labels.
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
    """Logits, shaped (rows, classes), and the place of each row's true label among the classes.

    Softmax forgets a constant added to all logits of a row, so the logarithms of its output serve as logits.
    """
    columns = _columns(predictions)
    places = {column.removeprefix("p_"): index for index, column in enumerate(columns)}
    probabilities = predictions[columns].to_numpy(dtype=float)
    return np.log(np.clip(probabilities, LEAST, 1)), predictions["label"].map(places).to_numpy(dtype=int)


def _loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Cross-entropy from logits, where no probability is too small for a logarithm."""
    from scipy.special import log_softmax

    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())
