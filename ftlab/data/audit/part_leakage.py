"""Leakage by a part of a row: a prompt of an earlier split with another answer, or an answer to another prompt.

`repeats` compares whole rows, and prompts that are equal. Here the parts are compared by their rare pairs of words,
those that at most COMMON prompts (or answers) have: what a template repeats says nothing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ftlab.data import duplicates
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table
from ftlab.data.duplicates import FEWEST_WORDS, NEAR
from ftlab.data.words import Words

COMMON = 5
LONG, NEAR_SHORT = 30, 0.8  # rare pairs of a long prompt; in a shorter one, one word may make another question
FEWEST_PAIRS = 7  # rare pairs of words in each of two texts: as many as a text of FEWEST_WORDS words has


def check(table: Table) -> list[Finding]:
    """Find rows of `table` with nearly the prompt, or the answer, of a row in an earlier split."""
    if not table.others or not table.pairs:
        return []
    rows, order = table.texts, table.split_order
    known = np.zeros(len(rows), dtype=bool)
    for groups in (table.input_groups, table.whole_dialogues, table.clusters):
        known |= order > pd.Series(order).groupby(groups).transform("min").to_numpy()
    found = []
    for finding_id, part, said, long in (
        ("prompt_leakage", "prompt", "nearly a prompt", LONG), ("answer_leakage", "completion", "an answer", 0),
    ):  # fmt: skip
        of, similarity = _earlier_copies(rows[part].fillna("").tolist(), order, long)
        leaked = np.flatnonzero((of >= 0) & ~known)
        if len(leaked):
            known[leaked] = True
            evidence = pd.DataFrame(
                {
                    "id": rows["id"].to_numpy()[leaked], "split": rows["split"].to_numpy()[leaked],
                    "near": rows["id"].to_numpy()[of[leaked]], "similarity": similarity[leaked].round(3),
                }
            )  # fmt: skip
            splits = " and ".join(dict.fromkeys(evidence["split"]))
            what = f"{said} of an earlier split, in another row, in {{count}} of {splits}"
            found.append(finding(finding_id, what, evidence=evidence))
    return found


def _earlier_copies(texts: list[str], order: np.ndarray, long: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each text the position of its nearest copy in an earlier split (or -1), and their similarity.

    Args:
        texts: prompts or answers; those under FEWEST_WORDS words are not compared.
        order: (len(texts),) the position of the split of each.
        long: a text with fewer rare pairs of words has to be more similar.
    """
    groups = duplicates.copies(texts)
    _, firsts = np.unique(groups, return_index=True)  # the first text of each group; texts stand in order of splits
    words = Words.of(texts[place] for place in firsts)
    compared = (words.sizes >= FEWEST_WORDS)[groups]
    of, similarity = np.full(len(texts), -1), np.zeros(len(texts))
    # Equal texts. What many rows of an earlier split say is a phrase, and not a copy of one of them.
    earlier = pd.Series(order).groupby(groups).transform("min").to_numpy()
    often = np.bincount(groups[order == 0], minlength=len(firsts))[groups]
    equal = compared & (order > earlier) & (often <= COMMON)
    of[equal], similarity[equal] = firsts[groups[equal]], 1.0
    near, close = _nearest(words, order[firsts], long)
    nearly = (of < 0) & (near >= 0)[groups]
    of[nearly], similarity[nearly] = firsts[near[groups[nearly]]], close[groups[nearly]]
    return of, similarity


def _nearest(words: Words, order: np.ndarray, long: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each text the nearest of an earlier split, by rare pairs of words (or -1), and their similarity."""
    from scipy.sparse import csr_matrix

    row, pairs = words.all_bigrams()
    _, number = np.unique(pairs, return_inverse=True)
    there = csr_matrix((np.ones(len(number), dtype=np.int32), (row, number)), shape=(len(words), len(pairs) + 1))
    there.sum_duplicates()
    there.data[:] = 1
    there = there[:, np.bincount(there.indices, minlength=there.shape[1]) <= COMMON]
    rare = np.diff(there.indptr)
    pairs_of_words = rare * words.sizes / np.maximum(words.lengths, 1)
    earlier, later = np.flatnonzero(order < order.max()), np.flatnonzero(order > 0)
    shared = (there[later] @ there[earlier].T).tocoo()
    first, second = earlier[shared.col], later[shared.row]
    similarity = shared.data / np.maximum(rare[first] + rare[second] - shared.data, 1)
    fewest = np.minimum(pairs_of_words[first], pairs_of_words[second])
    kept = (order[first] < order[second]) & (fewest >= FEWEST_PAIRS)
    kept &= similarity >= np.where(fewest < long, NEAR_SHORT, NEAR)
    first, second, similarity = first[kept], second[kept], similarity[kept]
    near, close = np.full(len(words), -1), np.zeros(len(words))
    for place in np.argsort(similarity, kind="stable"):  # the last one written is the most similar
        near[second[place]], close[second[place]] = first[place], similarity[place]
    return near, close
