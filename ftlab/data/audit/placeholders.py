"""Words that stand where a value is missing: "nan", which software writes, and "None" or "-", which people do too."""

from __future__ import annotations

import pandas as pd

from ftlab.data import sources
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table

MISSING = frozenset({"nan", "<na>", "#n/a"})  # what pandas, R and spreadsheets write, and nobody else
NO_TIME = "NaT"  # pandas too; "Nat" may be somebody's name
EMPTY = frozenset({"null", "undefined", "none", "n/a", "na", "nil", "-", "--", "\u2013", "\u2014", "tbd"})
LINES = frozenset({"nan", "NaN", "<NA>", "#N/A"})
LONGEST = max(map(len, MISSING | EMPTY)) + 1
OFTEN = 2  # rows: what a person wrote once may be meant
VARIED = 0.9  # the share of different answers beyond which they are no classes, of which "none" may be one


def check(table: Table) -> list[Finding]:
    """Rows with such a word in place of a text, a label, or a part of a prompt."""
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


def _words(column: pd.Series, *, answers: bool, lines: bool) -> pd.Series:
    """The placeholders of a column as they stand there, by index of their rows."""
    values = column[~sources.blank(column)].astype(str).str.strip()
    if lines:  # each column that a prompt was joined from is a line of it
        values = values.map(lambda text: next((line for line in text.split("\n") if line.strip() in LINES), text))
    folded = values.str.strip().str[:LONGEST].str.casefold()
    missing, empty = folded.isin(MISSING) | (values == NO_TIME), folded.isin(EMPTY)
    if answers:
        # An answer may rightly be "none", and a class may be called so; among answers that all differ it stands out.
        others = values[~missing & ~empty]
        missing &= missing.sum() >= OFTEN
        empty &= len(others) > 0 and others.nunique() >= VARIED * len(others)
    empty &= folded.map(folded.value_counts()) >= OFTEN
    return values[missing | empty].str.strip()
