"""What a simple model sees in the rows: labels that it doubts, and shortcuts that make reading needless."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ftlab.data.audit import linear_model
from ftlab.data.audit.findings import Finding, finding, share
from ftlab.data.audit.table import Table

GAIN_OF_A_SHORTCUT = 0.2  # of what the most frequent label gets wrong
SHARE_OF_A_SHORTCUT = 0.6  # of what TF-IDF gains
TRUSTED = 0.2  # of what the most frequent label gets wrong: from there the model's doubts are worth reading
MOST_TALLIES = 10_000_000  # classes times words whose presence is counted


@dataclass(frozen=True)
class Opinion:
    """What the simple model says of the rows. `shortcuts` has the out-of-fold accuracy of each way to guess."""

    findings: list[Finding]
    shortcuts: pd.DataFrame
    skipped: str = ""


def check(table: Table) -> Opinion:
    """Likely label errors, and labels that length or a single word gives away."""
    if why := linear_model.refusal(table, linear_model.FEWEST_OF_A_CLASS):
        return Opinion([], pd.DataFrame(), f"label errors and shortcuts: {why}")
    labels, rows = table.codes[table.labelled], table.texts[table.labelled]
    counts = np.bincount(labels)
    fold = linear_model.folds(labels, table.train_clusters[table.labelled])
    table.progress.set_description("asking a simple model")
    words = table.counts[np.flatnonzero(table.labelled)]
    probabilities = linear_model.out_of_fold(linear_model.weigh(words), labels, fold)
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
    if _gives_away(length, tfidf, majority):
        what = f"length alone predicts {length:.1%} of the labels, {said}"
        found.append(finding("length_shortcut", what, count=len(rows)))
    if _gives_away(token, tfidf, majority):
        present = words[:, word].toarray()[:, 0] > 0
        what = f"one word, {table.words.vocabulary[word]!r}, predicts {token:.1%} of the labels, {said}"
        ids = rows["id"][present]
        evidence = pd.DataFrame({"id": ids, "word": table.words.vocabulary[word]})
        found.append(finding("token_shortcut", what, evidence=evidence))
    if tfidf - majority < TRUSTED * (1 - majority):
        said = f"right in {tfidf:.1%} of the rows, little better than the most frequent label alone"
        doubts = f"label errors: the simple model is {said}"
        return Opinion(found, shortcuts, doubts)
    return Opinion(found + _label_errors(table, rows, labels, probabilities, tfidf), shortcuts)


def _label_errors(
    table: Table, rows: pd.DataFrame, labels: np.ndarray, probabilities: np.ndarray, accuracy: float
) -> list[Finding]:
    """Confident learning (Northcutt et al. 2021), the likeliest error first."""
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on classes without a doubtful row; they are simply not listed
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
        f"a label that a simple model, right in {accuracy:.1%} of the rows, contradicts with confidence in {{count}} "
        f"({share(len(ranked), len(rows))}); the likeliest errors come first, and some are its own mistakes"
    )
    return [finding("likely_label_errors", what, evidence=evidence)]


def _length_alone(characters: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> float:
    """The accuracy of a small decision tree that sees nothing but the number of characters."""
    from sklearn.tree import DecisionTreeClassifier

    features = np.log1p(characters).reshape(-1, 1)
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=0)
    return float((linear_model.out_of_fold(features, labels, fold, tree).argmax(axis=1) == labels).mean())


def _one_token(words: object, labels: np.ndarray, fold: np.ndarray) -> tuple[float, int]:
    """The accuracy of "the text has this word, or not" for the best word, and that word.

    The word is chosen on the rows outside of each fold and judged on the fold, as a model would be; the word that is
    named is the best one over all rows.
    """
    from scipy.sparse import csr_matrix

    size = int(labels.max()) + 1
    present = csr_matrix(words) > 0
    # A word that gives many labels away is frequent; the rarest are left out where there are too many to count.
    frequent = np.argsort(-np.bincount(present.indices, minlength=present.shape[1]), kind="stable")
    frequent = np.sort(frequent[: max(1, MOST_TALLIES // size)])
    present = present[:, frequent]
    cells = np.arange(size)
    tallies = []  # rows of each class that have the word, for each fold: (classes, words)
    for number in range(linear_model.FOLDS):
        inside = np.flatnonzero(fold == number)
        onehot = csr_matrix((np.ones(len(inside)), (labels[inside], np.arange(len(inside)))), (size, len(inside)))
        tallies.append((onehot @ present[inside].astype(np.float64)).toarray())
    totals = np.array(
        [[(labels[fold == number] == cell).sum() for cell in cells] for number in range(linear_model.FOLDS)]
    )
    having, all_rows = np.sum(tallies, axis=0), totals.sum(axis=0)
    right = 0.0
    for number in range(linear_model.FOLDS):
        seen, there = having - tallies[number], (all_rows - totals[number])[:, None]
        word = int((seen.max(axis=0) + (there - seen).max(axis=0)).argmax())
        with_word, without = seen[:, word].argmax(), (there[:, 0] - seen[:, word]).argmax()
        right += tallies[number][with_word, word] + totals[number][without] - tallies[number][without, word]
    best = int((having.max(axis=0) + (all_rows[:, None] - having).max(axis=0)).argmax())
    return float(right / len(labels)), int(frequent[best])


def _gives_away(accuracy: float, tfidf: float, majority: float) -> bool:
    gain = accuracy - majority
    return gain >= GAIN_OF_A_SHORTCUT * (1 - majority) and gain >= SHARE_OF_A_SHORTCUT * (tfidf - majority)
