"""Predictions that carry their row ids, so that no reordering can pair a text with another row's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer


def prediction_table(rows: Dataset, probabilities: np.ndarray) -> pd.DataFrame:
    """One line a row: id, text, label, prediction, confidence, and `p_<label>` for each class.

    `rows` has columns id, text and label (a ClassLabel); `probabilities` has the shape (rows, classes) and stands in
    the order of `rows`. Labels and predictions are names; confidence is the probability of the prediction.
    """
    names = rows.features["label"].names
    if probabilities.shape != (len(rows), len(names)):
        raise ValueError(f"probabilities have the shape {probabilities.shape}, expected {(len(rows), len(names))}")
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


def predict_rows(trainer: Trainer, rows: Dataset, tokenized: Dataset) -> pd.DataFrame:
    """The trainer's model on `tokenized`, as `prediction_table` of `rows`.

    `trainer.predict` returns rows in the order of its sampler, and with length-grouped batches that is not the order
    of the data set. Here the rows are sorted by length (little padding, few batches) and put back.
    """
    import torch

    if len(rows) != len(tokenized):
        raise ValueError(f"{len(tokenized)} tokenized rows for {len(rows)} rows, expected the same rows in both")
    order = np.argsort([len(ids) for ids in tokenized["input_ids"]], kind="stable")
    keep = [name for name in tokenized.column_names if name in ("input_ids", "attention_mask", "token_type_ids")]
    inputs = tokenized.select_columns(keep)
    # Without the mixed precision that the Trainer wraps around it: as the saved model will answer.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    size = trainer.args.per_device_eval_batch_size
    logits = []
    with torch.inference_mode():
        for start in range(0, len(order), size):
            batch = trainer.data_collator([inputs[int(index)] for index in order[start : start + size]])
            logits.append(model(**{key: value.to(model.device) for key, value in batch.items()}).logits.float().cpu())
    probabilities = torch.cat(logits).softmax(dim=-1).numpy()
    return prediction_table(rows, probabilities[np.argsort(order, kind="stable")])
