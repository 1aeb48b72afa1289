"""Where is it wrong? The mistakes as a table to read, each beside the training rows that are most like it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset


def mistakes(
    predictions: pd.DataFrame, train: Dataset, train_vectors: np.ndarray, vectors: np.ndarray, *, nearest: int = 2
) -> pd.DataFrame:
    """The wrong answers, the most confident first: id, text, label, prediction, confidence, and the nearest rows.

    `vectors` stand for the predicted rows in the order of the table, and `train_vectors` for those of `train`
    (`baselines.embed`: length 1, so that a product is a cosine). `nearest_1` holds the most similar training row's id,
    label and text, `similarity_1` its cosine, and so on. A near row with the label that was predicted shows where the
    mistake was learned; with the true one, that it was not.
    """
    if len(vectors) != len(predictions) or len(train_vectors) != len(train):
        raise BadInput(
            f"there are {len(vectors):,} vectors for {len(predictions):,} predictions and {len(train_vectors):,} for "
            f"{len(train):,} training rows; give one for each row, in the same order"
        )
    names = train.features["label"].names
    wrong = (predictions["label"] != predictions["prediction"]).to_numpy()
    table = predictions.loc[wrong, ["id", "text", "label", "prediction", "confidence"]].reset_index(drop=True)
    cosines = vectors[wrong] @ train_vectors.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :nearest]
    ids, texts, labels = (list(train[column]) for column in ("id", "text", "label"))
    for rank, places in enumerate(order.T, start=1):
        table[f"nearest_{rank}"] = [f"{ids[at]} ({names[labels[at]]}): {texts[at]}" for at in places]
        table[f"similarity_{rank}"] = cosines[np.arange(len(places)), places]
    return table.sort_values("confidence", ascending=False, kind="stable").reset_index(drop=True)
