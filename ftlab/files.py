"""Atomic writes, locks that the system frees when a process ends, strict JSON output, and hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from ftlab.errors import BadInput, CourseError
from ftlab.wording import COMMANDS

PARTIAL, ASIDE, LOCK = ".partial-", ".aside-", ".ftlab-lock-"  # + one token: the new, the old moved aside, who writes
NO_SPACE = "No space left on device"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# How libraries with error classes of their own, in Rust or C++, say that a disk is full.
SAY_FULL: tuple[str, ...] = (NO_SPACE, "PytorchStreamWriter failed writing")
if sys.platform != "win32":  # whose words for EDQUOT are "Unknown error", as for many other errors
    SAY_FULL += (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), *(f"(os error {number})" for number in FULL))
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # of a file system that cannot lock; filelock itself sees to ENOSYS
# Where the process number begins in a lock file: what Windows has locked, the first byte, nobody else reads or writes.
NUMBER_AT = 1 if sys.platform == "win32" else 0


@contextmanager
def atomic(
    path: Path, *, folder: bool = False, replace: bool = True, error: type[CourseError] = CourseError
) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` only if the block succeeds.

    A reader finds the old content or the new, and never a half. A file is replaced in one step. An older folder is
    moved aside, the new one takes its place, and then the old one is deleted. A killed process leaves hidden files
    beside `path` (the temporary path, perhaps the old folder, and a lock that nobody holds); the next `atomic` or
    `sweep` there restores or deletes them. A symbolic link is followed.

    Args:
        path: where the result will be.
        folder: whether to write a folder: the temporary path is then an empty folder.
        replace: whether a folder that is not empty may be replaced.
        error: the class of error to raise.

    Yields:
        The temporary path.

    Raises:
        CourseError: as `error`, in one sentence: the disk is full, or `path` cannot be written or replaced. Other
            errors of the block pass as they are.
    """
    with explained(path, error):
        target = path.resolve() if path.is_symlink() else path.absolute()
        _require_replaceable(path, target, folder, replace, error)
        target.parent.mkdir(parents=True, exist_ok=True)
        _settle(target.parent, ours=True)
        token, lock = _fresh_token(target.parent)
    temporary, aside = target.parent / (PARTIAL + token), target.parent / (ASIDE + token)
    try:
        with explained(path, error):
            if folder:
                temporary.mkdir(mode=0o700)
            else:
                temporary.touch(mode=0o600, exist_ok=False)
        try:
            yield temporary
        except Exception as problem:
            if sentence := _about_writing(problem, temporary, path):
                raise error(sentence) from problem
            raise
        with explained(path, error):
            temporary.chmod(0o755 if folder else 0o644)  # private until it is whole
            if folder and replace:
                _put(temporary, target, aside)
            elif folder:
                _require_replaceable(path, target, folder, replace, error)
                temporary.rename(target)
            else:
                temporary.replace(target)
    finally:
        try:
            with suppress(OSError):  # what stays is swept later
                _clear(temporary, aside)
        finally:
            release_lock(lock)


@contextmanager
def scratch(folder: Path, error: type[CourseError] = CourseError) -> Iterator[Path]:
    """Yield a new hidden folder inside `folder`, for files that are later moved out of it; it is deleted afterwards.

    If the process is killed, the next `atomic` or `scratch` there deletes it. An OSError on the way to the new folder
    is raised as an `error` of one sentence.

    Yields:
        The path of the hidden folder.
    """
    folder = folder.absolute()
    with explained(folder, error):
        folder.mkdir(parents=True, exist_ok=True)
        _settle(folder, ours=True)
        token, lock = _fresh_token(folder)
        hidden = folder / (PARTIAL + token)
    try:
        with explained(folder, error):
            hidden.mkdir(mode=0o700)
        yield hidden
    finally:
        try:
            remove(hidden)
        finally:
            release_lock(lock)


@contextmanager
def explained(path: Path, error: type[CourseError]) -> Iterator[None]:
    """Raise each OSError of a block that only writes `path` as an `error` of one sentence.

    Yields:
        Nothing.
    """
    try:
        yield
    except OSError as problem:
        raise error(explain(problem, path)) from problem


def _require_replaceable(path: Path, target: Path, folder: bool, replace: bool, error: type[CourseError]) -> None:
    if not target.exists():
        return
    if folder and not target.is_dir():
        raise error(f"{path} is a file, and a folder is to be written there; choose another name")
    if folder and not replace and any(target.iterdir()):
        raise error(f"{path} is not empty, perhaps by another process; choose a new folder")
    if not folder and target.is_dir():
        raise error(f"{path} is a folder; give the name of a file")
    if not folder and not target.is_file():  # as root, even /dev/null would be replaced
        raise error(f"{path} is a device or a pipe, and cannot be replaced by a file; give the name of a file")


def _about_writing(problem: Exception, temporary: Path, path: Path) -> str | None:
    """Return the sentence for an error in the block if it says that `path` cannot be written; else None."""
    if isinstance(problem, CourseError):
        return None
    if not isinstance(problem, OSError) or problem.errno is None:
        return explain(OSError(errno.ENOSPC, NO_SPACE), path) if says_disk_is_full(problem) else None
    names = [os.fspath(name) for name in (problem.filename, problem.filename2) if isinstance(name, str | os.PathLike)]
    elsewhere = bool(names) and not any(Path(name).absolute().is_relative_to(temporary) for name in names)
    if problem.errno in FULL:  # of another disk, if a file of another place is named
        return explain(problem, Path(names[0]) if elsewhere else path)
    if not names or elsewhere:
        return explain(problem, path) if problem.errno == errno.EIO and not names else None
    if problem.errno == errno.ENOENT and not temporary.exists():
        return f"what was written of {path} was removed by another program on the way; run the command again"
    return explain(problem, path) if problem.errno in (*CLOSED, errno.EIO) else None


def says_disk_is_full(problem: Exception | str) -> bool:
    """Return whether `problem`, an error or its text, says that a disk is full."""
    return getattr(problem, "errno", None) in FULL or any(words in str(problem) for words in SAY_FULL)


def explain(problem: OSError, path: Path) -> str:
    """Return one sentence for the OSError `problem`, met while writing `path`, with the next step."""
    said = problem.strerror or str(problem)
    if problem.errno in FULL:
        return f"the disk is full: {path} could not be written; free some space there, then run the command again"
    if problem.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{path} cannot be written (a file is in the way); choose a folder that you may write to"
    if problem.errno in CLOSED:
        return f"{path} cannot be written ({said}); choose a folder that you may write to"
    if problem.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return f"{path} cannot be written ({said}); choose another name"
    if problem.errno in (errno.EBUSY, errno.EXDEV):
        return f"{path} cannot be replaced ({said}), most likely because a disk is mounted there; choose a folder in it"
    return f"{path} could not be written ({said}); check the disk, then run the command again"


def _put(temporary: Path, target: Path, aside: Path) -> None:
    """Rename a folder to `target`; a folder that is there already is moved aside first."""
    while True:
        try:
            temporary.rename(target)
            return
        except OSError:
            if not target.is_dir() or not temporary.is_dir():
                raise
        remove(aside / target.name)
        aside.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another process moved it
            target.rename(aside / target.name)


def _clear(temporary: Path, aside: Path) -> None:
    """Put back the folder that was moved aside if nothing took its place, and delete the rest."""
    if aside.is_dir():
        for old in list(aside.iterdir()):
            if not (aside.parent / old.name).exists():
                with suppress(OSError):  # another process was faster
                    old.rename(aside.parent / old.name)
        remove(temporary)
        # A kill while it is deleted must not leave a half that would later be put back.
        aside.rename(temporary)
    remove(temporary)


def sweep(folder: Path) -> None:
    """Delete half-written files and folders of killed processes in `folder`, and restore what they were replacing.

    What a living process writes is locked, and stays.
    """
    _settle(folder, ours=False)


def _settle(folder: Path, *, ours: bool) -> None:
    """Do the work of `sweep`; with `ours`, touch only what `atomic` has locked: a name alone proves nothing."""
    names = []
    with suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    tokens = {name.removeprefix(LOCK) for name in names if re.fullmatch(re.escape(LOCK) + "[0-9a-f]{12}", name)}
    if not ours:
        tokens |= {name.removeprefix(kind) for kind in (PARTIAL, ASIDE) for name in names if name.startswith(kind)}
    for token in tokens:
        try:
            lock = acquire_lock(folder / (LOCK + token))
        except OSError:  # of another user
            continue
        if lock is not None:
            try:
                with suppress(OSError):
                    _clear(folder / (PARTIAL + token), folder / (ASIDE + token))
            finally:
                release_lock(lock)


def _fresh_token(folder: Path) -> tuple[str, BaseFileLock]:
    while True:
        token = secrets.token_hex(6)
        path = folder / (LOCK + token)
        if lock := acquire_lock(path):
            return token, lock
        # Another process has just swept it, or no file can be made here, as in /proc; then this raises the reason.
        path.touch()
        path.unlink(missing_ok=True)


def acquire_lock(path: Path, *, wait: float = 0) -> BaseFileLock | None:
    """Lock the file `path` for this process. The system frees the lock when the process ends, however it ends.

    Args:
        path: the lock file; it holds the process number, and `release_lock` deletes it.
        wait: seconds to wait for a lock that is held; negative: without end.

    Returns:
        The lock, or None if another process still holds it.

    Raises:
        OSError: the file cannot be written.
    """
    lock: BaseFileLock = FileLock(path, thread_local=False)
    try:
        try:
            lock.acquire(timeout=wait)
        except OSError as problem:
            if problem.errno not in NO_LOCKS:
                raise
            if path.stat().st_size == 0:  # what the other kind has left
                path.unlink()
            lock = SoftFileLock(path, thread_local=False)
            lock.acquire(timeout=wait)
    except Timeout:
        return None
    if not isinstance(lock, SoftFileLock):  # which keeps its own words in the file
        with suppress(OSError), path.open("r+b", buffering=0) as file:  # it locks without a number, too
            file.seek(NUMBER_AT)
            file.write(str(os.getpid()).encode())
            file.truncate()  # of a longer number that a killed process has left
    return lock


def release_lock(lock: BaseFileLock) -> None:
    """Release `lock`, a lock of `acquire_lock`, and delete its file."""
    path = Path(lock.lock_file)
    if sys.platform != "win32" and not isinstance(lock, SoftFileLock):
        with suppress(OSError):  # while it is held: afterwards the file may be the next holder's
            path.unlink()
    lock.release()
    if sys.platform == "win32":  # where an open file cannot be deleted, and so not the next holder's either
        with suppress(OSError):
            path.unlink()


def holder(path: Path) -> str:
    """Return who holds the lock at `path`: "process 4711", or "another process" if that cannot be read."""
    with suppress(OSError, ValueError), path.open("rb", buffering=0) as file:
        file.seek(NUMBER_AT)
        return f"process {int(file.read())}"
    return "another process"


def named_path(name: str, instead: str) -> tuple[Path, bool]:
    """Return the path that a person named, and whether it exists.

    Args:
        name: a path, perhaps with ~.
        instead: what to give instead, for the error.

    Raises:
        BadInput: the path cannot be examined, for example because the name is too long.
    """
    try:
        path = Path(name).expanduser()
        return path, path.exists()
    except (OSError, RuntimeError) as problem:  # a name too long, a user that there is not, a folder that is closed
        raise BadInput(f"{name[:80]} cannot be looked at ({problem}); give {instead}") from problem


def remove(path: Path) -> None:
    """Delete the file or folder at `path` if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, atomically. NaN and infinity become null: JSON does not have them."""
    text = to_json(value, indent=2)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def to_json(
    value: Any, *, indent: int | None = None, ascii_only: bool = False, default: Callable[[Any], Any] | None = None
) -> str:
    """Return `value` as JSON that any reader accepts.

    NaN and infinity become null, NumPy's numbers and arrays become plain ones.

    Args:
        value: dicts, lists and plain or NumPy values.
        indent: spaces of indentation; None for one line, in which U+2028 and its like are escaped too.
        ascii_only: whether to escape everything beyond ASCII.
        default: converts a value that JSON does not have into one that it has.

    Raises:
        TypeError: there is a value that JSON does not have, and no `default`.

    >>> to_json({"loss": float("nan"), "steps": [1, 2]})
    '{"loss": null, "steps": [1, 2]}'
    """

    def plain(one: Any) -> Any:
        if hasattr(one, "tolist"):
            return finite(one)
        if default is None:
            raise TypeError(f"JSON has nothing for a {type(one).__name__}")
        return default(one)

    def dumped(one: Any) -> str:
        return json.dumps(one, indent=indent, ensure_ascii=ascii_only, allow_nan=False, default=plain)

    try:
        text = dumped(value)
    except (TypeError, ValueError):  # a NaN, or a key of NumPy's
        text = dumped(finite(value))
    return text if text.isascii() and "\x7f" not in text else text.translate(LEFT_BY_JSON)


# Line ends of Unicode, and what a terminal would obey: JSON lets both stand.
LEFT_BY_JSON = {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *(code for code in COMMANDS if code >= 0x7F))}


def finite(value: Any) -> Any:
    """Return a copy of `value` (dicts, lists, plain or NumPy values) with None for each NaN and infinity.

    >>> finite({"loss": float("inf"), "rows": (1, 2.5)})
    {'loss': None, 'rows': [1, 2.5]}
    """
    if hasattr(value, "tolist"):  # a number or an array of NumPy
        value = value.tolist()
    if isinstance(value, Mapping):
        return {finite(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256(path: Path) -> str:
    """Return the SHA-256 of the bytes of the file at `path`, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
