"""Checks with a simple model: likely label errors, and shortcuts such as the length of a text or a single word."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ftlab.data.audit import linear_model
from ftlab.data.audit.findings import Finding, finding, share
from ftlab.data.audit.table import Table

GAIN_OF_A_SHORTCUT = 0.2  # a shortcut corrects at least this share of the most-frequent-label baseline's errors
SHARE_OF_A_SHORTCUT = 0.6  # and has at least this share of the gain of TF-IDF over that baseline
TRUSTED = 0.2  # label errors are reported if TF-IDF corrects at least this share of the baseline's errors
MOST_TALLIES = 10_000_000  # classes times words that are counted


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
    counts = np.bincount(labels)
    fold = linear_model.folds(labels, table.train_clusters[table.labelled])
    table.progress.set_description("fitting a simple model")
    words = table.counts[np.flatnonzero(table.labelled)]
    probabilities = linear_model.out_of_fold(linear_model.tfidf(words), labels, fold)
    majority = counts.max() / len(labels)
    tfidf = float((probabilities.argmax(axis=1) == labels).mean())
    length = _length_alone(rows["text"].str.len().to_numpy(), labels, fold)
    token, word = _one_token(words, labels, fold)
    shortcuts = pd.DataFrame(
        {
            "guess by": ["the most frequent label", "length alone", "one word alone", "TF-IDF over all words"],
            "accuracy": np.round([majority, length, token, tfidf], 3),
        }
    )
    found = []
    said = f"against {majority:.1%} for the most frequent label and {tfidf:.1%} for all words"
    if _is_shortcut(length, tfidf, majority):
        what = f"length alone predicts {length:.1%} of the labels, {said}"
        found.append(finding("length_shortcut", what, count=len(rows)))
    if _is_shortcut(token, tfidf, majority):
        present = words[:, word].toarray()[:, 0] > 0
        what = f"one word, {table.words.vocabulary[word]!r}, predicts {token:.1%} of the labels, {said}"
        ids = rows["id"][present]
        evidence = pd.DataFrame({"id": ids, "word": table.words.vocabulary[word]})
        found.append(finding("token_shortcut", what, evidence=evidence))
    if tfidf - majority < TRUSTED * (1 - majority):
        why = f"the simple model is right in {tfidf:.1%} of the rows, little better than the most frequent label alone"
        return ModelChecks(found, shortcuts, f"label errors: {why}")
    return ModelChecks(found + _label_errors(table, rows, labels, probabilities, tfidf), shortcuts)


def _label_errors(
    table: Table, rows: pd.DataFrame, labels: np.ndarray, probabilities: np.ndarray, accuracy: float
) -> list[Finding]:
    """Find label errors by confident learning (Northcutt et al. 2021), the likeliest first."""
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes without a doubtful row, which are just not listed
        ranked = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    if not len(ranked):
        return []
    names = np.array(table.label_names, dtype=object)
    suggested = probabilities[ranked].argmax(axis=1)
    evidence = pd.DataFrame(
        {
            "id": rows["id"].to_numpy()[ranked],
            "label": names[labels[ranked]],
            "suggested": names[suggested],
            "confidence": probabilities[ranked, suggested].astype(float).round(2),
        }
    )
    what = (
        f"a label that a simple model contradicts with confidence in {{count}} ({share(len(ranked), len(rows))}); the "
        f"model is right in {accuracy:.1%} of the rows, so some are its own mistakes; the likeliest errors come first"
    )
    return [finding("likely_label_errors", what, evidence=evidence)]


def _length_alone(characters: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> float:
    """Return the accuracy of a small decision tree whose only feature is the number of characters."""
    from sklearn.tree import DecisionTreeClassifier

    features = np.log1p(characters).reshape(-1, 1)
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=0)
    return float((linear_model.out_of_fold(features, labels, fold, tree).argmax(axis=1) == labels).mean())


def _one_token(words: object, labels: np.ndarray, fold: np.ndarray) -> tuple[float, int]:
    """Return the accuracy of guessing by whether a text contains the best single word, and that word's id.

    For the accuracy, the word is chosen on the other folds and scored on the fold, as a model would be. The word that
    is returned is the best one over all rows.
    """
    from scipy.sparse import csr_matrix

    size = int(labels.max()) + 1
    present = csr_matrix(words) > 0
    # A word that predicts many labels is frequent, so the rarest are left out if there are too many to count.
    frequent = np.argsort(-np.bincount(present.indices, minlength=present.shape[1]), kind="stable")
    frequent = np.sort(frequent[: max(1, MOST_TALLIES // size)])
    present = present[:, frequent]
    tallies = []  # for each fold, (classes, words): the rows of the class that contain the word
    for number in range(linear_model.FOLDS):
        inside = np.flatnonzero(fold == number)
        onehot = csr_matrix((np.ones(len(inside)), (labels[inside], np.arange(len(inside)))), (size, len(inside)))
        tallies.append((onehot @ present[inside].astype(np.float64)).toarray())
    totals = np.array([np.bincount(labels[fold == number], minlength=size) for number in range(linear_model.FOLDS)])
    having, all_rows = np.sum(tallies, axis=0), totals.sum(axis=0)
    right = 0.0
    for number in range(linear_model.FOLDS):
        seen, there = having - tallies[number], (all_rows - totals[number])[:, None]
        word = int((seen.max(axis=0) + (there - seen).max(axis=0)).argmax())
        with_word, without = seen[:, word].argmax(), (there[:, 0] - seen[:, word]).argmax()
        right += tallies[number][with_word, word] + totals[number][without] - tallies[number][without, word]
    best = int((having.max(axis=0) + (all_rows[:, None] - having).max(axis=0)).argmax())
    return float(right / len(labels)), int(frequent[best])


def _is_shortcut(accuracy: float, tfidf: float, majority: float) -> bool:
    gain = accuracy - majority
    return gain >= GAIN_OF_A_SHORTCUT * (1 - majority) and gain >= SHARE_OF_A_SHORTCUT * (tfidf - majority)
