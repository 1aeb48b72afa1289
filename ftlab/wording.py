"""Names, values and errors as parts of a message: short, printable, on one line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def shown(name: Any) -> str:
    """Return `name`, read from a user's file, for a message: plain if it is a simple name, else quoted.

    >>> shown("lm_head.weight"), shown("a b")
    ('lm_head.weight', "'a b'")
    """
    if isinstance(name, str) and re.fullmatch(r"[\w.\-/]+", name, re.ASCII):
        return name if len(name) <= 120 else f"{name[:120]}..."
    return quoted(name)


def quoted(value: Any) -> str:
    """Return `value`, read from a user's file, for a message: its repr, at most 60 characters, on one line."""
    text = repr(value) if isinstance(value, str) and value.isprintable() else ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def some(names: Iterable[str]) -> str:
    """Return the first three of `names` for a message, and the number of all if there are more.

    >>> some(["a", "b"]), some("abcd")
    ('a, b', 'a, b, c, ... (4 in all)')
    """
    names = list(names)
    return ", ".join(map(shown, names[:3])) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")


def one_line(problem: Exception | str) -> str:
    """Return the text of the error `problem` on one line, at most 200 characters; without a text, its class."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if text.isprintable() and len(text) <= 200 else ascii(text[:200])[1:-1]
