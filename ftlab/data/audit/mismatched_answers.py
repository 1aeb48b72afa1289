"""Answers that fit the prompt of another row better: shuffled, or moved up or down in their column.

A prompt and its answer share words that few other rows have. Their fit is the sum of the inverse document frequencies
of the words in both (Spärck Jones 1972). That says little of a single row where answers use words of their own, so
single rows are judged only where prompts and answers fit nearly everywhere. A column that has slipped by some rows is
found with much less: the fit of many rows in a sequence is added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from ftlab.data import sources
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table
from ftlab.data.words import Words

STEM = 6  # characters: "film" and "films", "painted" and "painting" are one word
RARE = 20  # prompts and answers with a word: with a rarer one, pairs are looked for
FEWEST_ROWS = 30
RELATED = 0.8  # share of the rows in pairs of which each fits the other best; from here, single rows are judged
BETTER = 0.3  # of the median fit: by so much another row has to fit better
CANDIDATES = 4  # the best of another row, by rare words, that are compared by all words
VERBATIM = 60  # characters of an answer that stand in the prompt that it fits: there it has the dialogue so far
HISTORY = 0.3  # share of such rows from which on nothing has slipped
SLIPS = 5  # rows: how far a column may have slipped
FEWEST_SLIPPED, SURE = 20, 8.0  # rows in a sequence; standard errors by which they fit better than as they are


@dataclass(frozen=True)
class Mismatched:
    """Rows whose answers fit another prompt better, and the row of that prompt.

    Attributes:
        rows: positions.
        fits: the position of the prompt that the answer of each of them fits.
        slip: first row, last row, and by how many rows this part has slipped; or None.
        not_judged: why single rows were not judged, or "".
    """

    rows: np.ndarray
    fits: np.ndarray
    slip: tuple[int, int, int] | None = None
    not_judged: str = ""


@dataclass(frozen=True)
class Checked:
    """What was found, and why single rows were not judged, if they were not."""

    findings: list[Finding]
    skipped: str = ""


def check(table: Table) -> Checked:
    """Find the answers of `table` that fit the prompt of another row better.

    Of conversations nothing is judged: their turns stand in one row.
    """
    if table.conversations:
        return Checked([])
    frame = table.frame
    there = frame[~sources.blank(frame["prompt"]) & ~sources.blank(frame["completion"])]
    judged = mismatched(there["prompt"].tolist(), there["completion"].tolist())
    ids = there["id"].to_numpy()
    skipped = "answers that fit another prompt better: " + judged.not_judged if judged.not_judged else ""
    if not len(judged.rows):
        return Checked([], skipped)
    evidence = pd.DataFrame({"id": ids[judged.rows], "fits": ids[judged.fits]})
    what = "an answer that fits the prompt of another row better in {count}"
    if judged.slip:
        first, last, by = judged.slip
        way = "earlier" if by > 0 else "later"
        far = f"{abs(by)} rows {way}" if abs(by) > 1 else f"one row {way}"
        what += f": from {ids[first]} to {ids[last]} the answers belong to prompts {far}"
    return Checked([finding("mismatched_answers", what, evidence=evidence)], skipped)


def mismatched(prompts: Sequence[str], answers: Sequence[str]) -> Mismatched:
    """Return which of `answers` fit another of `prompts` better than their own, in their order in the file."""
    count = len(prompts)
    nothing = np.empty(0, dtype=np.int64)
    if count < FEWEST_ROWS:
        return Mismatched(nothing, nothing, not_judged=f"at least {FEWEST_ROWS} pairs are needed")
    asked, said = _weighted(prompts, answers)
    if slip := _slip(asked, said):
        first, last, by = slip
        rows = np.arange(first, last + 1)
        others = (rows - by) % count
        if _quoted(prompts, answers, rows, others).mean() < HISTORY:
            return Mismatched(rows, others, slip)
    fits = _single(asked, said)
    if fits is None:
        reason = "prompts and answers share too few words to judge single rows"
        return Mismatched(nothing, nothing, not_judged=reason)
    rows = np.flatnonzero(fits != np.arange(count))
    rows = rows[~_quoted(prompts, answers, rows, fits[rows])]
    return Mismatched(rows, fits[rows])


def _quoted(prompts: Sequence[str], answers: Sequence[str], rows: np.ndarray, fits: np.ndarray) -> np.ndarray:
    """Which of these answers stand word for word in the prompt that they fit, as where it has the dialogue so far."""
    pairs = ((answers[row].strip()[:VERBATIM], prompts[other]) for row, other in zip(rows, fits, strict=True))
    return np.array([len(said) == VERBATIM and said in asked for said, asked in pairs], dtype=bool)


def _weighted(prompts: Sequence[str], answers: Sequence[str]) -> tuple[csr_matrix, csr_matrix]:
    """Which words are in each prompt and in each answer: two matrices (rows, words), the first with their weights."""
    words = Words.of([*prompts, *answers])
    stems, number = np.unique([word[:STEM] for word in words.vocabulary] or [""], return_inverse=True)
    ids = number[words.ids] if len(words.ids) else np.empty(0, dtype=np.int64)
    there = csr_matrix((np.ones(len(ids), dtype=np.float32), ids, words.starts), shape=(len(words), len(stems)))
    there.sum_duplicates()
    there.data[:] = 1
    asked, said = there[: len(prompts)], there[len(prompts) :]
    often = np.maximum(np.asarray(asked.sum(axis=0)), np.asarray(said.sum(axis=0))).ravel()
    weights = np.log(len(prompts) / np.maximum(often, 1)).astype(np.float32)
    return asked.multiply(weights).tocsr(), said


def _fit(asked: csr_matrix, said: csr_matrix, prompts: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """The fit of each of these prompts and answers, given by their positions."""
    return np.asarray(asked[prompts].multiply(said[answers]).sum(axis=1)).ravel()


def _slip(asked: csr_matrix, said: csr_matrix) -> tuple[int, int, int] | None:
    """Return the part of the rows whose answers belong to prompts some rows earlier or later: first, last, how many."""
    count = asked.shape[0]
    rows = np.arange(count)
    own = _fit(asked, said, rows, rows)
    most, best = 0.0, None
    for by in (*range(-SLIPS, 0), *range(1, SLIPS + 1)):
        other = _fit(asked, said, (rows - by) % count, rows)
        gain = other - own
        bound = 3 * max(float(np.median(np.abs(gain))), 1e-6)  # a few rows with many words in common decide nothing
        clipped = np.clip(gain, -bound, bound)
        first, last, total = _largest_part(clipped)
        size = last - first + 1
        if size < FEWEST_SLIPPED or own[first : last + 1].sum() * 1.25 > other[first : last + 1].sum():
            continue
        error = float(clipped.std()) * np.sqrt(size)
        if total > SURE * max(error, 1e-6) and total > most:
            most, best = total, (first, last, by)
    return best


def _largest_part(values: np.ndarray) -> tuple[int, int, float]:
    """Return first and last position of the part of `values` with the largest sum, and the sum (Kadane)."""
    sums = np.append(0.0, np.cumsum(values))
    lowest = np.minimum.accumulate(sums)
    last = int((sums[1:] - lowest[:-1]).argmax())
    first = int(sums[: last + 1].argmin())
    return first, last, float(sums[last + 1] - sums[first])


def _single(asked: csr_matrix, said: csr_matrix) -> np.ndarray | None:
    """Return for each answer the prompt that it fits: its own, or another; None if single rows cannot be judged.

    A row is judged wrong if its answer fits another prompt better by far, and its prompt another answer, and the rows
    of both do not fit as they are either.
    """
    count = asked.shape[0]
    rows = np.arange(count)
    own = _fit(asked, said, rows, rows)
    answer, answer_fit = _best(asked, said, asked, said)
    prompt, prompt_fit = _best(asked, said, said, asked)
    best_answer = np.where(own >= answer_fit, rows, answer)
    best_prompt = np.where(own >= prompt_fit, rows, prompt)
    related = float(((best_prompt[best_answer] == rows) & (np.maximum(own, answer_fit) > 0)).mean())
    if related < RELATED:
        return None
    better = BETTER * float(np.median(np.maximum(own, answer_fit)))
    wrong = answer_fit >= better + np.maximum(own, own[answer])
    wrong &= prompt_fit >= better + np.maximum(own, own[prompt])
    return np.where(wrong, prompt, rows)


def _best(asked: csr_matrix, said: csr_matrix, of: csr_matrix, among: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row of `of` the row of `among`, other than its own, that fits best, and their fit.

    `asked` and `said` are the prompts and the answers; `of` is one of them, and `among` the other. Candidates share
    rare words, so that the work grows with the rows and not with their square.
    """
    often = np.maximum(np.diff(asked.tocsc().indptr), np.diff(said.tocsc().indptr))
    rare = (often > 0) & (often <= RARE)
    found, fits = np.arange(of.shape[0]), np.zeros(of.shape[0])
    right = among[:, rare].T.tocsr()
    for start in range(0, of.shape[0], 1000):
        shared = (of[start : start + 1000, rare] @ right).tocsr()
        lengths = np.diff(shared.indptr)
        line = np.repeat(np.arange(len(lengths)) + start, lengths)
        score = np.where(shared.indices == line, -1.0, shared.data)
        order = np.lexsort((-score, line))
        place = np.arange(len(line)) - np.repeat(shared.indptr[:-1], lengths)
        kept = order[(place < CANDIDATES) & (score[order] > 0)]
        first, second = line[kept], shared.indices[kept]
        prompts, answers = (first, second) if of is asked else (second, first)
        fit = _fit(asked, said, prompts, answers)
        for row, other, value in zip(first.tolist(), second.tolist(), fit.tolist(), strict=True):
            if value > fits[row]:
                found[row], fits[row] = other, value
    return found, fits
