"""Placeholders for missing values in texts, labels and prompts: "nan", "NULL", "None", "-"."""

from __future__ import annotations

import pandas as pd

from ftlab.data import sources, values
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table

MISSING = values.WRITTEN_MISSING
NO_TIME = "NaT"  # written by pandas; case matters, since Nat is a name
EMPTY = frozenset({"null", "undefined", "none", "n/a", "na", "nil", "-", "--", "\u2013", "\u2014", "tbd"})
LINES = frozenset({"nan", "NaN", "<NA>", "#N/A"})
LABELS = frozenset({"null", "n/a", "na", "undefined"})  # of EMPTY: hardly ever the name that somebody gives a class
LONGEST = max(map(len, MISSING | EMPTY)) + 1
OFTEN = 2  # rows: a word that only one row has may be meant
VARIED = 0.9  # share of different answers from which they are no classes; a class may be called "none"


def check(table: Table) -> list[Finding]:
    """Return the findings on rows of `table` with a placeholder as text, label, completion or part of a prompt."""
    return [*_texts(table), *([] if table.pairs else labels(table.frame))]


def _texts(table: Table) -> list[Finding]:
    frame = table.frame
    found: dict[str, str] = {}
    counts: dict[tuple[str, str], int] = {}
    for column in ("text", "label", *table.prompt_columns, "completion"):
        if column not in frame or (column in ("text", "label") and table.pairs):
            continue
        words = _words(frame[column], answers=column in ("label", "completion"), lines=column in table.prompt_columns)
        for row, word in zip(frame.loc[words.index, "id"], words, strict=True):
            found.setdefault(row, f"{column}: {word}")
            counts[column, word] = counts.get((column, word), 0) + 1
    if not found:
        return []
    most = sorted(counts.items(), key=lambda one: -one[1])[:3]
    said = ", ".join(f"{word!r} as {column} in {number:,}" for (column, word), number in most)
    evidence = frame.loc[frame["id"].isin(found), ["id"]]
    evidence = evidence.assign(found=evidence["id"].map(found))
    return [finding("placeholder_texts", f"a placeholder in {{count}}: {said}", evidence=evidence)]


def labels(frame: pd.DataFrame) -> list[Finding]:
    """Return the finding on classes of `frame` (columns id and label) that may be missing labels: "NULL", "N/A"."""
    names = frame["label"].dropna()
    odd = [name for name in names.value_counts().index if str(name).strip()[:LONGEST].casefold() in LABELS]
    if not odd:
        return []
    what = f"a label that may stand for a missing one in {{count}}: {', '.join(f'{name!r}' for name in odd[:3])}"
    evidence = frame.loc[names.index[names.isin(odd)], ["id", "label"]]
    return [finding("placeholder_labels", what, evidence=evidence)]


def _words(column: pd.Series, *, answers: bool, lines: bool) -> pd.Series:
    """Return the placeholders in a column as they are written, by index of their rows.

    `answers` says that the column has labels or completions, `lines` that a value is joined from several lines.
    """
    values = column[~sources.blank(column)].astype(str).str.strip()
    if lines:  # each column that a prompt was joined from is a line of it, not indented
        values = values.map(lambda text: next((line for line in text.split("\n") if line.rstrip() in LINES), text))
    folded = values.str.strip().str[:LONGEST].str.casefold()
    missing, empty = folded.isin(MISSING) | (values == NO_TIME), folded.isin(EMPTY)
    if answers:
        # "none" may be a correct answer or a class; it is suspect only if nearly all other answers differ.
        others = values[~missing & ~empty]
        missing &= missing.sum() >= OFTEN
        empty &= len(others) > 0 and others.nunique() >= VARIED * len(others)
    empty &= folded.map(folded.value_counts()) >= OFTEN
    return values[missing | empty].str.strip()
