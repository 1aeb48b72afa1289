"""Values out of somebody's JSON file: read strictly, held against the type that is expected, shown in a sentence."""

from __future__ import annotations

import json
import stat
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from ftlab import strict_json
from ftlab.errors import BadInput
from ftlab.wording import one_line

LARGEST = 2**24  # bytes of a JSON file; an adapter that names every module of a large model has a fraction of it


def read_object(path: Path, what: str, redo: str) -> dict[str, Any]:
    """The JSON object in a file, read strictly: UTF-8 without a mark, no name twice, only finite numbers.

    Raises BadInput, which begins with the path and `what`, and ends with `redo`, for anything else.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file")
        if found.st_size > LARGEST:
            raise ValueError(f"it is {found.st_size:,} bytes long, and {LARGEST:,} are enough for any")
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
        raise BadInput(f"{path} {what}: it holds no JSON object but {words(type(loaded))}; {redo}")
    return loaded


def fits(value: Any, hint: Any) -> bool:
    """Whether a value out of JSON is of the type that `hint` says: a bool is no number here, and a tuple is a list."""
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
    """A type in words, for a sentence."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        # Python keeps one Union for all orders of its parts, that of whoever wrote it first in this process.
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
