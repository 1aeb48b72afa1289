"""Files that appear whole or not at all, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftlab.errors import BadInput, CourseError

PARTIAL = ".partial-"
NO_SPACE = "No space left on device"


@contextmanager
def whole(path: Path, *, folder: bool = False, error: type[CourseError] = CourseError) -> Iterator[Path]:
    """Give a temporary path beside `path`, and put it in place of `path` only if the block succeeds.

    A rename within one file system is atomic, so a reader, or a process killed half-way, finds the old file or
    the new one and never a half. With `folder=True` the temporary path is an empty folder; an older folder at `path`
    is removed first (a folder cannot be replaced in one step). A full disk or a folder that cannot be written is
    raised as `error`, in one sentence.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=path.parent))
        else:
            handle, name = tempfile.mkstemp(prefix=PARTIAL, dir=path.parent)
            os.close(handle)
            temporary = Path(name)
        yield temporary
        if folder and path.exists():
            shutil.rmtree(path)
        temporary.chmod(0o755 if folder else 0o644)  # mkstemp and mkdtemp make them private
        temporary.replace(path)
    except OSError as problem:
        raise error(explain(problem, path)) from problem
    except Exception as problem:
        if NO_SPACE in str(problem):  # safetensors has an error class of its own
            raise error(explain(OSError(errno.ENOSPC, NO_SPACE), path)) from problem
        raise
    finally:
        if temporary is not None:
            remove(temporary)


def look_at(name: str, instead: str) -> tuple[Path, bool]:
    """The path that a person named, and whether anything is there; BadInput says what to give instead."""
    try:
        path = Path(name).expanduser()
        return path, path.exists()
    except (OSError, RuntimeError) as problem:  # a name too long, a user that there is not, a folder that is closed
        raise BadInput(f"{name[:80]} cannot be looked at ({problem}); give {instead}") from problem


def explain(problem: OSError, path: Path) -> str:
    """One sentence for what the operating system refused, with the next step."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk is full: {path} could not be written; free some space there, then run the command again"
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return f"{path} cannot be written ({problem.strerror}); choose a folder that you may write to"
    return f"{path} could not be written ({problem.strerror or problem}); check the disk, then run the command again"


def remove(path: Path) -> None:
    """Delete a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete what a killed process left half-written in `folder`."""
    for leftover in folder.glob(PARTIAL + "*"):
        remove(leftover)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
