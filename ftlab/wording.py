"""Values out of somebody's file, in a sentence: short, printable, and on one line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def shown(name: Any) -> str:
    """A name from somebody's file, for a sentence: on one line, and quoted if it is no plain one."""
    if isinstance(name, str) and re.fullmatch(r"[\w.\-/]+", name, re.ASCII):
        return name if len(name) <= 120 else f"{name[:120]}..."
    return quoted(name)


def quoted(value: Any) -> str:
    """A value from somebody's file, for a sentence: short and on one line."""
    text = repr(value) if isinstance(value, str) and value.isprintable() else ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def some(names: Iterable[str]) -> str:
    """The first few of many names, for a sentence."""
    names = list(names)
    return ", ".join(map(shown, names[:3])) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")


def one_line(problem: Exception | str) -> str:
    """What an error says, on one line."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if text.isprintable() and len(text) <= 200 else ascii(text[:200])[1:-1]
