"""Execute a notebook headless with papermill, and say in one sentence what went wrong."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.data import assets
from ftlab.errors import BadInput, ClaimFailed, LessonFailed
from ftlab.internals import papermill as papermill_internals
from ftlab.internals.papermill import Hook
from ftlab.progress import HEADLESS


def _nothing(index: int, cells: Sequence[Any]) -> None:
    """Do nothing before or after a cell."""


def execute(
    source: Path,
    target: Path,
    parameters: Mapping[str, Any],
    *,
    settings: Mapping[str, str],
    results: Path,
    failed: str,
    less: str = "",
    before_cell: Hook = _nothing,
    after_cell: Hook = _nothing,
) -> None:
    """Execute the notebook `source`, in its own folder, into `target`, which is written cell by cell.

    Args:
        source: the notebook.
        target: the executed notebook; if a cell fails, it is there up to that cell.
        parameters: values for the cell that is tagged `parameters`.
        settings: environment variables for the kernel, beside those of every headless run.
        results: the folder of the results, which an error names if its disk is full.
        failed: where the notebook is if it fails: the end of the error's sentence.
        less: which parameters make it need less memory, for the error.
        before_cell: called before each cell, with its index and all cells.
        after_cell: the same after each cell, whose outputs are in it then.

    Raises:
        BadInput: a cell met a mistake of the user, or the disk is full.
        ClaimFailed: the notebook contradicts a claim of its own.
        LessonFailed: another error, a kernel that was killed, or one that did not start.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    name = source.stem
    papermill_internals.register_engine("ftlab", before_cell, after_cell)
    # The notebook runs in another folder, where a relative cache would be another cache.
    settings = {HEADLESS: "1", "FTLAB_HOME": str(assets.home()), **settings}
    try:
        with environment(settings), _kernel_options() as kernel_options:
            # papermill formats paths with the parameters, so a brace in one would be read as a field.
            papermill.execute_notebook(
                str(source).replace("{", "{{").replace("}", "}}"),
                str(target).replace("{", "{{").replace("}", "}}"),
                parameters=dict(parameters),
                engine_name="ftlab",
                kernel_name="python3",
                progress_bar=False,
                coalesce_streams=True,  # else what is printed bit by bit stands on lines of its own
                **kernel_options,
                cwd=str(source.parent),
            )
    except papermill.PapermillExecutionError as problem:
        said = _ANSI.sub("", f"{problem.evalue}").strip().splitlines() or [problem.ename]
        if files.says_disk_is_full(f"{problem.evalue}"):
            raise BadInput(files.explain(OSError(errno.ENOSPC, files.NO_SPACE), results)) from problem
        if problem.ename == ClaimFailed.__name__:
            raise ClaimFailed(f"{name}: {said[0]}; {failed}") from problem
        if problem.ename in ("CourseError", "BadInput", "AssetError"):
            raise BadInput(f"{name}: {said[0]}") from problem
        raise LessonFailed(f"{name} stopped with {problem.ename}: {said[0][:300]}; {failed}") from problem
    except RuntimeError as problem:
        if not isinstance(problem, DeadKernelError):
            raise LessonFailed(f"{name} could not start ({problem}); run ftlab doctor") from problem
        remedy = f"close something, or ask for less ({less})" if less else "close something, and run it again"
        raise LessonFailed(
            f"{name}: its Python was killed, most likely for want of memory; {remedy}; {failed}"
        ) from problem


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set the environment variables `settings` for a block, and restore them afterwards.

    Yields:
        Nothing.
    """
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _kernel_options() -> Iterator[dict[str, Any]]:
    """Yield papermill options for a kernel that is reached through sockets in a private folder: it needs no network.

    The default is the loopback interface, which is down where the network is cut off, and open to everyone on the
    machine. It is taken where there are no such sockets: on Windows, and in a folder of temporary files with a name
    longer than their addresses may be.
    """
    options: dict[str, Any] = {"extra_arguments": ["--log-level=ERROR"]}  # else it warns that nothing is encrypted
    if sys.platform == "win32":
        yield options
        return
    from jupyter_client import AsyncKernelManager

    with tempfile.TemporaryDirectory(prefix="ftlab-", ignore_cleanup_errors=True) as folder:
        if len(os.fsencode(folder)) > LONGEST_SOCKET_FOLDER:
            yield options
            return

        class SocketKernelManager(AsyncKernelManager):
            def __init__(self, **more: Any) -> None:
                super().__init__(**{**more, "transport": "ipc", "ip": f"{folder}/kernel"})

        yield {**options, "kernel_manager_class": SocketKernelManager}


LONGEST_SOCKET_FOLDER = (
    85  # bytes: an address has at most 103 on macOS, 107 on Linux, and "/kernel-65535" stands behind
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
