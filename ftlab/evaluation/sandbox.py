"""Sandbox for Python code that a language model wrote: return what it prints, or whether its test passes.

Each piece of code runs in a new process with the standard library only. The process has an empty folder, an empty
environment, and limits on time, memory, open files and the size of a file. It has no network, starts no other process,
and changes no file outside its folder. This file is also the program of that process, so it imports only fast modules.

The sandbox protects against accidents of generated code: an endless loop, full memory, a file removed by mistake. It
does not stop an attacker. On Linux the kernel removes the network, if it permits that; all else is refused by Python's
audit events (PEP 578), which malicious code can get around. Do not run a model that you do not trust. Without the
`resource` module (Windows) memory has no limit; macOS does not enforce that limit. Coroutines do not run on Windows,
where asyncio needs the network to wake its loop.
"""

from __future__ import annotations

import io
import marshal
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

SECONDS = 5.0
MEMORY = 512 * 2**20  # bytes of address space
FILE = 2**20  # bytes of the longest file, and of what is printed
OPEN_FILES = 64
WRITTEN_FILES = 100  # that may be opened for writing, so that many small ones do not fill the disk
# The standard library only, no bytecode written. Not -I: it would ignore the environment, which fixes the hash seed.
FLAGS = ("-P", "-s", "-S", "-B", "-X", "utf8")
ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # the order of a set, and so the result, is the same each time

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # Linux: CLONE_NEWUSER, CLONE_NEWNET
REFUSED = (
    "_posixsubprocess.", "_winapi.", "ctypes.", "ftplib.", "http.", "imaplib.", "nntplib.", "os.exec", "os.fork",
    "os.kill", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "poplib.", "pty.", "resource.prlimit",
    "resource.setrlimit", "signal.pthread_kill", "smtplib.", "socket.", "sqlite3.enable_load_extension", "subprocess.",
    "syslog.", "telnetlib.", "urllib.", "webbrowser.", "winreg.",
)  # fmt: skip
# Audit events that change files: the index of each path among the arguments, and of the folder that it is relative to.
ALONE = ((0, None),)
CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.chflags": ALONE, "os.chmod": ((0, 2),), "os.chown": ((0, 3),), "os.link": ((0, 2), (1, 3)),
    "os.mkdir": ((0, 2),), "os.remove": ((0, 1),), "os.removexattr": ALONE, "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),), "os.setxattr": ALONE, "os.symlink": ((1, 2),), "os.truncate": ALONE, "os.utime": ((0, 3),),
    "shutil.rmtree": ALONE, "sqlite3.connect": ALONE,
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
AF_UNIX = 1  # asyncio wakes its loop through a pair of such sockets; they reach no network


def holds(code: str, test: str, *, seconds: float = SECONDS) -> bool:
    """Return whether `code` runs to its end within `seconds`, and then the asserts of `test` pass.

    Code that exits before them, by `sys.exit()` or otherwise, has not passed. If it redefines one of Python's builtins,
    the test must also pass with Python's own.
    """
    ticket = os.urandom(16)
    return _run({"code": code, "test": test, "ticket": ticket}, seconds)[0] == ticket


def printed(code: str, *, seconds: float = SECONDS) -> str | None:
    """Return what `code` prints, or None if it fails, takes longer than `seconds` or prints more than a megabyte."""
    return _run({"code": code, "test": None, "ticket": b""}, seconds)[1]


def _run(job: dict[str, Any], seconds: float) -> tuple[bytes, str | None]:
    """Run a job in a new process; return its answer, and what the code printed if the process ended with status 0."""
    import contextlib
    import subprocess
    import tempfile
    import threading
    from pathlib import Path

    with tempfile.TemporaryDirectory(prefix="ftlab-answer-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        output, inside = folder / "printed", folder / "empty"
        inside.mkdir()
        job |= {"seconds": seconds, "output": str(output), "folder": str(inside)}
        kept = {
            key: os.environ[key] for key in ("SYSTEMROOT",) if key in os.environ
        }  # Windows starts no process without it
        with subprocess.Popen(
            [sys.executable, *FLAGS, __file__], cwd=inside, env=ENVIRONMENT | kept, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            clock = threading.Timer(seconds, _kill, [process])
            clock.start()
            try:
                with contextlib.suppress(OSError):  # the process may have ended already
                    process.stdin.write(marshal.dumps(job))
                    process.stdin.close()
                said = process.stdout.read(len(job["ticket"]) + 1)
                well = process.wait() == 0 if job["test"] is None else False
            finally:
                clock.cancel()
                clock.join()  # a thread that was told to end is not yet gone
                _kill(process)
        text = output.read_bytes().decode("utf-8", "replace") if well else None
    return said, text


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and all processes that it started, unless its end was already noticed."""
    import contextlib
    import signal

    if process.returncode is not None:
        return  # its number may belong to another process by now
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)  # it is the leader of its own process group
        else:
            process.kill()


def _main() -> None:
    """Run in the new process: read the job, give up what the code must not have, run it, and report the result."""
    job = marshal.loads(sys.stdin.buffer.read())
    answer = os.dup(1)
    _redirect(job["output"])
    for name in [*ENVIRONMENT, "LC_CTYPE"]:  # Python itself sets LC_CTYPE
        os.environ.pop(name, None)
    _limit(job["seconds"])
    _leave_the_network()
    if "random" in job["code"]:
        import random

        random.seed(0)  # without a seed the result could differ each time
    refuse = _refusal(job["folder"])
    _start_no_process(refuse)
    sys.addaudithook(refuse)
    namespace = _main_module()
    if job["test"] is None:
        exec(compile(job["code"], "<code>", "exec", dont_inherit=True), namespace)
        return
    if _test_holds(job["code"], job["test"], namespace):
        os.write(answer, job["ticket"])
    os._exit(0)


def _redirect(output: str) -> None:
    """Make stdin empty, and write stdout to a file, whose size is limited."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    # On Windows both the descriptor and Python would make "\r\n" of each "\n".
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)), 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(newline="\n")


def _limit(seconds: float) -> None:
    try:
        import resource
    except ImportError:
        return
    bounds = {"AS": MEMORY, "CPU": int(seconds) + 1, "FSIZE": FILE, "NOFILE": OPEN_FILES, "CORE": 0}
    for name, bound in bounds.items():
        try:
            kind = getattr(resource, f"RLIMIT_{name}")
            highest = resource.getrlimit(kind)[1]
            bound = bound if highest == resource.RLIM_INFINITY else min(bound, highest)
            resource.setrlimit(kind, (bound, bound))
        except (AttributeError, OSError, ValueError):  # not every system has each of these limits
            continue


def _leave_the_network() -> None:
    """Enter an empty network namespace, and give up root's rights, if the kernel permits that."""
    if sys.platform != "linux":
        return
    flags = NEW_USER | NEW_NETWORK
    try:
        if unshare := getattr(os, "unshare", None):  # from Python 3.12 on
            unshare(flags)
            return
        import ctypes

        ctypes.CDLL(None).unshare(flags)
    except (ImportError, OSError, AttributeError):
        return
    finally:
        for name in [name for name in sys.modules if name.startswith(("ctypes", "_ctypes"))]:
            del sys.modules[name]


def _refusal(folder: str) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that refuses to reach outside the process or `folder`."""
    realpath, separator, devnull = os.path.realpath, os.sep, os.path.realpath(os.devnull)
    decode, isabs, join, readlink = os.fsdecode, os.path.isabs, os.path.join, os.readlink
    left = [WRITTEN_FILES]

    def outside(path: Any, relative_to: Any = None) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False  # a file descriptor, which is open already
        path = decode(path)
        if isinstance(relative_to, int) and relative_to >= 0 and not isabs(path):
            try:
                base = readlink(f"/proc/self/fd/{relative_to}")
            except OSError:  # macOS has no such files, so nobody knows which folder this is
                return True
            path = join(base, path)
        there = realpath(path)
        return there not in (folder, devnull) and not there.startswith(folder + separator)

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if (flags or 0) & WRITING:
                left[0] -= 1
                if outside(path) or left[0] < 0:
                    raise PermissionError(f"code that a model wrote may not write to {path!r}")
        elif event in CHANGES:
            given = [*arguments, *[None] * 4]
            if any(outside(given[at], None if base is None else given[base]) for at, base in CHANGES[event]):
                raise PermissionError(f"code that a model wrote may not do {event} there")
        elif event == "socket.__new__" and arguments[1] == AF_UNIX:
            return
        elif event.startswith(REFUSED):
            raise PermissionError(f"code that a model wrote may not do {event}")

    return refuse


def _start_no_process(refuse: Callable[[str, tuple[Any, ...]], None]) -> None:
    """Refuse the only way to start a process that raises no audit event."""
    try:
        import _posixsubprocess as starter
    except ImportError:
        return

    def fork_exec(*arguments: Any) -> None:
        refuse("_posixsubprocess.fork_exec", arguments)

    starter.fork_exec = fork_exec  # type: ignore[assignment]


def _main_module() -> dict[str, Any]:
    """Return the namespace of a new `__main__` module, in which a program runs."""
    import types

    sys.argv = [""]
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    return vars(module)


def _test_holds(code: str, test: str, namespace: dict[str, Any]) -> bool:
    import builtins

    own = dict(vars(builtins))
    try:
        exec(compile(code, "<code>", "exec", dont_inherit=True), namespace)
        for name in vars(builtins).keys() - own.keys():
            del vars(builtins)[name]
        vars(builtins).update(own)  # undo what the code changed
        namespace["__builtins__"] = builtins
        asserts = compile(test, "<test>", "exec", dont_inherit=True)
        plain = {name: value for name, value in namespace.items() if name not in own or name.startswith("__")}
        if any(name in own and name not in plain for name in namespace.keys() & _names(asserts)):
            exec(asserts, plain)
        exec(asserts, namespace)
    except BaseException:  # SystemExit as well
        return False
    return True


def _names(code: Any) -> set[str]:
    """Return the names that compiled code uses, also in its functions."""
    return set(code.co_names).union(*(_names(one) for one in code.co_consts if hasattr(one, "co_names")))


if __name__ == "__main__":
    _main()
