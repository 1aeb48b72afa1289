"""Groups of rows that belong together (an author, a patient, a product), and columns that look like them.

Rows of one group share more than their label: a style, names, a topic. If a group is in training and in test, a model
can know the answer from the group. So a group stays on one side of a split, as copies of a text do. A row without a
group is a group of its own; so is one with a word for a missing value (NO_GROUP), which many unlike rows may have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ftlab.data import duplicates, tables, values
from ftlab.data.words import normalise
from ftlab.errors import BadInput

GROUP = "group"  # the column of rows that has their groups
ADVICE = "name a column whose rows belong together, such as an author or a product"
FEWEST_ROWS = 20  # with a value, of a column that looks like one of groups
FEWEST_GROUPS = 3  # one for each of training, validation and test
FEWEST_UNNAMED = 10  # groups of a column whose name does not tell: with fewer it is a class, a language, a source
SHARED = 0.5  # of the rows with a value must be in a group of two or more
ROWS_EACH = 5  # on average, in a column whose name does not tell
MOST_COLUMNS = 3  # of each sort are kept
A_LABEL = 0.95  # of the rows have the usual label of their value: then few values are the label in other words
FEW_VALUES = 20
LONGEST_NAME = 80  # characters of a value of a column whose name does not tell; what is longer is a text
NO_GROUP = values.WRITTEN_MISSING | {"none", "null", "n/a", "na"}
_WHOLE = re.compile(r"(-?\d+)\.0+")
_KEYS = {"id", "ids", "name", "key", "no", "nr", "num", "number", "code", "uid", "uuid", "guid", "hash", "index", "idx"}
_TELLING = {
    "account", "annotator", "app", "article", "asin", "auteur", "author", "autor", "autorin", "benutzer", "book",
    "business", "buyer", "case", "channel", "client", "cliente", "cluster", "company", "conversation", "customer",
    "device", "dialog", "dialogue", "director", "doc", "doctor", "document", "domain", "employee", "episode",
    "family", "file", "filename", "film", "game", "group", "handle", "hospital", "host", "hotel", "household",
    "incident", "interview", "invoice", "item", "kunde", "kunden", "kundin", "link", "member", "merchant", "movie",
    "nutzer", "order", "owner", "paciente", "package", "page", "paper", "parent", "participant", "patient",
    "patientin", "permalink", "person", "physician", "poster", "product", "producto", "produit", "produkt",
    "project", "rater", "recipient", "repo", "repository", "respondent", "restaurant", "reviewer", "seller",
    "sender", "sensor", "series", "session", "shop", "show", "site", "sitzung", "song", "speaker", "store",
    "student", "subject", "subreddit", "teacher", "template", "thread", "transcript", "url", "user", "username",
    "usuario", "utilisateur", "vendor", "venue", "video", "volunteer", "website", "worker", "writer",
}  # fmt: skip
# Columns of classes: rows to come are of the same ones, so a split need not keep them apart.
_CLASSES = {
    "categories", "category", "city", "class", "country", "date", "day", "department", "fold", "genre", "intent",
    "kind", "label", "lang", "language", "level", "month", "priority", "rating", "score", "sentiment", "section",
    "split", "stars", "state", "status", "tag", "tags", "target", "topic", "type", "year",
}  # fmt: skip
_WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+|[^\W\d_]+")


@dataclass(frozen=True)
class Column:
    """A column that may be one of groups: its name, whether the name tells so, and the group of each row by its id."""

    name: str
    telling: bool
    groups: pd.Series


class Candidates(dict[str, int]):
    """The columns of a file that look like groups, with their number of groups. `columns` has their values.

    It stays in the `attrs` of a table. pandas copies these with each table that it makes, and writes them as JSON when
    it saves one: so a copy is the same object, and the JSON is short.
    """

    def __init__(self, columns: Iterable[Column] = ()) -> None:
        self.columns = tuple(columns)
        super().__init__({column.name: column.groups.nunique() for column in self.columns})

    def __deepcopy__(self, memo: object) -> Candidates:
        return self


def key(group: object) -> str:
    """Return the text by which `group` is compared with others; "" if it is missing, blank or one of NO_GROUP.

    A whole number is written without ".0", which pandas adds where another row of the column has no number. What is a
    number, as in a table of your own, is the same group as its text.

    >>> key(" Ann"), key("12.0"), key(12), key("1.2.0"), key("NaN"), key(None)
    ('ann', '12', '12', '1.2.0', '', '')
    """
    text = normalise(values.text_of(group) or "")
    if text in NO_GROUP:
        return ""
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def numbers(groups: Iterable[object]) -> np.ndarray:
    """Return a number for each of `groups`, equal for those with one `key`; a missing one is its own group.

    >>> numbers(["Ann", "bob", None, "ann ", "", "7", "7.0"]).tolist()
    [0, 1, 2, 0, 3, 4, 4]
    """
    seen: dict[object, int] = {}
    keys = map(key, groups)
    # A row number is no key of a group: those are texts.
    return np.fromiter((seen.setdefault(found or row, len(seen)) for row, found in enumerate(keys)), dtype=np.int64)


def of(table: pd.DataFrame) -> np.ndarray | None:
    """Return the `numbers` of the column `group` of a table, or None if there is none or no two rows share a group."""
    if GROUP not in table:
        return None
    found = numbers(table[GROUP])
    return found if len(found) and found.max() < len(found) - 1 else None


def chained(*numberings: np.ndarray) -> np.ndarray:
    """Return numbers for rows, equal for those that a chain of equal numbers in any of the `numberings` connects.

    >>> chained(np.array([0, 0, 1]), np.array([0, 1, 1])).tolist()
    [0, 0, 0]
    """
    count = len(numberings[0])
    begins = np.cumsum([count, *(int(each.max(initial=-1)) + 1 for each in numberings)])
    nodes = [begin + each for begin, each in zip(begins, numberings, strict=False)]
    rows = np.tile(np.arange(count), len(numberings))
    return duplicates.clusters(int(begins[-1]), rows, np.concatenate(nodes))[:count]


def require_column(where: str, frame: pd.DataFrame, column: str, used: Iterable[str] = ()) -> None:
    """Raise BadInput unless `frame`, read from `where`, has this `column`, and it is none of those `used` otherwise."""
    if column not in frame.columns:
        raise BadInput(f"{where} has no column {column!r}; it has {tables.named_columns(frame)}; {ADVICE}")
    if column in used:
        raise BadInput(
            f"{where}: the column {column!r} has the texts or the labels, so it cannot be of groups; {ADVICE}"
        )


def read(frame: pd.DataFrame, column: str, where: str, *, judging: bool = False) -> pd.Series:
    """Return the groups in `column` of `frame` as text; a missing or blank one, or a word of NO_GROUP, is None.

    Args:
        frame: a table with this column.
        column: its name.
        where: the file or data set, for messages.
        judging: whether the rows are to judge: they may be of one group.

    Raises:
        BadInput: a group is a list, an object or bytes, or (of rows to learn from) no group has two rows, or there is
            one group only.
    """
    texts = values.plain_texts(frame[column], f"{where}, column {column!r}")
    there = (text if key(text) else None for text in texts)
    groups = pd.Series(list(there), index=frame.index, dtype=object)
    if not judging:
        require(groups, f"{where}, column {column!r}")
    return groups


def require(groups: pd.Series, where: str) -> None:
    """Raise BadInput, which begins with `where`, unless there are two groups or more, and one of them has two rows."""
    keys = groups.map(key)
    count, there = len(groups), keys[keys != ""]
    if there.empty:
        raise BadInput(f"{where}: none of the {count:,} rows has a group; {ADVICE}")
    distinct = there.nunique()
    if distinct == 1 and len(there) == count:
        raise BadInput(
            f"{where}: all {count:,} rows have the same group, so no split can keep it on one side; {ADVICE}, or "
            "leave the groups out"
        )
    if distinct == len(there):
        raise BadInput(
            f"{where}: each of the {len(there):,} rows with a value has one of its own, as ids have, so nothing is "
            f"kept together; {ADVICE}, or leave the groups out"
        )


def candidates(ids: pd.Series, columns: Mapping[str, pd.Series], labels: pd.Series | None = None) -> Candidates:
    """Return the columns that look like groups: a telling name, or few values with many rows each.

    Left out are ids (a value a row), columns of one value, other words for the label, and, if the name does not tell,
    numbers and long texts.

    Args:
        ids: of the rows.
        columns: the other columns of the table, by name.
        labels: of the rows, if they have any.
    """
    found = [
        Column(name, telling, pd.Series(groups.to_numpy(), index=ids.to_numpy(), dtype=object))
        for name, column in columns.items()
        if ((telling := tells(name)) or _CLASSES.isdisjoint(_words(name)))
        and (groups := _groups(column, telling, labels)) is not None
    ]
    named, others = ([column for column in found if column.telling is telling] for telling in (True, False))
    return Candidates([*named[:MOST_COLUMNS], *others[:MOST_COLUMNS]])


def _words(name: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(str(name)[:200])]


def tells(name: str) -> bool:
    """Return whether a column of this `name` is likely to be one of groups.

    >>> [tells(name) for name in ("author", "patientId", "DOC_ID", "userid", "id", "text", "stars")]
    [True, True, True, True, False, False, False]
    """
    words = _words(name)
    while words and words[-1] in _KEYS:
        words.pop()
    if not words:
        return False
    last = words[-1]
    shorter = [last, last.removesuffix("s"), *(last.removesuffix(key) for key in ("id", "ids", "name", "key"))]
    return any(word in _TELLING for word in shorter)


def _groups(column: pd.Series, telling: bool, labels: pd.Series | None) -> pd.Series | None:
    """The groups of a column if it looks like one of them, else None."""
    there = column.dropna()
    if len(there) < max(FEWEST_ROWS, len(column) / 2):
        return None
    if not isinstance(there.dtype, pd.StringDtype):  # as JSON and Parquet have it: numbers, and perhaps lists
        if there.map(values.kind_of).notna().any():
            return None
        there = values.with_whole_numbers(there).astype(str)
    texts = there.str.strip()
    texts = texts[(texts != "") & ~texts.str.lower().isin(NO_GROUP)]
    rows_of = texts.value_counts()
    if not FEWEST_GROUPS <= len(rows_of) < len(texts) or rows_of[rows_of > 1].sum() < SHARED * len(texts):
        return None
    if not telling:
        many = FEWEST_UNNAMED <= len(rows_of) <= len(texts) / ROWS_EACH
        names = rows_of.index.to_series()
        if not many or names.str.len().mean() > LONGEST_NAME or pd.to_numeric(names, errors="coerce").notna().all():
            return None
    if labels is not None and _is_the_label(texts, labels.loc[texts.index], telling):
        return None
    return texts.reindex(column.index).astype(object).where(lambda each: each.notna(), None)


def _is_the_label(groups: pd.Series, labels: pd.Series, telling: bool) -> bool:
    """Whether the values are the label in other words: as many as there are labels, and each has one of its own.

    If the name does not tell, more values than labels may be, as stars are to good and bad.
    """
    most = labels.nunique() if telling else FEW_VALUES
    if groups.nunique() > most:
        return False
    usual = pd.crosstab(groups, labels.astype(str)).max(axis=1)  # the rows with the most frequent label of each value
    return bool(usual.sum() >= A_LABEL * len(groups))
