"""What Windows refuses and Linux allows, so that it shows here: to move or delete what somebody has open."""

import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftlab import files

TESTS = Path(__file__).resolve().parent
CHANGES = ("rename", "replace", "unlink", "remove", "rmdir")


def refuse_what_is_open(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let this process neither rename, replace nor delete a file that it has open or mapped, nor a folder around one.

    Of two paths, the second counts as well: Windows replaces no open file. The list returned gets every refusal, so
    that one whose error is suppressed can be seen too.
    """
    refused: list[str] = []

    def of_windows(change):
        def checked(*paths, **options):
            for path in paths:
                if not isinstance(path, str | Path) or options.get("dir_fd") or files.LOCK in str(path):
                    continue  # a lock is deleted otherwise on Windows: see `files.release_lock`
                if held := _open_in(Path(path)):
                    refused.append(f"{change.__name__} {path}: {held} is open")
                    raise PermissionError(13, "The process cannot access the file", str(path))
            return change(*paths, **options)

        return checked

    for name in CHANGES:
        monkeypatch.setattr(os, name, of_windows(getattr(os, name)))
    return refused


def _open_in(path: Path) -> str | None:
    """The first file that this process has open or mapped at `path` or below; None without one, and off Linux."""
    place = str(path.absolute())
    held = {line.split(maxsplit=5)[-1] for line in _maps().splitlines() if "/" in line}
    for descriptor in Path("/proc/self/fd").iterdir() if Path("/proc/self/fd").is_dir() else ():
        try:
            held.add(str(descriptor.readlink()))
        except OSError:  # closed meanwhile
            continue
    return next((one for one in sorted(held) if one == place or one.startswith(place + "/")), None)


def _maps() -> str:
    maps = Path("/proc/self/maps")
    return maps.read_text(encoding="utf-8", errors="replace") if maps.is_file() else ""


def takes(name: str) -> bool:
    """Whether Windows takes each part of a path, which has slashes, as the name of a file."""
    reserved = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
    return not any(
        re.search(r'[<>:"\\|?*\x00-\x1f]|[. ]$', part) or reserved.fullmatch(part) for part in name.split("/")
    )


# What a test does that Windows has not: pipes with a name, signals that kill, make, shells, devices.
POSIX = re.compile(
    r"os\.(mkfifo|fork|killpg|wait|WTERMSIG)|SIG(KILL|XFSZ)|send_signal|#!/bin/sh|\"make\"|/dev/(zero|full)|unshare|Ranks\("
)
POSIX_MODULES = (
    *("tests/test_bootstrap.py", "tests/test_first_run.py"),  # they play a newcomer's shell and make
    "tests/distributed/test_equality.py",  # it forks
)


def needs_posix(item: pytest.Item) -> bool:
    """Whether a test, or a fixture of ours that it asks for, does something that Windows has not."""
    if item.location[0].replace(os.sep, "/") in POSIX_MODULES:
        return True
    function = getattr(item, "function", None)
    if function is None:
        return False
    asked = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009 (no public name tells them)
    functions = [function, *(definition.func for definitions in asked for definition in definitions)]
    return any(POSIX.search(inspect.getsource(one)) for one in functions if _is_ours(one))


def _is_ours(function: Callable[..., Any]) -> bool:
    """Whether it is written in tests/; other fixtures are pytest's and its plugins', which run on Windows."""
    return Path(inspect.getfile(inspect.unwrap(function))).is_relative_to(TESTS)


def require_name(name: str) -> None:
    """Skip a test whose file has a name that this system does not take."""
    if sys.platform == "win32" and not takes(name):
        pytest.skip("Windows takes no such name")
