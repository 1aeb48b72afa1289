"""Disks of a test: small ones, and those that can only be read. They are mounted for one process alone."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OWN_MOUNTS = 0x00020000  # CLONE_NEWNS of Linux


# The fixture is in conftest.py: asked of the system once, and not by each fork that imports this module.
needs_mounts = pytest.mark.usefixtures("mounts")


def may_mount() -> bool:
    """Whether this process may mount a file system of its own."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return False
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def mount_to_read(folder: Path) -> None:
    """Mount `folder` over itself, to be read only: in this process alone, and root, too, cannot write there."""
    _leave_the_mounts_of_others()
    _mount("--bind", folder, folder)
    _mount("-o", "remount,ro,bind", folder)


def mount_small(folder: Path, size: str) -> None:
    """Mount a new disk of `size` at `folder`, in this process alone."""
    _leave_the_mounts_of_others()
    _mount("-t", "tmpfs", "-o", f"size={size}", "none", folder)


def enlarge(folder: Path, size: str) -> None:
    """Give the small disk at `folder` the new `size`."""
    _mount("-o", f"remount,size={size}", folder)


def _leave_the_mounts_of_others() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(OWN_MOUNTS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _mount("--make-rprivate", "/")


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)
