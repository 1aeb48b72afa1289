"""Convert the values of a table to text: one label a row, one text a row, and answers that may be lists or objects.

A list is never written as in Python ("['billing']"): as a text or a label it is refused, and as an answer it becomes
JSON.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from typing import Any

import pandas as pd

from ftlab import files
from ftlab.errors import BadInput
from ftlab.wording import beginning, quoted, visible

CHAT_TURNS = ({"role", "content"}, {"from", "value"})
CHAT = (
    "a conversation is not read as a text: call its column messages, as a task and `ftlab audit --messages` read it, "
    "or write the user's turn and the assistant's to columns of their own, one pair a row"
)
WRITTEN_MISSING = frozenset({"nan", "<na>", "#n/a"})  # by pandas, R and spreadsheets, hardly ever by people
MULTI_LABEL = (
    "the lessons do no multi-label classification, so give each row one label; several at once take a model with "
    'problem_type="multi_label_classification", whose loss is binary cross-entropy over the labels'
)


def kind_of(value: object) -> str | None:
    """Return what `value` is if it cannot be read as text ("a list", "an object", "bytes"), else None."""
    if isinstance(value, (str, int, float)) or value is None:
        return None
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (bytes, bytearray)):
        return "bytes"
    return "a list" if isinstance(value, Iterable) else None


def is_chat(value: object) -> bool:
    """Return whether `value` is a conversation: a list of turns, each with its role and its content."""
    return (
        isinstance(value, Iterable)
        and not isinstance(value, (str, bytes, dict))
        and any(isinstance(turn, dict) and any(names <= turn.keys() for names in CHAT_TURNS) for turn in value)
    )


def text_of(value: Any) -> str | None:
    """Return `value` as JSON writes it, but a text without quotes: True is "true", a list is JSON; None if missing.

    >>> text_of(7), text_of(False), text_of({"owner": None})
    ('7', 'false', '{"owner": null}')
    """
    if isinstance(value, str):
        return value
    if kind_of(value):
        return files.to_json(value, default=_dated)
    if pd.isna(value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return _dated(value)


def _dated(value: object) -> str:
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else str(value)


def require_text(value: object, what: str) -> None:
    """Raise BadInput if `value` is a list, an object or bytes; `what` says where it is."""
    if is_chat(value):
        raise BadInput(f"{what} is a list of turns; {CHAT}")
    if (kind := kind_of(value)) is not None:
        raise BadInput(f"{what} is {kind}; expected a text, or name another column")


def require_answer(value: object, what: str) -> None:
    """Raise BadInput if `value` is a conversation or bytes; `what` says where it is. Lists and objects become JSON."""
    if kind_of(value) == "bytes" or is_chat(value):
        require_text(value, what)


def as_texts(column: pd.Series, where: str) -> pd.Series:
    """Return `column` as strings, with missing values left missing.

    Numbers and booleans among the texts become JSON. Raises BadInput, which begins with `where`, if all values are
    numbers (probably the wrong column), and for a row that is a list, an object or bytes.
    """
    values = column.dropna()
    if len(values) and is_chat(values.iloc[0]):
        require_text(values.iloc[0], f"{where}, row 1")
    strings = values.map(lambda value: isinstance(value, str)).astype(bool)
    words = values[strings & (values.astype(str).str.strip() != "")]
    only_numbers = len(words) and pd.to_numeric(words, errors="coerce").notna().all()
    if only_numbers or (len(values) and not strings.any()):
        kind = "numbers" if only_numbers else type(values.iloc[0]).__name__
        first = beginning(str(values.iloc[0]), 40)
        raise BadInput(f"{where}, contains {kind}, not text (the first is {first}); name the column of the texts")
    return plain_texts(column, where)


def plain_texts(column: pd.Series, where: str) -> pd.Series:
    """Return `column` as strings, whatever its type, with missing values left missing.

    Raises BadInput, which begins with `where`, for a row that is a list, an object or bytes.
    """
    if isinstance(column.dtype, pd.StringDtype):
        return column
    for number, value in enumerate(column, start=1):
        require_text(value, f"{where}, row {number}")
    return with_whole_numbers(column).map(text_of)


def as_answers(column: pd.Series, where: str) -> tuple[pd.Series, str]:
    """Return `column` as strings, with lists and objects as JSON, and a sentence that says so ("" if there are none).

    Raises BadInput, which begins with `where`, for a row that is a conversation or bytes.
    """
    for number, value in enumerate(column, start=1):
        require_answer(value, f"{where}, row {number}")
    structured = int(column.map(lambda value: kind_of(value) is not None).sum())
    return with_whole_numbers(column).map(text_of), structured_note(where, structured, len(column))


def structured_note(where: str, structured: int, count: int) -> str:
    """Return a sentence on how many of the `count` answers `where` were `structured`; "" if there were none."""
    note = f"{where}: {structured:,} of {count:,} are lists or objects, and are read as JSON text"
    return note if structured else ""


def with_whole_numbers(column: pd.Series) -> pd.Series:
    """Return `column` with 1.0 as 1, if all its floats are whole or it has integers too.

    Integers with missing values among them are often stored as floats.

    >>> with_whole_numbers(pd.Series([1.0, None, 2.0])).tolist()
    [1, nan, 2]
    >>> with_whole_numbers(pd.Series([1.0, 2.5])).tolist()
    [1.0, 2.5]
    """
    floats = column.map(lambda value: isinstance(value, float) and value == value).astype(bool)
    numbers = column[floats]
    beside = column.map(lambda value: isinstance(value, int) and not isinstance(value, bool)).any()
    if floats.any() and (beside or all(value.is_integer() for value in numbers)):
        whole = [int(value) if float(value).is_integer() else value for value in numbers]
        column = column.astype(object)
        column[floats] = pd.Series(whole, index=numbers.index, dtype=object)
    return column


class MixedLabels(dict[str, tuple[str, str]]):
    """Rows whose label reads as another one but has a rarer type (1 and "1"): id -> label, type."""

    def __deepcopy__(self, memo: object) -> MixedLabels:
        return self  # pandas copies what is in `attrs` with each table that it makes


def with_label_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table `frame` with its labels as text; `attrs["mixed_labels"]` has the rows of MixedLabels, if any.

    Raises BadInput for a row whose label is a list, an object or bytes: a row has one label.
    """
    labels = frame["label"]
    if isinstance(labels.dtype, pd.StringDtype):
        return frame
    _require_one_label(frame)
    labels = with_whole_numbers(labels)
    kinds = labels.map(lambda value: type(value).__name__, na_action="ignore").astype(object)
    named = frame.assign(label=labels.astype(object).map(str, na_action="ignore"))
    there = pd.DataFrame({"id": frame["id"], "label": named["label"], "kind": kinds}).dropna()
    several = there[there.groupby("label")["kind"].transform("nunique") > 1]
    if len(several):
        usual = several.groupby("label")["kind"].transform(lambda column: column.mode().iloc[0])
        rare = several[several["kind"] != usual]
        mixed = {row: (label, kind) for row, label, kind in rare.itertuples(index=False)}
        named.attrs["mixed_labels"] = MixedLabels(mixed)
    return named


def _require_one_label(frame: pd.DataFrame) -> None:
    """Raise BadInput for the first label that is a list, an object, bytes or half a character; several labels first."""
    odd = [(row, value) for row, value in zip(frame["id"], frame["label"], strict=True) if kind_of(value)]
    if not odd:
        for row, value in zip(frame["id"], frame["label"], strict=True):
            if isinstance(value, str) and not value.isascii() and not is_whole(value):
                raise BadInput(
                    f"the label of the row {row} has half a character (a lone surrogate) in it ({quoted(value)}); "
                    "write the whole one"
                )
        return
    several = [(row, value) for row, value in odd if kind_of(value) == "a list" and len(value) != 1]
    row, value = (several or odd)[0]
    if several:
        said = ", ".join(map(visible, value)) or "none"
        raise BadInput(f"the row {row} has a list of {len(value)} labels ({beginning(said)}); {MULTI_LABEL}")
    instead = "write the label itself, without the list around it" if kind_of(value) == "a list" else "write its name"
    raise BadInput(f"the label of the row {row} is {kind_of(value)} ({quoted(value)}); {instead}")


def is_whole(row: object) -> bool:
    r"""Return whether the JSON value `row` can be encoded as UTF-8; a lone half of a surrogate pair cannot.

    >>> is_whole({"text": "\U0001f600"}), is_whole("\ud83d")
    (True, False)
    """
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
