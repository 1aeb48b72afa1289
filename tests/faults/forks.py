"""A warm process that runs operations in forks of itself, and ends them at a chosen moment: nothing is imported twice.

`Server` starts `python -m tests.faults.forks FOLDER`. A task names an operation of `operations.OPERATIONS`, the folder
to work in, and what befalls it. A kill comes before the n-th change to the file system (SIGKILL), when a file grows
beyond n bytes (SIGXFSZ, whoever writes it: Python, C++ or Rust), or after a time (SIGKILL).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
LONGEST = 300.0  # seconds, for what is not to be killed
CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.symlink"})
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Ended:
    """How a task ended: its exit code (negative: the signal), what it said, and what it returned."""

    code: int
    said: str
    value: Any
    seconds: float
    changes: list[str] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        """Whether a signal ended it."""
        return self.code < 0


class Server:
    """The warm process. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks", str(folder)],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, operation: str, place: Path, **befalls: Any) -> Ended:
        """Run `operation` in a fork, in the folder `place`.

        Args:
            operation: a name in `operations.OPERATIONS`.
            place: the folder to work in; a folder of caches too.
            befalls: `change`, `byte` or `seconds` (when to kill it), `limit` (the largest file that it may write, as a
                disk would refuse more), `closed` (a part of `place` that is mounted to be read only; "." for all),
                `orphans` (leave alive what it started, until the next task).
        """
        return self._ask([{"operation": operation, "place": str(place), **befalls}])[0]

    def run_together(self, operation: str, place: Path, count: int = 2) -> list[Ended]:
        """Run `operation` in `count` forks at the same time, all in the folder `place`."""
        return self._ask([{"operation": operation, "place": str(place)}] * count)

    def _ask(self, tasks: list[dict[str, Any]]) -> list[Ended]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(tasks) + "\n")
        self._process.stdin.flush()
        return [Ended(**ended) for ended in json.loads(self._process.stdout.readline())]


def _serve(folder: Path) -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    from tests.faults import operations

    operations.warm_up(folder)
    left: list[int] = []
    for line in sys.stdin:
        tasks = json.loads(line)
        started = [_start(task) for task in tasks]
        ended = [_wait(*one, task) for one, task in zip(started, tasks, strict=True)]
        left += [child for child, _, _ in started]
        if not any(task.get("orphans") for task in tasks):
            for group in left:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            left.clear()
        replies.write(json.dumps(ended) + "\n")
        replies.flush()
    os._exit(0)  # quickly: nothing is left to close


def _start(task: dict[str, Any]) -> tuple[int, int, float]:
    """Fork for a task; the process, where it answers, and when it began."""
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os.close(reader)
        _child(task, writer)
    with contextlib.suppress(OSError):  # it was faster
        os.setpgid(child, child)
    os.close(writer)
    return child, reader, began


def _wait(child: int, reader: int, began: float, task: dict[str, Any]) -> dict[str, Any]:
    watched = os.pidfd_open(child)
    if not select.select([watched], [], [], task.get("seconds", LONGEST))[0]:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - began
    os.close(watched)
    with os.fdopen(reader) as answer:
        said = json.loads(answer.read() or "{}") if not os.WIFSIGNALED(status) else {}
    return {"said": "", "value": None, **said, "code": os.waitstatus_to_exitcode(status), "seconds": seconds}


def _child(task: dict[str, Any], writer: int) -> None:
    """Run the task, tell the parent, and end without a clean-up: the parent's files are not this process's to close."""
    import resource

    from tests.faults import operations, small_disks

    code, value, said = 70, None, io.StringIO()
    changes = _Changes(task.get("change"))
    place = Path(task["place"])
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    if closed := task.get("closed"):
        small_disks.mount_to_read(place / closed)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = task.get("byte") or task.get("limit")
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            run = operations.OPERATIONS[task["operation"]].begin(place)
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL if task.get("byte") else signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
            sys.addaudithook(changes)
            changes.armed = True
            value = run()
            code = value if isinstance(value, int) else 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 71
    except BaseException:
        said.write(traceback.format_exc())
    changes.armed = False
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    answer = {"said": said.getvalue()[-4000:], "value": value, "changes": changes.seen}
    os.write(writer, json.dumps(answer).encode()[:60_000])
    os._exit(code)


class _Changes:
    """An audit hook that counts changes to the file system, and kills this process before one of them."""

    def __init__(self, fatal: int | None) -> None:
        self.fatal = fatal
        self.seen: list[str] = []
        self.armed = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITING or str(path).startswith("/dev/"):
                return
        elif event not in CHANGES:
            return
        if len(self.seen) == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(f"{event} {Path(str(arguments[0])).name}")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
