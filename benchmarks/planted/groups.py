"""Planted groups: is a column of groups pointed out, are groups on two sides found, does a split keep them together?

Real reviews get authors. An author has a leaning (most of the reviews are of one label) and words of their own, so a
model that has seen the author knows more than one that has not. Beside them stand columns that are no groups: an id, a
language, a year, stars, a category drawn at random, the label in other words.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ftlab.data import group_columns, sources, splits
from ftlab.data.audit import audit, groups
from ftlab.data.audit.table import Table, prepare

SEEDS = range(5)
ROWS = 1000
AUTHORS = 60
LEANING = 0.9  # of an author's reviews have the label that they lean to
OWN_WORDS = 3
NAMED = ("author", "user_id", "patientId", "Product", "session", "url", "doc_id", "kunde")
UNNAMED = "entry"  # a name that tells nothing


def measure(
    clean_rows: Callable[[str, int, int], pd.DataFrame], score: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """Return recall and precision of the findings on groups over the seeds, and whether splits keep groups together.

    Args:
        clean_rows: returns reviews without natural defects, by corpus, number of rows and seed.
        score: makes a line of the table of scores, from corpus, kind and the numbers planted, found and right.
    """
    table: list[dict[str, Any]] = []
    gaps: list[tuple[str, float, float]] = []
    apart, false = [], 0
    for corpus in ("imdb", "rotten_tomatoes"):
        sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])

        def add(kind: str, planted: int, found: int, right: int, sums: dict[str, list[int]] = sums) -> None:
            sums[kind] = [a + b for a, b in zip(sums[kind], (planted, found, right), strict=True)]

        pool = clean_rows(corpus, 2 * ROWS, 0)  # once: it takes longer than all else
        for seed in SEEDS:
            clean = pool.sample(ROWS, random_state=seed).reset_index(drop=True)
            rows = with_authors(clean, seed)
            name = NAMED[seed % len(NAMED)]
            planted = {name: rows["group"], UNNAMED: rows["group"]}
            found = _pointed_out(rows, planted)
            add("group_column", len(planted), len(found), len(planted.keys() & found))
            false += len(_pointed_out(clean, {}))
            half = np.random.default_rng(seed).random(len(rows)) < 0.5
            train, test = rows[half].reset_index(drop=True), rows[~half].reset_index(drop=True)
            expected = set(test["id"][test["group"].isin(set(train["group"]))])
            report = audit(train, test=test)
            leaks = set(report["group_leakage"].rows) if "group_leakage" in report else set()
            add("group_leakage", len(expected), len(leaks), len(leaks & expected))
            price = report.price("group_leakage", seed=seed)
            gaps.append((corpus, price.with_defect, price.without))
            apart.append(_is_apart(rows, seed))
        table += [score(corpus, kind, *counts) for kind, counts in sums.items()]
    bars = {
        "groups: columns of groups are pointed out, with a telling name or without, and no other": _exact(
            table, "group_column"
        ),
        "groups: no column is pointed out where none has groups": false == 0,
        "groups on two sides: recall 1 and precision 1": _exact(table, "group_leakage"),
        "groups: no split has one on two sides": all(apart),
        "groups: a split by rows claims more than one by groups": all(
            by_rows > by_groups for _, by_rows, by_groups in gaps
        ),
    }
    claims = [{"corpus": corpus, "by_rows": rows, "by_groups": apart} for corpus, rows, apart in gaps]
    return {"scores": table, "bars": bars, "claimed_by_rows_and_by_groups": claims}


def with_authors(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return `rows` with a column group: authors that lean to one label and have words of their own."""
    rng = np.random.default_rng(seed)
    leaning = rng.permutation(AUTHORS) % 2
    label = (rows["label"] == "positive").to_numpy().astype(int)
    follows = rng.random(len(rows)) < LEANING
    authors = [
        int(rng.choice(np.flatnonzero(leaning == (sign if same else 1 - sign))))
        for sign, same in zip(label, follows, strict=True)
    ]
    # Words of the corpus, not invented ones: what an author likes to say occurs elsewhere too.
    vocabulary = sorted({word for text in rows["text"].head(300) for word in text.split() if len(word) > 4})
    own = [rng.choice(vocabulary, OWN_WORDS, replace=False) for _ in range(AUTHORS)]
    texts = []
    for text, author in zip(rows["text"], authors, strict=True):
        words = text.split(" ")
        for word in own[author]:
            words.insert(int(rng.integers(len(words) + 1)), word)
        texts.append(" ".join(words))
    return rows.assign(text=texts, group=[f"writer {author:02}" for author in authors])


def table_of(frame: pd.DataFrame) -> Table:
    """The rows as the checks of an audit get them: the other checks would take most of the time."""
    return Table(prepare({"training": frame}, ("text", "label"))[1], {}, tqdm(disable=True))


def _others(rows: pd.DataFrame, seed: int = 0) -> dict[str, pd.Series]:
    """Columns that are no groups."""
    rng = np.random.default_rng(seed)
    good = rows["label"] == "positive"
    columns = {
        "uid": [f"x{number}" for number in range(len(rows))],
        "language": rng.choice(["en", "de", "fr"], len(rows)),
        "year": rng.integers(1990, 2024, len(rows)).astype(str),
        "stars": np.where(good, rng.integers(7, 11, len(rows)), rng.integers(1, 5, len(rows))).astype(str),
        "category": rng.choice([f"kind {number}" for number in range(12)], len(rows)),
        "verdict": np.where(good, "thumbs up", "thumbs down"),
        "helpful": rng.poisson(2, len(rows)).astype(str),
    }
    return {name: pd.Series(values, index=rows.index, dtype=object) for name, values in columns.items()}


def _pointed_out(rows: pd.DataFrame, more: dict[str, pd.Series]) -> list[str]:
    """The columns that the audit points out, of the columns that are no groups and `more`."""
    frame = rows[["id", "text", "label"]].copy()
    others = _others(frame) | more
    frame.attrs["group_candidates"] = group_columns.candidates(frame["id"], others, frame["label"])
    said = " ".join(found.what for found in groups.check(table_of(frame)) if found.id == "group_column")
    return [name for name in others if f"the column {name!r}" in said]


def _is_apart(rows: pd.DataFrame, seed: int) -> bool:
    drawn = splits.split(sources.as_dataset_dict(rows), rows=500, validation_rows=200, test_rows=200, seed=seed)
    parts = [set(part["group"]) for part in (drawn.train, drawn.validation, drawn.open_test("to compare its groups"))]
    return all(one.isdisjoint(two) for one, two in itertools.combinations(parts, 2))


def _exact(table: list[dict[str, Any]], kind: str) -> bool:
    return all(row["recall"] == 1 and row["precision"] == 1 for row in table if kind in row["finding"])
