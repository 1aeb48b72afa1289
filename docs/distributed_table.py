"""One process against two, as docs/several_gpus.md shows it."""

from __future__ import annotations

import pandas as pd

from ftlab.course import bench

COLUMNS = {
    "training": "training", "way": "two processes by", "steps": "steps", "loss": "loss, relative",
    "gradient_norm": "gradient norm, relative", "validation_loss": "validation loss, relative",
    "weights": "weights, absolute", "rows_answered": "test rows, each answered once",
    "seconds_ratio": "seconds, over one process",
}  # fmt: skip


def equality() -> pd.DataFrame:
    """Return the largest differences of two processes from one, as text: a line for each training and way."""
    found = pd.DataFrame(bench.stored("processes")["result"]["equality"])
    table = found[[*COLUMNS]].copy()
    table["rows_answered"] = table["rows_answered"].where(found["rows_answered_once"], "no")
    for name in ("loss", "gradient_norm", "validation_loss", "weights"):
        table[name] = [f"{value:.0e}" for value in table[name]]
    table["seconds_ratio"] = [f"{value:.2f}" for value in table["seconds_ratio"]]
    return table.astype(str).rename(columns=COLUMNS)
