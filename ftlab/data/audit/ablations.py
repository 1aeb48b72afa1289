"""The experiments behind a price: the cheap model with a defect and without it, judged on the same rows.

Each row is judged by a model that was fitted to other folds, once to the rows as they are and once to the rows without
the defect. The difference is paired by row, so that an easy or a hard row counts for both. Copies of a text are right
or wrong together, so that the interval of a price is made of clusters of near-copies, and not of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data.audit import lengths, linear_model, repairs
from ftlab.data.audit.table import Table
from ftlab.data.words import Words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from ftlab.data.audit.findings import AuditResult, Finding

MOST_ROWS = 30_000  # a larger set is priced on a stratified part


@dataclass(frozen=True)
class Judged:
    """For each judged row, right (1.0) or wrong (0.0) with the defect and without.

    `clusters` is a number for each, equal for copies and near-copies, which are right or wrong together. `affected`
    marks the rows that the defect touches; `weight` is what each row counts, 1 where it is not given.
    """

    before: np.ndarray
    after: np.ndarray
    clusters: np.ndarray
    affected: np.ndarray | None = None
    weight: np.ndarray | None = None


@dataclass(frozen=True)
class Rows:
    """The labelled training rows that a price is worked out on."""

    table: Table
    places: np.ndarray  # in table.texts
    labels: np.ndarray
    fold: np.ndarray
    seed: int

    @property
    def texts(self) -> list[str]:
        """Their texts."""
        return self.table.texts["text"].iloc[self.places].tolist()

    @cached_property
    def clusters(self) -> np.ndarray:
        """A number for each, equal for copies and near-copies."""
        return self.table.train_clusters[self.places]

    @cached_property
    def words(self) -> csr_matrix:
        """How often each holds each word."""
        return self.table.counts[self.places]

    @cached_property
    def features(self) -> csr_matrix:
        """The TF-IDF weights of their words."""
        return linear_model.weigh(self.words)

    @cached_property
    def as_they_are(self) -> np.ndarray:
        """Right or wrong for each row, trained on and judged as the rows are: what most prices compare with."""
        return _judge(self, self.features)

    def among(self, ids: tuple[str, ...]) -> np.ndarray:
        """Which rows have one of these ids."""
        return self.table.texts["id"].iloc[self.places].isin(ids).to_numpy()


def rows_to_price(table: Table, seed: int) -> Rows:
    """The labelled training rows, or a stratified part of many, with their folds."""
    places = np.flatnonzero(table.labelled)
    labels = table.codes[places]
    if len(places) > MOST_ROWS:
        rng, counts = np.random.default_rng(seed), np.bincount(labels)
        wanted = np.maximum(
            np.round(counts * MOST_ROWS / len(places)), np.minimum(counts, 4 * linear_model.FOLDS)
        ).astype(int)
        of_each = [rng.permutation(np.flatnonzero(labels == code))[:size] for code, size in enumerate(wanted)]
        chosen = np.sort(np.concatenate(of_each))
        places, labels = places[chosen], labels[chosen]
    return Rows(table, places, labels, linear_model.folds(labels, table.train_clusters[places], seed), seed)


def _judge(
    rows: Rows,
    features: csr_matrix,
    keep: Callable[[int, np.ndarray], np.ndarray] | None = None,
    fold: np.ndarray | None = None,
) -> np.ndarray:
    """Right or wrong for each row; `keep(fold, others)` says which of the other folds' rows train for a fold."""
    fold = rows.fold if fold is None else fold
    right = np.empty(len(rows.labels))
    for number in range(linear_model.FOLDS):
        held_out, others = fold == number, np.flatnonzero(fold != number)
        train = others if keep is None else others[keep(number, others)]
        right[held_out] = _right(features, rows.labels, train, held_out)
    return right


def _right(features: csr_matrix, labels: np.ndarray, train: np.ndarray, judged: np.ndarray) -> np.ndarray:
    from sklearn.dummy import DummyClassifier
    from threadpoolctl import threadpool_limits

    # What is left to train on may be one class, which logistic regression refuses.
    several = len(np.unique(labels[train])) > 1
    model = linear_model.model() if several else DummyClassifier(strategy="most_frequent")
    with threadpool_limits(1):
        return (model.fit(features[train], labels[train]).predict(features[judged]) == labels[judged]).astype(float)


def _copies(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    """The same rows in folds that are drawn row by row, and in folds that keep copies together."""
    table = rows.table
    of_each = {
        "exact_duplicates": lambda: pd.factorize(table.texts["text"])[0],
        "normalised_duplicates": lambda: table.groups,
        "near_duplicates": lambda: table.train_clusters,
    }
    copies = of_each[found.id]()[rows.places]
    apart, together = (linear_model.folds(rows.labels, each, rows.seed) for each in (None, copies))
    copied = np.bincount(copies)[copies] > 1
    before, after = (_judge(rows, rows.features, fold=fold) for fold in (apart, together))
    return Judged(before, after, rows.clusters, copied)


def _leaked(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    table = rows.table
    judged = np.flatnonzero(~table.train & (table.codes >= 0))
    affected = table.texts["id"].iloc[judged].isin(found.rows).to_numpy()
    copies = table.copies_in_training(found.rows, near=found.id == "near_leakage")
    clean = rows.places[~rows.among(tuple(copies))]
    features = linear_model.weigh(table.counts)
    before, after = (_right(features, table.codes, train, judged) for train in (rows.places, clean))
    return Judged(before, after, table.clusters[judged], affected)


def _dropped(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    bad = rows.among(found.rows)
    without = _judge(rows, rows.features, lambda number, others: ~bad[others])
    return Judged(rows.as_they_are, without, rows.clusters)


def _doubted(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    """The rows to drop are found anew within the training folds, so that the judged labels decide nothing."""
    from cleanlab.filter import find_label_issues

    def trusted(number: int, others: np.ndarray) -> np.ndarray:
        labels = rows.labels[others]
        probabilities = linear_model.out_of_fold(
            rows.features[others],
            labels,
            linear_model.folds(labels, rows.clusters[others], rows.seed),
        )
        return ~find_label_issues(labels, probabilities, n_jobs=1)

    return Judged(rows.as_they_are, _judge(rows, rows.features, trusted), rows.clusters)


def _repaired(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    rewrite = repairs.rewriting(report, found.id)
    repaired = Words.of([rewrite(text) for text in rows.texts]).counts()
    without = _judge(rows, linear_model.weigh(repaired))
    return Judged(rows.as_they_are, without, rows.clusters, rows.among(found.rows))


def _cut(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    tokenizer = report.tokenizer
    assert tokenizer is not None
    assert report.max_length is not None  # without either there is no such finding
    room = report.max_length - tokenizer.num_special_tokens_to_add()
    cut = Words.of(lengths.cut(tokenizer, rows.texts, room)).counts()
    return Judged(_judge(rows, linear_model.weigh(cut)), rows.as_they_are, rows.clusters, rows.among(found.rows))


def _word_gone(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    word = rows.table.words.vocabulary.index(found.evidence["word"].iloc[0])
    rest = np.delete(np.arange(rows.words.shape[1]), word)
    without = _judge(rows, linear_model.weigh(rows.words[:, rest]))
    return Judged(rows.as_they_are, without, rows.clusters, rows.among(found.rows))


def _top_of_the_file(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    size = len(rows.labels)
    order = np.random.default_rng(rows.seed).permutation(size)
    judged, rest = order[: size // 2], order[size // 2 :]
    part = max(2, size // 10)
    before, after = (_right(rows.features, rows.labels, train, judged) for train in (np.sort(rest)[:part], rest[:part]))
    return Judged(before, after, rows.clusters[judged])


def _imbalance(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    before, after = (
        (
            linear_model.out_of_fold(rows.features, rows.labels, rows.fold, linear_model.model(weight)).argmax(axis=1)
            == rows.labels
        )
        for weight in (None, "balanced")
    )
    counts = np.bincount(rows.labels)
    # The mean of the classes' recalls is a mean over rows in which each counts as one over its class's size.
    weight = len(rows.labels) / (len(counts) * counts[rows.labels])
    rare = rows.labels == counts.argmin()
    return Judged(before.astype(float), after.astype(float), rows.clusters, rare, weight)


_RANDOM = "a split drawn row by row, against one that keeps copies on one side"
_WITHOUT = "training with these rows, against without them"
_COPIES = "judging after training on the copies, against without them"
_REWRITE = "texts as they are, against repaired ones, in training and in judging alike"
EXPERIMENTS: dict[str, tuple[str, Callable[[AuditResult, Rows, Finding], Judged]]] = {
    "exact_duplicates": (_RANDOM, _copies),
    "normalised_duplicates": (_RANDOM, _copies),
    "near_duplicates": (_RANDOM, _copies),
    "leakage": (_COPIES, _leaked),
    "near_leakage": (_COPIES, _leaked),
    "conflicting_labels": (_WITHOUT, _dropped),
    "conflicting_near_labels": (_WITHOUT, _dropped),
    "likely_label_errors": (
        "training with the doubted rows, against without; judged on all labels as they are",
        _doubted,
    ),
    "sorted_by_label": ("training on the top tenth of the file, against as many rows from anywhere", _top_of_the_file),
    "truncation": ("texts cut at max_length, against whole texts", _cut),
    "token_shortcut": ("with the word that gives the label away, against without it", _word_gone),
    "imbalance": ("rows weighed alike, against classes weighed alike", _imbalance),
    **dict.fromkeys(repairs.REWRITES, (_REWRITE, _repaired)),
}
