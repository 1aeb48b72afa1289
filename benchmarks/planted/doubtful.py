"""Flipped labels: is the stated share of wrong ones right, and how many does the list find?

Labels are flipped in reviews, everything is fitted again, and the flipped rows among the listed ones are counted. Each
line stands for one corpus, one number of rows and one share of flips, over several seeds. Natural errors count as
wrong answers of the audit, since nobody has marked them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from ftlab.data import sources
from ftlab.data.audit import label_errors, linear_model
from ftlab.data.words import Words

SIZES = {"imdb": (25_000, 5000, 1000), "rotten_tomatoes": (8000, 2000)}
FLIPPED = (0.0, 0.05, 0.1)
SEEDS = {25_000: (1,)}  # others: FEW
FEW = (1, 2, 3, 4, 5)
MANY = 500  # listed rows; chance moves the true share of fewer


@cache
def corpus_words(corpus: str) -> tuple[csr_matrix, np.ndarray]:
    """Return how often each word is in each text of a corpus, and the labels, 0 or 1."""
    frame = sources.read(corpus)
    labels = (frame["label"] == "positive").to_numpy().astype(np.int64)
    return Words.of(frame["text"].tolist()).counts(), labels


def measure(clean_rows: Callable[..., pd.DataFrame], score: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Return what the lists say and what is true of them, and which bars they meet.

    Args:
        clean_rows: not used: all rows of the corpora are.
        score: makes a line of the table of scores.
    """
    lines = [_line(corpus, rows, flipped) for corpus, sizes in SIZES.items() for rows in sizes for flipped in FLIPPED]
    flips = [line for line in lines if line["flipped"] and line["listed"]]
    off = [abs(line["stated"] - line["right"] / line["listed"]) for line in flips if line["listed"] >= MANY]
    inside, lists = (sum(line[name] for line in flips) for name in ("inside", "lists"))
    return {
        "scores": [
            score(f"{line['corpus']}, {line['rows']:,} rows", f"likely_label_errors, {line['flipped']:.0%}",
                  line["planted"], line["listed"], line["right"]) for line in flips
        ],
        "doubtful_labels": lines,
        "bars": {
            "doubtful labels: the stated share is right within 0.1 (500 rows or more)": max(off) <= 0.1,
            "doubtful labels: 8 of 10 lists are right within their interval": inside >= 0.8 * lists,
            "doubtful labels: of all listed ones at least half are wrong": sum(line["right"] for line in flips)
            >= 0.5 * sum(line["listed"] for line in flips),
            "doubtful labels: at most 1 in 500 rows as they are is listed": all(
                line["listed"] <= line["seeds"] * line["rows"] / 500 for line in lines if not line["flipped"]
            ),
        },
    }  # fmt: skip


def _line(corpus: str, rows: int, flipped: float) -> dict[str, Any]:
    """Plant flips with each seed, and add up what is listed."""
    seeds = SEEDS.get(rows, FEW)
    sums = dict.fromkeys(("planted", "lists", "listed", "right", "inside"), 0)
    expected = 0.0
    for seed in seeds:
        counts, labels = corpus_words(corpus)
        drawn = np.random.default_rng(seed).permutation(len(labels))[:rows]
        labels = labels[drawn]
        wrong = np.zeros(rows, dtype=bool)
        wrong[np.random.default_rng(seed + 100).choice(rows, round(flipped * rows), replace=False)] = True
        labels = np.where(wrong, 1 - labels, labels)
        words = linear_model.tfidf(counts[drawn])
        probabilities = linear_model.out_of_fold(words, labels, linear_model.folds(labels))
        sums["planted"] += int(wrong.sum())
        noise = label_errors.estimate(probabilities, labels)
        found = label_errors.doubted(labels, probabilities, noise)
        if not len(found):
            continue
        low, high = noise.interval(probabilities[found], labels[found])
        if low < label_errors.FLOOR:
            continue
        sums["lists"] += 1
        sums["listed"] += len(found)
        sums["right"] += int(wrong[found].sum())
        sums["inside"] += int(low <= wrong[found].mean() <= high)
        expected += float(noise.chance(probabilities[found], labels[found]).sum())
    stated = round(expected / sums["listed"], 3) if sums["listed"] else None
    return {"corpus": corpus, "rows": rows, "flipped": flipped, "seeds": len(seeds), **sums, "stated": stated}
