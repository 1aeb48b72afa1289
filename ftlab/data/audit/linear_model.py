"""A simple text classifier for the audit: TF-IDF with a linear model, scored out of fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from ftlab.data.audit.table import Table

FOLDS = 5
MOST_WEIGHTS = 5_000_000  # classes times words: above this, fitting takes too long
MANY_CLASSES = 30  # from here on, complement naive Bayes replaces logistic regression,
MOST_COUNTS = 20_000_000  # which can have more weights
FEWEST_OF_A_CLASS = 10  # with fewer, most folds have too few rows of it to learn from


def tfidf(counts: csr_matrix) -> csr_matrix:
    """Compute TF-IDF weights with a term frequency of 1 + log(count) (scikit-learn's user guide, section 6.2.3).

    The inverse document frequency is computed over all texts at once. This needs no label, so nothing leaks.

    Args:
        counts: (texts, words) how often each word is in each text.

    Returns:
        (texts, words) the weights of the words that are in two texts or more, or of all words if there are none.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    common = np.bincount(counts.indices, minlength=counts.shape[1]) >= 2
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, common] if common.any() else counts)


def model(class_weight: str | None = None) -> Any:
    """Return an unfitted logistic regression with scikit-learn's default regularisation and this `class_weight`."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=200, class_weight=class_weight)


def model_for(labels: np.ndarray) -> Any:
    """Return an unfitted classifier for these `labels`.

    The time of logistic regression grows with the number of classes, and with a few rows of each class it learns
    little. Complement naive Bayes (Rennie et al. 2003) counts instead, so it is quick and does well there.
    """
    from sklearn.naive_bayes import ComplementNB

    return model() if len(np.unique(labels)) < MANY_CLASSES else ComplementNB(alpha=0.3)


def folds(labels: np.ndarray, clusters: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Assign each row to a fold, stratified by label. The rows of a cluster share a fold.

    Otherwise a model would be fitted to copies of the rows that it is scored on.

    Args:
        labels: (rows,) codes of the labels.
        clusters: (rows,) the cluster of each row; None for one cluster a row.
        seed: of the shuffling.

    Returns:
        (rows,) the number of each row's fold, below FOLDS.
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
    """Predict each row with a model that was fitted to the other folds.

    Args:
        features: (rows, features), dense or sparse.
        labels: (rows,) codes of the labels, from 0.
        fold: (rows,) from `folds`.
        estimator: an unfitted scikit-learn classifier; None for `model_for(labels)`.

    Returns:
        (rows, classes) float32 probabilities.
    """
    from sklearn.base import clone
    from threadpoolctl import threadpool_limits

    probabilities = np.zeros((len(labels), int(labels.max()) + 1), dtype=np.float32)
    for number in range(FOLDS):
        held_out = fold == number
        with threadpool_limits(1):  # on such small matrices threads cost more than they save
            fitted = clone(model_for(labels) if estimator is None else estimator).fit(
                features[~held_out], labels[~held_out]
            )
            probabilities[np.ix_(held_out, fitted.classes_)] = fitted.predict_proba(features[held_out])
    return probabilities


def reason_to_skip(table: Table, fewest: int) -> str:
    """Explain why the model cannot be used on these rows, if so.

    Args:
        table: the rows under audit.
        fewest: the number of clusters that each class needs.

    Returns:
        The reason, or "" if the model can be used.
    """
    labels, clusters = table.codes[table.labelled], table.train_clusters[table.labelled]
    if len(labels) == 0 or labels.min() == labels.max():
        return "they need two classes"
    firsts = np.unique(clusters, return_index=True)[1]  # the label of a cluster is that of its first row
    there = int(np.bincount(labels[firsts], minlength=int(labels.max()) + 1).min())
    if there < fewest:
        return f"they need {fewest} different texts of each class, and one has {there}"
    if table.counts.nnz == 0:
        return "there are no words"
    classes = len(table.label_names)
    if table.counts.shape[1] * classes > (MOST_WEIGHTS if classes < MANY_CLASSES else MOST_COUNTS):
        return "the simple model would take too long with so many classes and words"
    return ""
