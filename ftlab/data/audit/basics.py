"""Checks of the whole table: missing values, number of rows, label spelling, class balance and row order."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ftlab.data import normalisation, sources
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table
from ftlab.wording import beginning

IMBALANCE_WARNS_ABOVE = 5.0
SMALLEST_CLASS = 3  # one row for each of training, validation and test
FEW_ROWS = 300  # a fifth of them gives a score of 80 % a 95 % interval of about ± 10 points
QUOTES = (
    '""', "''", "``", "\u2018\u2019", "\u201a\u2018", "\u201c\u201d", "\u201e\u201c", "\u201d\u201d",
    "\u00ab\u00bb", "\u00bb\u00ab",
)  # fmt: skip
WIDE = re.compile("[\u2002-\u200a\u3000\ufb00-\ufb06\uff01-\uffee]+")  # forms of letters and spaces in another width
RARE = 0.1  # of the rows of another spelling: a slip of the pen is rarer than a label
ABOUT = 0.8  # the usual spelling is a plain one that has at least so many of the rows of another
SHORT_LABEL = 3  # letters: "a" and an accented one may be two classes
YES, NO = {"yes", "true", "y", "t", "1"}, {"no", "false", "n", "f", "0"}
ANSWERS = {"y": "yes", "n": "no"}  # also beside other labels, such as "maybe"
SHORTEST_ORDER = 20
SURE = 4  # standard deviations: one shuffled file in thirty thousand differs so much


def check(table: Table) -> list[Finding]:
    """Return the findings on missing values, size, label spelling, class balance and row order of `table`."""
    complete = sources.complete(table.frame)
    return [*_missing(table.frame), *_size(complete), *slips(table.frame), *classes(complete), *order(complete)]


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
    """Return `label` in one case, without spaces, invisible characters, quotes around it and a point after it.

    A word of Latin and other letters is written in Latin ones, and 1.0 as 1.

    >>> normalise_label(" Very Good"), normalise_label("1.0"), normalise_label("'good'."), normalise_label("C++")
    ('verygood', '1', 'good', 'c++')
    """
    text = _bare(label)
    return normalisation.latin(text) if normalisation.mixes_scripts(text) else text.lower()


def _bare(label: object) -> str:
    """Return `label` as its reader sees it, without spaces, quotes around it and a point after it."""
    text = unicodedata.normalize("NFC", WIDE.sub(lambda wide: unicodedata.normalize("NFKC", wide[0]), str(label)))
    text = _unquoted(normalisation.visible(text))
    if len(text) > SHORT_LABEL and text[-1] in ".,;:" and (text[-2].islower() or _unquoted(text[:-1]) != text[:-1]):
        text = _unquoted(text[:-1])
    whole, point, zeros = text.partition(".")
    return whole if point and whole.lstrip("-").isdecimal() and not zeros.strip("0") else text


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 2 and text[0] + text[-1] in QUOTES else text


def usual_spellings(labels: pd.Series) -> dict[object, object]:
    """Return the most frequent spelling for each of the `labels` that is another spelling of it.

    >>> usual_spellings(pd.Series(["good", "good", "Good ", "bad"]))
    {'Good ': 'good'}
    """
    return _spellings(labels)[0]


def _spellings(labels: pd.Series) -> tuple[dict[object, object], dict[object, object]]:
    """Return the labels that are another spelling of a more frequent one, and those that may be."""
    counts = Counter(labels.dropna())
    bare = {label: _bare(label) for label in counts}
    forms = {label: normalise_label(label) for label in counts}
    means = _meanings(set(forms.values()))
    # Of spellings that are about as frequent, the one without spaces, quotes and other scripts' letters is the usual.
    plain = {label: _is_plain(str(label), bare[label]) for label in counts}
    answers = set(forms.values()) <= YES | NO
    order = sorted(counts, key=lambda label: -counts[label] * (1 if plain[label] else ABOUT))
    usual: dict[str, list[object]] = {}
    slips: dict[object, object] = {}
    unsure: dict[object, object] = {}
    for label in order:
        alike = usual.setdefault(_wide(means[forms[label]]), [])
        for other in alike:
            rare = counts[label] <= RARE * counts[other]
            same = (
                means[forms[label]] == means[forms[other]] and forms[label] != forms[other]
            )  # two names of one answer
            same |= answers and forms[label] == forms[other]
            sure = True if same else _same(bare[label], bare[other])
            if sure or (sure is False and rare):
                slips[label] = other
                break
            if sure is False:
                unsure.setdefault(label, other)
        else:
            alike.append(label)
    return slips, {label: other for label, other in unsure.items() if label not in slips}


def _is_plain(label: str, bare: str) -> bool:
    """Return whether a label has nothing that a reader would leave out: quotes, more than single spaces, ".0"."""
    return (
        " ".join(label.split()) == label and label.replace(" ", "") == bare and not normalisation.mixes_scripts(label)
    )


def _same(label: str, other: str) -> bool | None:
    """Return whether two labels without spaces and quotes are one: True, None for no, and False if they may be.

    A single character is a label of its own. A short word in capitals may be another word, as "US" and "us"; so may
    one with an accent, or one that is written in look-alike letters alone.
    """
    if label == other:
        return True
    if len(label) < 2 or len(other) < 2:
        return None
    if label.lower() == other.lower():
        return len(label) > SHORT_LABEL
    one, two = normalisation.latin(label), normalisation.latin(other)
    if one == two:
        return any(map(normalisation.mixes_scripts, (label, other)))
    accented = [_wide(each) != each for each in (one, two)]
    return None if all(accented) or len(label) <= SHORT_LABEL else False


def _wide(form: str) -> str:
    """Return what labels that may be one have in common: in Latin letters where they look so, without accents."""
    if len(form) < 2:
        return form
    return normalisation.without_accents(normalisation.latin(form).replace("ß", "ss"))


def _meanings(forms: set[str]) -> dict[str, str]:
    """Return what each of the `forms` of all labels means: the form itself, or another one that means the same.

    Yes and no have other names (true, 1, y) only where every label is such a name, both answers are there, and one is
    a word: t, f and n may be three classes.
    """
    means = {form: form for form in forms}
    there = set(forms)
    if there <= YES | NO and there & YES and there & NO and max(map(len, there)) > 1:
        means = {form: "yes" if mean in YES else "no" for form, mean in means.items()}
    elif {form for form in there if len(form) == 1 and form.isalpha()} <= {"y", "n"}:
        means = {form: ANSWERS[mean] if ANSWERS.get(mean) in there else mean for form, mean in means.items()}
    return means


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


def slips(frame: pd.DataFrame) -> list[Finding]:
    """Return the finding on other spellings of a label in `frame` (columns id and label)."""
    slips, unsure = _spellings(frame.loc[~sources.blank(frame["label"]), "label"])
    mixed = frame.attrs.get("mixed_labels", {})
    rows = frame.loc[frame["label"].isin(slips.keys()) | frame["id"].isin(mixed), ["id", "label"]]
    found = _similar(frame, unsure)
    if rows.empty:
        return found
    said = [f"{slip!r} instead of {usual!r}{_unseen(slip, usual)}" for slip, usual in slips.items()]
    said += sorted({f"{label} as {kind}" for label, kind in mixed.values()})
    evidence = rows.assign(usual=rows["label"].map(lambda label: slips.get(label, label)))
    return [finding("label_slip", f"{{count}}: {', '.join(said[:5])}", evidence=evidence), *found]


def _similar(frame: pd.DataFrame, unsure: dict[object, object]) -> list[Finding]:
    """Return the finding on labels that may be other spellings of a label, or labels of their own."""
    rows = frame.loc[frame["label"].isin(unsure.keys()), ["id", "label"]]
    if rows.empty:
        return []
    said = [f"{label!r} and {other!r}{_unseen(label, other)}" for label, other in unsure.items()]
    evidence = rows.assign(like=rows["label"].map(unsure))
    return [finding("similar_labels", f"{{count}}: {', '.join(said[:5])}", evidence=evidence)]


def _unseen(label: object, other: object) -> str:
    """Say how two labels differ that look the same: which letters stand for which."""
    one, two = str(label), str(other)
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", two) and one != two:
        return " (the accents are characters of their own in one of them)"
    pairs = dict.fromkeys(zip(one, two, strict=False)) if len(one) == len(two) else {}
    unlike = [(a, b) for a, b in pairs if a.lower() != b.lower() and normalisation.latin(a) == normalisation.latin(b)]
    if not unlike:
        return ""
    letters = ", ".join(f"U+{ord(a):04X} for U+{ord(b):04X}" for a, b in unlike[:3])
    return f" (look-alike letters: {letters})"


def classes(frame: pd.DataFrame) -> list[Finding]:
    """Return the findings on the number of rows of each label in `frame`, the complete rows."""
    counts = frame["label"].value_counts()
    if len(counts) < 2:
        what = "no row has both a text and a label"
        if len(counts):
            what = f"all {len(frame):,} rows have the label {counts.index[0]!r}"
        return [finding("one_class", what, count=len(frame))]
    found = []
    tiny = counts[counts < SMALLEST_CLASS]
    if len(tiny):
        said = ", ".join(f"{label!r} with {count}" for label, count in tiny.items())
        what = f"too few rows for three splits: {beginning(said, 200)}"
        found.append(finding("tiny_class", what, frame.loc[frame["label"].isin(tiny.index), "id"]))
    ratio = counts.iloc[0] / counts.iloc[-1]
    if ratio > IMBALANCE_WARNS_ABOVE:
        what = f"{counts.index[0]} has {ratio:.1f} times as many rows as {counts.index[-1]}"
        found.append(finding("imbalance", what, count=int(counts.iloc[-1])))
    return found


def order(frame: pd.DataFrame) -> list[Finding]:
    """Return the finding on a `frame` sorted by label: it changes from row to row far less often than by chance."""
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
