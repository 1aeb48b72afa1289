"""The cheap model that an audit asks: TF-IDF with logistic regression, always on rows that it was not fitted to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from ftlab.data.audit.table import Table

FOLDS = 5
MOST_WEIGHTS = 5_000_000  # classes times words: beyond, it is no longer quick
FEWEST_OF_A_CLASS = 10  # with fewer, most folds would know next to nothing of it


def weigh(counts: csr_matrix) -> csr_matrix:
    """TF-IDF weights, with 1 + log for the count, of words that stand in two texts or more (or of all words).

    The words are weighed over all texts at once: no label is seen in doing so. Source: scikit-learn's user guide,
    section 6.2.3.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    common = np.bincount(counts.indices, minlength=counts.shape[1]) >= 2
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, common] if common.any() else counts)


def model(class_weight: str | None = None) -> Any:
    """Logistic regression at scikit-learn's strength of regularisation, not yet fitted."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=200, class_weight=class_weight)


def folds(labels: np.ndarray, clusters: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """The fold of each row: stratified by label, shuffled with `seed`; rows of one cluster share their fold.

    Without that, a copy of a row would tell the model the answer that it is asked for.
    """
    from sklearn.model_selection import StratifiedKFold

    if clusters is None:
        clusters = np.arange(len(labels))
    _, firsts, of = np.unique(clusters, return_index=True, return_inverse=True)
    fold = np.empty(len(firsts), dtype=np.int64)
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(firsts, labels[firsts])):
        fold[held_out] = number
    return fold[of]


def out_of_fold(features: Any, labels: np.ndarray, fold: np.ndarray, estimator: Any = None) -> np.ndarray:
    """Probabilities of shape (rows, classes), each row's from a model that was fitted to the other folds."""
    from sklearn.base import clone
    from threadpoolctl import threadpool_limits

    probabilities = np.zeros((len(labels), int(labels.max()) + 1), dtype=np.float32)
    for number in range(FOLDS):
        held_out = fold == number
        with threadpool_limits(1):  # the sums are short, and threads would spend their time waiting for each other
            fitted = clone(model() if estimator is None else estimator).fit(features[~held_out], labels[~held_out])
            probabilities[np.ix_(held_out, fitted.classes_)] = fitted.predict_proba(features[held_out])
    return probabilities


def refusal(table: Table, fewest: int) -> str:
    """Why questions to the model have no answer on these rows, `fewest` clusters of each class; "" where they have."""
    labels, clusters = table.codes[table.labelled], table.train_clusters[table.labelled]
    if len(labels) == 0 or labels.min() == labels.max():
        return "they need two classes"
    firsts = np.unique(clusters, return_index=True)[1]  # a cluster counts for the label of its first row
    there = int(np.bincount(labels[firsts], minlength=int(labels.max()) + 1).min())
    if there < fewest:
        return f"they need {fewest} different texts of each class, and one has {there}"
    if table.counts.nnz == 0:
        return "there are no words"
    if table.counts.shape[1] * len(table.label_names) > MOST_WEIGHTS:
        return "so many classes and words would take the simple model too long"
    return ""
