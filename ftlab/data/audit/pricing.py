"""What a defect costs: the cheap model's score with the defect and without it, on the same rows.

Each row is judged by a model that was fitted to other folds, once to the rows as they are and once to the rows without
the defect. The difference is paired by row, so that an easy or a hard row counts for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data.audit import learned, lengths, linear, mending
from ftlab.data.audit.table import Table
from ftlab.data.words import Words
from ftlab.errors import BadInput
from ftlab.intervals import Interval, mean_interval, paired
from ftlab.progress import bar

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from ftlab.data.audit.report import AuditReport, Finding

MOST_ROWS = 30_000  # a larger set is priced on a stratified part


@dataclass(frozen=True, repr=False)
class Price:
    """The score of the cheap model with a defect and without it, and the change with its interval.

    `change` is `with_defect` less `without`: above zero the defect inflates the score, below zero it takes away.
    `clear` says whether the change is more than chance explains. `affected` holds the number of judged rows that the
    defect touches, and the two scores on these rows alone, where that can be said.
    """

    finding: str
    score: str
    with_defect: float
    without: float
    change: Interval
    clear: bool
    rows: int
    what: str
    affected: tuple[int, float, float] | None = None

    def __str__(self) -> str:
        if not self.clear:
            verdict = "no clear change"
        elif self.change.value < 0:
            verdict = "the defect takes score away"
        else:
            verdict = "the defect inflates the score" if self.finding in _INFLATE else "the repair makes it worse"
        lines = [
            f"{self.finding}: {self.what}",
            f"    {self.score} {self.with_defect:.3f} with it and {self.without:.3f} without, on {self.rows:,} rows",
            f"    change {self.change.value:+.3f} [{self.change.low:+.3f}, {self.change.high:+.3f}]: {verdict}",
        ]
        if self.affected:
            count, with_defect, without = self.affected
            lines += [f"    on the {count:,} affected rows alone: {with_defect:.3f} with, {without:.3f} without"]
        return "\n".join(lines)

    __repr__ = __str__


@dataclass(frozen=True)
class _Judged:
    """For each judged row, right (1.0) or wrong (0.0) with the defect and without.

    `affected` marks the rows that the defect touches; `weight` is what each row counts, 1 where it is not given.
    """

    before: np.ndarray
    after: np.ndarray
    affected: np.ndarray | None = None
    weight: np.ndarray | None = None


@dataclass(frozen=True)
class _Rows:
    """The labelled training rows that a price is worked out on."""

    table: Table
    places: np.ndarray  # in table.texts
    labels: np.ndarray
    fold: np.ndarray
    seed: int

    @property
    def texts(self) -> list[str]:
        return self.table.texts["text"].iloc[self.places].tolist()

    @cached_property
    def words(self) -> csr_matrix:
        return self.table.counts[self.places]

    @cached_property
    def features(self) -> csr_matrix:
        return linear.weigh(self.words)

    @cached_property
    def as_they_are(self) -> np.ndarray:
        """Right or wrong for each row, trained on and judged as the rows are: what most prices compare with."""
        return _judge(self, self.features)

    def among(self, ids: tuple[str, ...]) -> np.ndarray:
        """Which rows have one of these ids."""
        return self.table.texts["id"].iloc[self.places].isin(ids).to_numpy()


def price(report: AuditReport, finding_id: str, *, seed: int = 0) -> Price:
    """Train the cheap baseline with and without a finding's defect. Raises BadInput where that cannot be done."""
    found = report[finding_id]
    if finding_id not in priceable(report):
        there = ", ".join(priceable(report)) or "none of what was found"
        raise BadInput(f"{finding_id} has no price in score here; those that have one: {there}")
    what, experiment = _EXPERIMENTS[finding_id]
    rows = report.table.kept(("price", seed), lambda: _rows(report.table, seed))
    with bar(f"pricing {finding_id}", total=None):
        judged = experiment(report, rows, found)
    weight = np.ones(len(judged.before)) if judged.weight is None else judged.weight
    if judged.weight is None:
        comparison = paired(judged.before, judged.after, seed=seed)
        change, clear = comparison.difference, comparison.clear
    else:
        change = mean_interval((judged.before - judged.after) * weight, seed=seed)
        clear = change.low > 0 or change.high < 0
    affected = None
    if judged.affected is not None and judged.affected.any():
        touched = judged.affected
        affected = (int(touched.sum()), float(judged.before[touched].mean()), float(judged.after[touched].mean()))
    return Price(
        finding=finding_id,
        score="accuracy" if judged.weight is None else "macro recall",
        with_defect=float((judged.before * weight).mean()),
        without=float((judged.after * weight).mean()),
        change=change,
        clear=clear,
        rows=len(judged.before),
        what=what,
        affected=affected,
    )


def priceable(report: AuditReport) -> tuple[str, ...]:
    """The ids of the findings whose cost can be measured: there is an experiment, and rows enough."""
    return report.table.kept("priceable", lambda: _priceable(report))


def _priceable(report: AuditReport) -> tuple[str, ...]:
    table = report.table
    labels, clusters = table.codes[table.labelled], table.train_clusters[table.labelled]
    if table.pairs or not len(labels) or labels.min() == labels.max():
        return ()
    weights = table.counts.shape[1] * len(table.label_names)
    if linear.fewest(labels, clusters) < linear.FOLDS or table.counts.nnz == 0 or weights > learned.MOST_WEIGHTS:
        return ()
    return tuple(found.id for found in report.findings if found.id in _EXPERIMENTS and _judgeable(table, found))


def _judgeable(table: Table, found: Finding) -> bool:
    """Whether a leak has labelled rows to judge, and what a defect leaves has two classes to train on."""
    without: set[str] = set()
    if found.id in mending.COPIES_IN_TRAINING:
        without = table.copies_in_training(found.rows, near=found.id == "near_leakage")
        if not without or not (~table.train & (table.codes >= 0)).any():
            return False
    elif found.id in ("conflicting_labels", "conflicting_near_labels"):
        without = set(found.rows)
    labels = table.codes[table.labelled & ~table.texts["id"].isin(without).to_numpy()]
    counts = np.bincount(labels, minlength=len(table.label_names))
    return bool((counts > 0).sum() > 1 and np.sort(counts)[-2] >= linear.FOLDS)


def _rows(table: Table, seed: int) -> _Rows:
    places = np.flatnonzero(table.labelled)
    labels = table.codes[places]
    if len(places) > MOST_ROWS:
        rng, counts = np.random.default_rng(seed), np.bincount(labels)
        wanted = np.maximum(np.round(counts * MOST_ROWS / len(places)), np.minimum(counts, 4 * linear.FOLDS)).astype(
            int
        )
        of_each = [rng.permutation(np.flatnonzero(labels == code))[:size] for code, size in enumerate(wanted)]
        chosen = np.sort(np.concatenate(of_each))
        places, labels = places[chosen], labels[chosen]
    return _Rows(table, places, labels, linear.folds(labels, table.train_clusters[places], seed), seed)


def _judge(
    rows: _Rows,
    features: csr_matrix,
    keep: Callable[[int, np.ndarray], np.ndarray] | None = None,
    fold: np.ndarray | None = None,
) -> np.ndarray:
    """Right or wrong for each row; `keep(fold, others)` says which of the other folds' rows train for a fold."""
    fold = rows.fold if fold is None else fold
    right = np.empty(len(rows.labels))
    for number in range(linear.FOLDS):
        held_out, others = fold == number, np.flatnonzero(fold != number)
        train = others if keep is None else others[keep(number, others)]
        right[held_out] = _right(features, rows.labels, train, held_out)
    return right


def _right(features: csr_matrix, labels: np.ndarray, train: np.ndarray, judged: np.ndarray) -> np.ndarray:
    from sklearn.dummy import DummyClassifier
    from threadpoolctl import threadpool_limits

    # What is left to train on may be one class, which logistic regression refuses.
    several = len(np.unique(labels[train])) > 1
    model = linear.model() if several else DummyClassifier(strategy="most_frequent")
    with threadpool_limits(1):
        return (model.fit(features[train], labels[train]).predict(features[judged]) == labels[judged]).astype(float)


def _copies(report: AuditReport, rows: _Rows, found: Finding) -> _Judged:
    """The same rows in folds that are drawn row by row, and in folds that keep copies together."""
    table = rows.table
    of_each = {
        "exact_duplicates": lambda: pd.factorize(table.texts["text"])[0],
        "normalised_duplicates": lambda: table.groups,
        "near_duplicates": lambda: table.train_clusters,
    }
    copies = of_each[found.id]()[rows.places]
    apart, together = (linear.folds(rows.labels, each, rows.seed) for each in (None, copies))
    copied = np.bincount(copies)[copies] > 1
    return _Judged(_judge(rows, rows.features, fold=apart), _judge(rows, rows.features, fold=together), copied)


def _leaked(report: AuditReport, rows: _Rows, found: Finding) -> _Judged:
    table = rows.table
    judged = np.flatnonzero(~table.train & (table.codes >= 0))
    affected = table.texts["id"].iloc[judged].isin(found.rows).to_numpy()
    copies = table.copies_in_training(found.rows, near=found.id == "near_leakage")
    clean = rows.places[~rows.among(tuple(copies))]
    features = linear.weigh(table.counts)
    before, after = (_right(features, table.codes, train, judged) for train in (rows.places, clean))
    return _Judged(before, after, affected)


def _dropped(report: AuditReport, rows: _Rows, found: Finding) -> _Judged:
    bad = rows.among(found.rows)
    return _Judged(rows.as_they_are, _judge(rows, rows.features, lambda number, others: ~bad[others]))


def _doubted(report: AuditReport, rows: _Rows, found: Finding) -> _Judged:
    """The rows to drop are found anew within the training folds, so that the judged labels decide nothing."""
    from cleanlab.filter import find_label_issues

    def trusted(number: int, others: np.ndarray) -> np.ndarray:
        labels = rows.labels[others]
        probabilities = linear.out_of_fold(
            rows.features[others],
            labels,
            linear.folds(labels, rows.table.train_clusters[rows.places[others]], rows.seed),
        )
        return ~find_label_issues(labels, probabilities, n_jobs=1)

    return _Judged(rows.as_they_are, _judge(rows, rows.features, trusted))


def _repaired(report: AuditReport, rows: _Rows, found: Finding) -> _Judged:
    rewrite = mending.rewriting(report, found.id)
    repaired = Words.of([rewrite(text) for text in rows.texts]).counts()
    return _Judged(rows.as_they_are, _judge(rows, linear.weigh(repaired)), rows.among(found.rows))


def _cut(report: AuditReport, rows: _Rows, found: Finding) -> _Judged:
    tokenizer = report.tokenizer
    assert tokenizer is not None
    assert report.max_length is not None  # without either there is no such finding
    room = report.max_length - tokenizer.num_special_tokens_to_add()
    cut = Words.of(lengths.cut(tokenizer, rows.texts, room)).counts()
    return _Judged(_judge(rows, linear.weigh(cut)), rows.as_they_are, rows.among(found.rows))


def _word_gone(report: AuditReport, rows: _Rows, found: Finding) -> _Judged:
    word = rows.table.words.vocabulary.index(found.evidence["word"].iloc[0])
    rest = np.delete(np.arange(rows.words.shape[1]), word)
    return _Judged(rows.as_they_are, _judge(rows, linear.weigh(rows.words[:, rest])), rows.among(found.rows))


def _top_of_the_file(report: AuditReport, rows: _Rows, found: Finding) -> _Judged:
    size = len(rows.labels)
    order = np.random.default_rng(rows.seed).permutation(size)
    judged, rest = order[: size // 2], order[size // 2 :]
    part = max(2, size // 10)
    before, after = (_right(rows.features, rows.labels, train, judged) for train in (np.sort(rest)[:part], rest[:part]))
    return _Judged(before, after)


def _imbalance(report: AuditReport, rows: _Rows, found: Finding) -> _Judged:
    before, after = (
        (linear.out_of_fold(rows.features, rows.labels, rows.fold, linear.model(weight)).argmax(axis=1) == rows.labels)
        for weight in (None, "balanced")
    )
    counts = np.bincount(rows.labels)
    # The mean of the classes' recalls is a mean over rows in which each counts as one over its class's size.
    weight = len(rows.labels) / (len(counts) * counts[rows.labels])
    rare = rows.labels == counts.argmin()
    return _Judged(before.astype(float), after.astype(float), rare, weight)


_INFLATE = ("exact_duplicates", "normalised_duplicates", "near_duplicates", "leakage", "near_leakage", "token_shortcut")
_RANDOM = "a split drawn row by row, against one that keeps copies on one side"
_WITHOUT = "training with these rows, against without them"
_COPIES = "judging after training on the copies, against without them"
_REWRITE = "texts as they are, against repaired ones, in training and in judging alike"
_EXPERIMENTS: dict[str, tuple[str, Callable[[AuditReport, _Rows, Finding], _Judged]]] = {
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
    **dict.fromkeys(mending.REWRITES, (_REWRITE, _repaired)),
}
