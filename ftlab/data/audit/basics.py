"""Checks of the whole table: missing values, number of rows, label spelling, class balance and row order."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ftlab.data import sources
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table

IMBALANCE_WARNS_ABOVE = 5.0
SMALLEST_CLASS = 3  # one row for each of training, validation and test
FEW_ROWS = 300  # a fifth of them gives a score of 80 % a 95 % interval of about ± 10 points
SHORTEST_ORDER = 20
SURE = 4  # standard deviations: one shuffled file in thirty thousand differs so much


def check(table: Table) -> list[Finding]:
    """Return the findings on missing values, size, label spelling, class balance and row order of `table`."""
    complete = sources.complete(table.frame)
    return [*_missing(table.frame), *_size(complete), *_slips(table.frame), *_classes(complete), *_order(complete)]


def first_rows(frame: pd.DataFrame, sizes: Sequence[int]) -> pd.DataFrame:
    """Count the labels among the first n rows of a file, which are the rows that `select(range(n))` takes.

    Args:
        frame: rows with a column label, in the order of the file.
        sizes: the values of n.

    Returns:
        One line for each n, and one column for each label.

    >>> first_rows(pd.DataFrame({"label": ["good", "good", "bad"]}), [2]).loc[2].to_dict()
    {'bad': 0, 'good': 2}
    """
    labels = sorted(frame["label"].dropna().unique(), key=str)
    counts = [frame["label"].iloc[:size].value_counts().reindex(labels, fill_value=0) for size in sizes]
    return pd.DataFrame(counts, index=pd.Index(sizes, name="first n rows"))


def normalise_label(label: object) -> str:
    """Return `label` in NFKC, case folded, without white space, and 1.0 as 1; labels that mean the same become equal.

    >>> normalise_label(" Very Good"), normalise_label("1.0")
    ('verygood', '1')
    """
    text = "".join(unicodedata.normalize("NFKC", str(label)).casefold().split())
    whole, point, zeros = text.partition(".")
    return whole if point and whole.lstrip("-").isdecimal() and not zeros.strip("0") else text


def usual_spellings(labels: pd.Series) -> dict[object, object]:
    """Return the most frequent spelling for each of the `labels` that is another spelling of it.

    >>> usual_spellings(pd.Series(["good", "good", "Good ", "bad"]))
    {'Good ': 'good'}
    """
    counts = Counter(labels.dropna())
    usual: dict[str, object] = {}
    for label, _ in counts.most_common():
        usual.setdefault(normalise_label(label), label)
    return {label: usual[normalise_label(label)] for label in counts if usual[normalise_label(label)] != label}


def _missing(frame: pd.DataFrame) -> list[Finding]:
    found = []
    for column in ("text", "label"):
        rows = frame.loc[sources.blank(frame[column]), "id"]
        if len(rows):
            found.append(finding(f"missing_{column}", f"no {column} in {{count}}", rows))
    return found


def _size(frame: pd.DataFrame) -> list[Finding]:
    if len(frame) >= FEW_ROWS or len(frame) < 2:
        return []
    test_rows = max(1, len(frame) // 5)
    half = 1.96 * (0.8 * 0.2 / test_rows) ** 0.5
    what = (
        f"{{count}}: with a fifth of them ({test_rows}) as test rows, a score of 80 % has an interval of ± {half:.0%}"
    )
    return [finding("few_rows", what, count=len(frame))]


def _slips(frame: pd.DataFrame) -> list[Finding]:
    slips = usual_spellings(frame.loc[~sources.blank(frame["label"]), "label"])
    mixed = frame.attrs.get("mixed_labels", {})
    rows = frame.loc[frame["label"].isin(slips.keys()) | frame["id"].isin(mixed), ["id", "label"]]
    if rows.empty:
        return []
    said = [f"{slip!r} instead of {usual!r}" for slip, usual in slips.items()]
    said += sorted({f"{label} as {kind}" for label, kind in mixed.values()})
    evidence = rows.assign(usual=rows["label"].map(lambda label: slips.get(label, label)))
    return [finding("label_slip", f"{{count}}: {', '.join(said[:5])}", evidence=evidence)]


def _classes(frame: pd.DataFrame) -> list[Finding]:
    counts = frame["label"].value_counts()
    if len(counts) < 2:
        what = f"the only label is {counts.index[0]!r}" if len(counts) else "no row has both a text and a label"
        return [finding("one_class", what, count=len(frame))]
    found = []
    tiny = counts[counts < SMALLEST_CLASS]
    if len(tiny):
        said = ", ".join(f"{label!r} with {count}" for label, count in tiny.items())
        what = f"too few rows for three splits: {said[:200]}"
        found.append(finding("tiny_class", what, frame.loc[frame["label"].isin(tiny.index), "id"]))
    ratio = counts.iloc[0] / counts.iloc[-1]
    if ratio > IMBALANCE_WARNS_ABOVE:
        what = f"{counts.index[0]} has {ratio:.1f} times as many rows as {counts.index[-1]}"
        found.append(finding("imbalance", what, count=int(counts.iloc[-1])))
    return found


def _order(frame: pd.DataFrame) -> list[Finding]:
    """Find rows sorted by label: the label changes from row to row far less often than in shuffled rows."""
    labels = frame["label"].to_numpy()
    if len(labels) < SHORTEST_ORDER or len(set(labels)) < 2:
        return []
    changes = int((labels[1:] != labels[:-1]).sum())
    shares = frame["label"].value_counts(normalize=True).to_numpy()
    expected = (len(labels) - 1) * (1 - float((shares**2).sum()))
    by_chance = (
        expected * (1 - expected / (len(labels) - 1))
    ) ** 0.5  # standard deviation, if the changes were independent
    if changes >= expected / 2 or expected - changes < SURE * by_chance:
        return []
    run = int(np.argmax(labels != labels[0]))
    times = "once" if changes == 1 else f"{changes:,} times"
    what = (
        f"from row to row the label changes {times}; in shuffled rows it would change about {expected:,.0f} times; "
        f"the first {run:,} rows are all {labels[0]}"
    )
    return [finding("sorted_by_label", what, count=len(frame))]
