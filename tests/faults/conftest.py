"""The warm process that all faults are tried in."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import isolation
from tests.faults import forks, small_disks

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # forks, /proc and limits of Linux


@pytest.fixture(scope="session")
def given(tmp_path_factory) -> Path:
    """The folder of what the operations read."""
    folder = tmp_path_factory.mktemp("given")
    for one in (folder, folder.parent, folder.parent.parent):  # another user reads it, too
        one.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def server(given) -> Iterator[forks.Server]:
    with forks.Server(given) as running:
        yield running


@pytest.fixture(scope="session")
def mounts() -> None:
    """Nothing; it skips what needs mounts of its own where this process may have none."""
    if not small_disks.may_mount():
        isolation.lacking("this process may not mount a file system of its own")
