"""Strict JSON for Python's `json`: no name twice in an object, no NaN or infinity, no number that overflows."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from ftlab.wording import quoted, shown


def hooks(*, repeated: str, constant: str, overflow: str) -> dict[str, Any]:
    """Return the arguments that make `json.loads` and `json.JSONDecoder` strict: they then raise ValueError.

    >>> import json
    >>> strict = hooks(repeated="{} stands twice", constant="{} is not JSON", overflow="{} is too large")
    >>> json.loads('{"r": 4, "r": 8}', **strict)
    Traceback (most recent call last):
    ValueError: 'r' stands twice

    Args:
        repeated: the message for a name that stands twice in an object, with {} for the name.
        constant: the message for NaN, Infinity and -Infinity, with {} for the word.
        overflow: the message for a number that a float cannot hold, with {} for its digits.
    """

    def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for place, name in enumerate(names) if name in names[:place])
            raise ValueError(repeated.format(quoted(twice)))
        return found

    def refuse_constant(text: str) -> NoReturn:
        raise ValueError(constant.format(text))

    def read_number(text: str) -> float:
        if not math.isfinite(number := float(text)):
            raise ValueError(overflow.format(shown(text)))
        return number

    return {"object_pairs_hook": read_object, "parse_float": read_number, "parse_constant": refuse_constant}
