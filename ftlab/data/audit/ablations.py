"""The experiments behind a price: a simple model with a defect and without it, judged on the same rows.

Each row is judged by two models that were fitted to other folds: one to the rows as they are, one to the rows without
the defect. The difference is paired by row, so how hard a row is affects both scores alike. The model is right or wrong
on all copies of a text together, so the interval of a price resamples clusters of near-copies, not rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data.audit import groups, label_errors, lengths, linear_model, repairs, shortcuts
from ftlab.data.audit.table import Table
from ftlab.data.words import Words
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from ftlab.data.audit.findings import AuditResult, Finding

MOST_ROWS = 30_000  # a larger set is priced on a stratified part


@dataclass(frozen=True)
class Judged:
    """Which judged rows the model gets right, with the defect and without it: an entry for each row.

    Attributes:
        before: 1.0 if the model with the defect is right, 0.0 if it is wrong.
        after: the same without the defect.
        clusters: the number of its cluster of copies and near-copies.
        affected: whether the row has the defect.
        weight: the weight of the row in the score; 1 if not given.
    """

    before: np.ndarray
    after: np.ndarray
    clusters: np.ndarray
    affected: np.ndarray | None = None
    weight: np.ndarray | None = None


@dataclass(frozen=True)
class Rows:
    """The labelled training rows that a price is measured on."""

    table: Table
    places: np.ndarray  # their positions in table.texts
    labels: np.ndarray
    fold: np.ndarray
    seed: int

    @property
    def texts(self) -> list[str]:
        """Their texts."""
        return self.table.texts["text"].iloc[self.places].tolist()

    @cached_property
    def clusters(self) -> np.ndarray:
        """The number of each row's cluster of copies and near-copies."""
        return self.table.train_clusters[self.places]

    @cached_property
    def words(self) -> csr_matrix:
        """How often each word occurs in each row."""
        return self.table.counts[self.places]

    @cached_property
    def features(self) -> csr_matrix:
        """The TF-IDF weights of their words."""
        return linear_model.tfidf(self.words)

    @cached_property
    def unchanged(self) -> np.ndarray:
        """Right (1.0) or wrong (0.0) for each row, with all rows as they are: one side of most experiments."""
        return _cross_validate(self, self.features)

    def isin(self, ids: tuple[str, ...]) -> np.ndarray:
        """Return which rows have one of these `ids`."""
        return self.table.texts["id"].iloc[self.places].isin(ids).to_numpy()


def select_rows(table: Table, seed: int) -> Rows:
    """Return the labelled training rows of `table`, or a stratified part of many, in folds; `seed` draws both."""
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


def _cross_validate(
    rows: Rows,
    features: csr_matrix,
    keep: Callable[[np.ndarray], np.ndarray] | None = None,
    fold: np.ndarray | None = None,
) -> np.ndarray:
    """Right (1.0) or wrong (0.0) for each row, judged by a model that was fitted to the other folds.

    `keep` gets the positions of the rows of the other folds and returns which of them to fit to; by default all.
    """
    fold = rows.fold if fold is None else fold
    right = np.empty(len(rows.labels))
    for number in range(linear_model.FOLDS):
        held_out, others = fold == number, np.flatnonzero(fold != number)
        train = others if keep is None else others[keep(others)]
        right[held_out] = _fit_and_judge(features, rows.labels, train, held_out)
    return right


def _fit_and_judge(features: csr_matrix, labels: np.ndarray, train: np.ndarray, judged: np.ndarray) -> np.ndarray:
    from sklearn.dummy import DummyClassifier
    from threadpoolctl import threadpool_limits

    # Without the defect a single class may remain, which logistic regression refuses.
    several = len(np.unique(labels[train])) > 1
    model = linear_model.model_for(labels[train]) if several else DummyClassifier(strategy="most_frequent")
    with threadpool_limits(1):
        return (model.fit(features[train], labels[train]).predict(features[judged]) == labels[judged]).astype(float)


def _split_copies(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    """Compare folds that are drawn row by row with folds that keep copies together."""
    table = rows.table
    of_each = {
        "exact_duplicates": lambda: pd.factorize(table.texts["text"])[0],
        "normalised_duplicates": lambda: table.groups,
        "disguised_duplicates": lambda: table.copies,
        "near_duplicates": lambda: table.near_clusters,
        **dict.fromkeys(("templates", "contained_texts"), lambda: table.train_clusters),
    }
    copies = of_each[found.id]()[rows.places]
    apart, together = (linear_model.folds(rows.labels, each, rows.seed) for each in (None, copies))
    copied = np.bincount(copies)[copies] > 1
    before, after = (_cross_validate(rows, rows.features, fold=fold) for fold in (apart, together))
    return Judged(before, after, rows.clusters, copied)


def _split_groups(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    """Compare folds that are drawn row by row with folds that keep groups together, over the rows of all splits."""
    claimed = groups.claim(rows.table, groups.of_texts(rows.table), MOST_ROWS, rows.seed)
    if claimed is None:  # `pricing.priceable` has looked, at a part of many rows
        raise BadInput(f"{found.id} has no price: in {MOST_ROWS:,} rows drawn with seed {rows.seed}, {groups.UNJUDGED}")
    return Judged(claimed.by_rows, claimed.by_groups, claimed.groups, claimed.shared)


def _drop_copies(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    table = rows.table
    judged = np.flatnonzero(~table.train & (table.codes >= 0))
    affected = table.texts["id"].iloc[judged].isin(found.rows).to_numpy()
    copies = table.copies_in_training(found.rows, near=found.id == "near_leakage")
    clean = rows.places[~rows.isin(tuple(copies))]
    features = linear_model.tfidf(table.counts)
    before, after = (_fit_and_judge(features, table.codes, train, judged) for train in (rows.places, clean))
    return Judged(before, after, table.clusters[judged], affected)


def _drop_rows(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    bad = rows.isin(found.rows)
    without = _cross_validate(rows, rows.features, lambda others: ~bad[others])
    return Judged(rows.unchanged, without, rows.clusters)


def _drop_label_errors(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    """Drop likely label errors, found anew within the training folds: the labels of the judged rows choose nothing."""

    def trusted(others: np.ndarray) -> np.ndarray:
        labels = rows.labels[others]
        fold = linear_model.folds(labels, rows.clusters[others], rows.seed)
        probabilities = linear_model.out_of_fold(rows.features[others], labels, fold)
        return ~np.isin(np.arange(len(others)), label_errors.doubted(labels, probabilities))

    return Judged(rows.unchanged, _cross_validate(rows, rows.features, trusted), rows.clusters)


def _repair_texts(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    rewrite = repairs.rewriting(report, found.id)
    repaired = Words.of([rewrite(text) for text in rows.texts]).counts()
    without = _cross_validate(rows, linear_model.tfidf(repaired))
    return Judged(rows.unchanged, without, rows.clusters, rows.isin(found.rows))


def _truncate(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    tokenizer = report.tokenizer
    assert tokenizer is not None
    assert report.max_length is not None  # without them the audit does not look for truncation
    room = report.max_length - tokenizer.num_special_tokens_to_add()
    cut = Words.of(lengths.cut(tokenizer, rows.texts, room)).counts()
    before = _cross_validate(rows, linear_model.tfidf(cut))
    return Judged(before, rows.unchanged, rows.clusters, rows.isin(found.rows))


def _remove_word(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    rest = np.delete(np.arange(rows.words.shape[1]), shortcuts.telling_word(rows.table))
    without = _cross_validate(rows, linear_model.tfidf(rows.words[:, rest]))
    return Judged(rows.unchanged, without, rows.clusters, rows.isin(found.rows))


def _add_form(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    """Set length and form beside the words: a model that reads whole texts sees them."""
    from scipy.sparse import hstack

    both = hstack([rows.features, shortcuts.form_features(rows.table, rows.places)]).tocsr()
    return Judged(_cross_validate(rows, both), rows.unchanged, rows.clusters, rows.isin(found.rows))


def _train_on_top(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    size = len(rows.labels)
    order = np.random.default_rng(rows.seed).permutation(size)
    judged, rest = order[: size // 2], order[size // 2 :]
    part = max(2, size // 10)
    before, after = (
        _fit_and_judge(rows.features, rows.labels, train, judged) for train in (np.sort(rest)[:part], rest[:part])
    )
    return Judged(before, after, rows.clusters[judged])


def _balance_classes(report: AuditResult, rows: Rows, found: Finding) -> Judged:
    before, after = (
        (
            linear_model.out_of_fold(rows.features, rows.labels, rows.fold, linear_model.model(weight)).argmax(axis=1)
            == rows.labels
        )
        for weight in (None, "balanced")
    )
    counts = np.bincount(rows.labels)
    # The mean of the classes' recalls is a weighted mean over rows, with weights in proportion to 1 / class size.
    weight = len(rows.labels) / (len(counts) * counts[rows.labels])
    rare = rows.labels == counts.argmin()
    return Judged(before.astype(float), after.astype(float), rows.clusters, rare, weight)


_RANDOM = "a split drawn row by row, against one that keeps copies on one side"
_GROUPS = "a split drawn row by row, against one that keeps each group on one side"
_WITHOUT = "training with these rows, against training without them"
_FORM = "words with the length and the form of the texts, against words alone"
_COPIES = "training with the copies, against training without them"
_REWRITE = "texts as they are, against repaired texts, both in training and in judging"
EXPERIMENTS: dict[str, tuple[str, Callable[[AuditResult, Rows, Finding], Judged]]] = {
    "exact_duplicates": (_RANDOM, _split_copies),
    "normalised_duplicates": (_RANDOM, _split_copies),
    "near_duplicates": (_RANDOM, _split_copies),
    **dict.fromkeys(("disguised_duplicates", "templates", "contained_texts"), (_RANDOM, _split_copies)),
    "group_leakage": (_GROUPS, _split_groups),
    "group_column": (_GROUPS, _split_groups),
    "leakage": (_COPIES, _drop_copies),
    "near_leakage": (_COPIES, _drop_copies),
    "conflicting_labels": (_WITHOUT, _drop_rows),
    "conflicting_near_labels": (_WITHOUT, _drop_rows),
    "likely_label_errors": (
        "training with the doubted rows, against training without them; judged by the labels as given",
        _drop_label_errors,
    ),
    "sorted_by_label": ("training on the top tenth of the file, against as many rows from anywhere", _train_on_top),
    "truncation": ("texts cut at max_length, against whole texts", _truncate),
    "token_shortcut": ("with the word that gives the label away, against without it", _remove_word),
    **dict.fromkeys(("length_shortcut", "shape_shortcut"), (_FORM, _add_form)),
    "imbalance": ("rows weighted equally, against classes weighted equally", _balance_classes),
    **dict.fromkeys(repairs.REWRITES, (_REWRITE, _repair_texts)),
}
