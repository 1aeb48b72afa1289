"""Warnings of deprecation that our own calls cause, and not those that libraries cause among themselves.

The filters of the course silence such warnings for a learner, and a warning's module is often the library that gives
it. So each is caught where it is given, and the stack says whose call it was.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

REPOSITORY = Path(__file__).resolve().parents[1]
OURS = tuple(str(REPOSITORY / name) for name in ("ftlab", "tests", "docs", "benchmarks"))
CATEGORIES = (FutureWarning, DeprecationWarning)
GOING = re.compile(r"deprecated|will be removed", re.IGNORECASE)
NAMES = re.compile(r"[`'\"](\w+)(?:=[^`'\"]*)?[`'\"]")
DIRECT = 3  # frames of one library between our call and its warning: a constructor, a wrapper, the function itself


@contextlib.contextmanager
def recorded() -> Iterator[list[str]]:
    """Yield a list that gets a sentence for each warning that a call of ours causes, whatever the filters say."""
    found: list[str] = []

    def note(message: str) -> None:
        if said := whose(message, sys._getframe(2)):
            found.append(said)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(warnings, "warn", _warn(warnings.warn, note)))
        for name in ("warning", "warning_once"):  # the second is transformers', once it is imported
            if original := getattr(logging.Logger, name, None):
                stack.enter_context(mock.patch.object(logging.Logger, name, _log(original, note)))
        yield found


def _warn(original: Callable[..., None], note: Callable[[str], None]) -> Callable[..., None]:
    @functools.wraps(original)
    def warn(message: Any, category: Any = None, stacklevel: int = 1, source: Any = None, **more: Any) -> None:
        kind = type(message) if isinstance(message, Warning) else category or UserWarning
        if issubclass(kind, CATEGORIES):
            note(str(message))
        original(message, category, stacklevel + 1, source, **more)

    return warn


def _log(original: Callable[..., None], note: Callable[[str], None]) -> Callable[..., None]:
    @functools.wraps(original)
    def log(logger: logging.Logger, message: Any, *values: Any, **more: Any) -> None:
        if GOING.search(str(message)):
            note(str(message))
        original(logger, message, *values, **more)

    return log


def whose(message: str, frame: FrameType | None) -> str:
    """The sentence for a warning given in `frame`, if a call of ours causes it; "" if a library's own call does.

    Ours is a call that passes what the message names in backticks or quotes, and one that calls what warns directly.
    """
    libraries: list[str] = []
    while frame is not None and not _is_ours(frame):
        library = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if library not in sys.stdlib_module_names:
            libraries.append(library)
        frame = frame.f_back
    if frame is None:
        return ""
    call = _call(frame)
    passed = any(re.search(rf"\b{name}\b", call) for name in NAMES.findall(message))
    if not (passed or (len(set(libraries)) <= 1 and len(libraries) <= DIRECT)):
        return ""
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}: {' '.join(message.split())[:200]}"


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name == __file__:
        return False
    return name.startswith(OURS) or (frame.f_globals.get("__name__") == "__main__" and name.startswith("<"))


def _call(frame: FrameType) -> str:
    """The source of the call that a frame is at, with the keys of each dict that it passes by `**`."""
    positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    first, last = positions[0] or frame.f_lineno, positions[1] or frame.f_lineno
    lines = [linecache.getline(frame.f_code.co_filename, number) for number in range(first, last + 1)]
    source = "".join(lines)
    for name in re.findall(r"\*\*(\w+)", source):
        value = frame.f_locals.get(name, frame.f_globals.get(name))
        source += " ".join(map(str, value)) if isinstance(value, dict) else ""
    return source
