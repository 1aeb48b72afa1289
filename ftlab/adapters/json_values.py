"""Strict reading of a user's JSON file: check values against type hints, and name types in messages."""

from __future__ import annotations

import json
import stat
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from ftlab import strict_json
from ftlab.errors import BadInput
from ftlab.wording import one_line

MAX_BYTES = 2**24  # of a JSON file; a config that names every module of a large model has a fraction of it


def read_object(path: Path, what: str, redo: str) -> dict[str, Any]:
    """Return the JSON object in the file `path`, read strictly: UTF-8 without BOM, no name twice, finite numbers.

    Args:
        path: a regular file.
        what: follows the path in the message of an error: what the file fails to be.
        redo: ends the message: what to do next.

    Raises:
        BadInput: the file is anything else. A ValueError inside becomes its reason.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file")
        if found.st_size > MAX_BYTES:
            raise ValueError(f"it is {found.st_size:,} bytes long; expected at most {MAX_BYTES:,}")
        loaded = json.loads(
            path.read_bytes().decode("utf-8"),
            **strict_json.hooks(
                repeated="it names {} twice", constant="{} is no JSON", overflow="{} is beyond the range of a number"
            ),
        )
    except (OSError, RecursionError, ValueError) as problem:
        reason = "it nests too deeply" if isinstance(problem, RecursionError) else one_line(problem)
        raise BadInput(f"{path} {what}: it cannot be read as JSON ({reason}); {redo}") from problem
    if not isinstance(loaded, dict):
        raise BadInput(f"{path} {what}: it holds {words(type(loaded))}, not a JSON object; {redo}")
    return loaded


def fits(value: Any, hint: Any) -> bool:
    """Return whether `value`, read from JSON, has the type `hint`. A bool is not a number; a tuple is a list in JSON.

    >>> fits(1, int | None), fits(True, int), fits(1, float), fits(["a"], list[str])
    (True, False, True, True)
    """
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, parts[1]) for one in value.values())
    if origin in (list, tuple):
        return isinstance(value, list) and all(fits(one, parts[0]) for one in value)
    if hint in (None, type(None)):
        return value is None
    if hint in (bool, int, str):
        return type(value) is hint
    if hint is float:
        return type(value) in (int, float)
    if isinstance(hint, type) and issubclass(hint, str):  # PEFT's enumerations
        return type(value) is str
    return isinstance(value, dict)  # PEFT's configs within the config


def words(hint: Any) -> str:
    """Return the type `hint` in words, for a message.

    >>> words(int | None)
    'a whole number or null'
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        # Sorted, because the order is not stable: Python caches one Union for all orders of its parts.
        return " or ".join(sorted({words(part) for part in parts}, key=lambda each: (each == "null", len(each), each)))
    if origin is Literal:
        return ", ".join(map(str, parts[:-1])) + f" or {parts[-1]}"
    if origin in (list, tuple):
        return {str: "a list of texts", int: "a list of whole numbers"}.get(parts[0], "a list")
    if origin is dict:
        return {int: "an object of whole numbers", float: "an object of numbers"}.get(parts[1], "an object")
    if isinstance(hint, type) and issubclass(hint, str):
        return "a text"
    names = {bool: "true or false", int: "a whole number", float: "a number", list: "a list", type(None): "null"}
    return names.get(hint, "an object")
