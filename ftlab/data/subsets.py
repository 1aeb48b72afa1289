"""A part of a table that stands for all of it: rows spread over the file, every class among them."""

from __future__ import annotations

import numpy as np
import pandas as pd

LEAST = 5  # rows of each class, where it has them: enough for every split to have one


def spread(table: pd.DataFrame, most: int, *, by: str) -> pd.DataFrame:
    """About `most` rows of `table` (0: all), in their order, each class of the column `by` in its share.

    The rows of a class are taken at even distances, so that a file that is sorted stays so in small. A rare class keeps
    LEAST of its rows, and then there are a few more than `most`. Nothing is drawn: the same rows each time.
    """
    if not most or len(table) <= most:
        return table
    chosen = []
    for places in table.groupby(table[by].fillna("").astype(str)).indices.values():
        wanted = max(round(len(places) * most / len(table)), min(len(places), LEAST))
        chosen.append(places[np.linspace(0, len(places) - 1, wanted).round().astype(int)])
    return table.iloc[np.sort(np.concatenate(chosen))]
