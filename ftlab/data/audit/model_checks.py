"""Checks with a simple model: shortcuts, and labels that the model doubts (see `shortcuts` and `label_errors`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ftlab.data.audit import label_errors, linear_model, shortcuts
from ftlab.data.audit.findings import Finding
from ftlab.data.audit.table import Table


@dataclass(frozen=True)
class ModelChecks:
    """Findings of the simple model, the out-of-fold accuracy of each `shortcuts` guess, and why a check was skipped."""

    findings: list[Finding]
    shortcuts: pd.DataFrame
    skipped: str = ""


def check(table: Table) -> ModelChecks:
    """Return the findings on likely label errors and on shortcuts in `table`, with the accuracy of each shortcut."""
    if why := linear_model.reason_to_skip(table, linear_model.FEWEST_OF_A_CLASS):
        return ModelChecks([], pd.DataFrame(), f"label errors and shortcuts: {why}")
    labels, rows = table.codes[table.labelled], table.texts[table.labelled]
    fold = linear_model.folds(labels, table.train_clusters[table.labelled])
    table.progress.set_description("fitting a simple model")
    features = linear_model.tfidf(table.counts[np.flatnonzero(table.labelled)])
    probabilities = linear_model.out_of_fold(features, labels, fold)
    judging = shortcuts.Judging(table, rows, labels, fold, tfidf=float((probabilities.argmax(axis=1) == labels).mean()))
    found, guesses = shortcuts.check(judging)
    doubtful, why = label_errors.check(table, rows, labels, probabilities)
    return ModelChecks(found + doubtful, guesses, why)
