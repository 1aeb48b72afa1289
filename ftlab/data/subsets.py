"""A representative part of a table: rows at even distances, with every class."""

from __future__ import annotations

import numpy as np
import pandas as pd

LEAST = 5  # rows of each class, if it has as many: enough for every split to have one


def spread(table: pd.DataFrame, most: int, *, by: str) -> pd.DataFrame:
    """Return about `most` rows of `table` (0: all) in their order, each class of the column `by` in its share.

    The rows of a class are taken at even distances, so a sorted file stays sorted. A rare class keeps LEAST of its
    rows, and the result may then be a few rows longer than `most`. There is no random choice.

    >>> spread(pd.DataFrame({"label": list("aaaaabbbbb")}), 4, by="label").index.tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    >>> spread(pd.DataFrame({"label": ["a"] * 9}), 5, by="label").index.tolist()
    [0, 2, 4, 6, 8]
    """
    if not most or len(table) <= most:
        return table
    chosen = []
    for places in table.groupby(table[by].fillna("").astype(str)).indices.values():
        wanted = max(round(len(places) * most / len(table)), min(len(places), LEAST))
        chosen.append(places[np.linspace(0, len(places) - 1, wanted).round().astype(int)])
    return table.iloc[np.sort(np.concatenate(chosen))]
