"""Predictions that carry their row ids, so that no reordering can pair a text with another row's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.errors import BadInput
from ftlab.freezing.features import Features
from ftlab.models import batches
from ftlab.models.label_names import UNNAMED

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, Trainer


def prediction_table(rows: Dataset, probabilities: np.ndarray, labels: Sequence[str] | None = None) -> pd.DataFrame:
    """One line a row: id, text, label, prediction, confidence, and `p_<label>` for each class.

    `rows` has columns id, text and label (a ClassLabel); `probabilities` has the shape (rows, classes) and stands in
    the order of `rows`. `labels` names its columns, in the order of whatever gave them (`Classifier.labels`): a model
    numbers its labels in its own way, so that only names can be held against the rows'. Leave it out where the columns
    were counted by the rows' own ids. Labels and predictions are names; confidence is the prediction's probability.

    Raises BadInput for another shape, and where `labels` are not those of the rows.
    """
    names = rows.features["label"].names
    order = None if labels is None else _order(labels, names)
    if probabilities.shape != (len(rows), len(names)):
        raise BadInput(
            f"the probabilities have the shape {probabilities.shape}; expected {(len(rows), len(names))}, a line for "
            "each row and a column for each label"
        )
    if order is not None:
        probabilities = probabilities[:, order]
    best = probabilities.argmax(axis=1)
    table = pd.DataFrame(
        {
            "id": rows["id"],
            "text": rows["text"],
            "label": [names[label] for label in rows["label"]],
            "prediction": [names[index] for index in best],
            "confidence": probabilities[np.arange(len(rows)), best],
        }
    )
    return table.assign(**{f"p_{name}": probabilities[:, index] for index, name in enumerate(names)})


def predict_rows(trainer: Trainer, rows: Dataset, tokenized: Dataset | Features) -> pd.DataFrame:
    """The trainer's model on `tokenized`, or on their cached features, as `prediction_table` of `rows`.

    `trainer.predict` returns rows in the order of its sampler, and with length-grouped batches that is not the order
    of the data set. Here each answer goes back to its row. Raises BadInput for a model whose label names are not the
    rows', and for tokenized rows that are others.
    """
    if len(rows) != len(tokenized):
        raise BadInput(
            f"there are {len(tokenized):,} tokenized rows for {len(rows):,} rows; tokenize the rows that you predict"
        )
    # Without the mixed precision that the Trainer wraps around it: as the saved model will answer.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    labels = _labels_of(model)
    if isinstance(tokenized, Features):
        return prediction_table(rows, tokenized.run(model, batches.softmax), labels)
    if "id" in tokenized.column_names and list(tokenized["id"]) != list(rows["id"]):
        raise BadInput("the tokenized rows stand in another order than the rows; tokenize the rows that you predict")
    if trainer.processing_class is None:
        raise BadInput("the Trainer has no tokenizer to pad the rows with; make it with processing_class=tokenizer")
    names = [name for name in batches.MODEL_INPUTS if name in tokenized.column_names]
    encodings = {name: list(tokenized[name]) for name in names}
    probabilities = batches.run(model, trainer.processing_class, encodings, batches.softmax)
    return prediction_table(rows, probabilities, labels)


def _labels_of(model: PreTrainedModel) -> list[str] | None:
    """The names of the model's outputs in their order; None where it was never told any, and has the rows' own ids."""
    names = [str(model.config.id2label.get(number, number)) for number in range(model.config.num_labels)]
    return None if all(map(UNNAMED.fullmatch, names)) else names


def _order(labels: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where each of `names` stands among `labels`. Raises BadInput unless they are the same, in whatever order."""
    if lacking := [name for name in names if name not in labels]:
        raise BadInput(
            f"the rows have the label {lacking[0]!r}, and the model knows {', '.join(labels)}; its answers can only be "
            "judged on rows with its own labels: give such rows, or train it on these"
        )
    if extra := [name for name in labels if name not in names]:
        raise BadInput(
            f"the model has the label {extra[0]!r}, and the rows know {', '.join(names)}; its answers can only be "
            "judged on rows with its own labels: give such rows, or train it on these"
        )
    return [list(labels).index(name) for name in names]
