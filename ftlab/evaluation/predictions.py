"""Prediction tables: the predictions of a classifier with their row ids, in the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data.group_columns import GROUP
from ftlab.errors import BadInput
from ftlab.freezing.features import Features
from ftlab.models import batches
from ftlab.models.label_names import UNNAMED

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, Trainer


def prediction_table(rows: Dataset, probabilities: np.ndarray, labels: Sequence[str] | None = None) -> pd.DataFrame:
    """Make a table of predictions from probabilities.

    Args:
        rows: with id, text and label (a ClassLabel).
        probabilities: (rows, classes), in the order of `rows`.
        labels: the names of the columns of `probabilities` (`Classifier.labels`): a model numbers its labels in its own
            way, so its labels are matched with the rows' by name. Leave it out if the columns are in the order of the
            rows' own label ids.

    Returns:
        One line a row: id, text, label and prediction (names), confidence (the probability of the prediction), and
        `p_<label>` for each class; and `group`, if the rows have groups.

    Raises:
        BadInput: `probabilities` has another shape, or `labels` are not the labels of the rows.
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
    if GROUP in rows.column_names:
        table[GROUP] = list(rows[GROUP])
    return table.assign(**{f"p_{name}": probabilities[:, index] for index, name in enumerate(names)})


def predict_rows(trainer: Trainer, rows: Dataset, tokenized: Dataset | Features) -> pd.DataFrame:
    """Predict `rows` with the trainer's model, and return their `prediction_table` in the order of the rows.

    `trainer.predict` returns rows in the order of its sampler; with length-grouped batches that is not the order of the
    data set.

    Args:
        trainer: after training, with its tokenizer as `processing_class`.
        rows: with id, text and label.
        tokenized: the same rows tokenized, or their cached features.

    Raises:
        BadInput: the model has other labels than the rows, `tokenized` are other rows, or the trainer has no tokenizer.
    """
    if len(rows) != len(tokenized):
        raise BadInput(
            f"there are {len(tokenized):,} tokenized rows for {len(rows):,} rows; tokenize the rows that you predict"
        )
    # Without the Trainer's mixed precision, so that the saved model gives the same probabilities.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    labels = _labels_of(model)
    if isinstance(tokenized, Features):
        if "id" in tokenized.rows.column_names and list(tokenized.rows["id"]) != list(rows["id"]):
            raise BadInput("the cached features are of other rows, or in another order; cache those of these rows")
        return prediction_table(rows, tokenized.run(model, batches.softmax), labels)
    if "id" in tokenized.column_names and list(tokenized["id"]) != list(rows["id"]):
        raise BadInput("the tokenized rows are in another order than the rows; tokenize the rows that you predict")
    if trainer.processing_class is None:
        raise BadInput("the Trainer has no tokenizer to pad the rows with; make it with processing_class=tokenizer")
    names = [name for name in batches.MODEL_INPUTS if name in tokenized.column_names]
    encodings = {name: list(tokenized[name]) for name in names}
    probabilities = batches.run(model, trainer.processing_class, encodings, batches.softmax)
    return prediction_table(rows, probabilities, labels)


def _labels_of(model: PreTrainedModel) -> list[str] | None:
    """Return the label names in the order of the model's outputs, or None if its config names none (LABEL_0, ...)."""
    names = [str(model.config.id2label.get(number, number)) for number in range(model.config.num_labels)]
    return None if all(map(UNNAMED.fullmatch, names)) else names


def _order(labels: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the index of each of `names` in `labels`. Raises BadInput unless both hold the same names."""
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
