"""The fields of one row: its texts, and its name in a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlab.errors import BadInput
from ftlab.wording import beginning, visible


def said(row: Mapping[str, Any], name: str) -> str:
    """Return the text in the column `name` of `row`, "" if it is missing. Raises BadInput as `value`."""
    return str(value(row, name))


def value(row: Mapping[str, Any], name: str) -> str | float:
    """Return the text or number in the column `name` of `row`, "" if it is missing. Raises BadInput for another type.

    >>> value({"input": None}, "input"), value({"output": 7}, "output")
    ('', 7)
    """
    found = row.get(name)
    if found is None or (isinstance(found, float) and found != found):  # NaN: pandas' missing value
        return ""
    if not isinstance(found, (str, int, float)):
        kind = "an object" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise BadInput(f"the {name} of {named(row)} is {kind}, {beginning(ascii(found), 40)}; expected a text")
    return found


def required(row: Mapping[str, Any], name: str) -> str:
    """Return the text in the column `name` of `row`. Raises BadInput if it is blank, or as `value`."""
    text = said(row, name)
    if not text.strip():
        kind = "an answer" if name == "output" else "one"
        raise BadInput(f"{named(row)} has no {name}; give it {kind}, or leave the row out")
    return text


def named(row: Mapping[str, Any]) -> str:
    """Return the name of `row` for a message: by its id, else by the number in its column `row`."""
    if row.get("id") is not None:
        return f"row {visible(row['id'])}"
    return f"row {row['row']}" if "row" in row else "the row"
