"""Error analysis: the wrong predictions as a table to read, each with the most similar training rows."""

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
    """List the wrong predictions, each with its nearest training rows.

    A near row with the predicted label shows where the mistake was learned. A near row with the true label shows that
    the training rows did not teach it.

    Args:
        predictions: a table of `prediction_table`.
        train: the training rows, with id, text and label.
        train_vectors: (training rows, hidden size) of `baselines.embed`, L2-normalised: their products are cosines.
        vectors: (rows, hidden size) of the predicted rows, in the order of `predictions`.
        nearest: how many training rows to show for each mistake.

    Returns:
        id, text, label, prediction and confidence, the most confident first; `nearest_1` is the id, label and text of
        the most similar training row, `similarity_1` its cosine, and so on.

    Raises:
        BadInput: the number of vectors is not the number of rows.
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
