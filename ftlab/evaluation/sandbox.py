"""Run Python that a language model wrote, in a process that can do little: what it prints, or whether its test holds.

The process is new for each piece of code and has the standard library alone. It sees an empty folder and an empty
environment, and has bounds on time, memory, open files and the size of a file. It has no network, starts no other
process, and changes no file outside its folder. This file is also the program of that process, so it imports nothing
that takes time.

It protects from accidents of generated code: a loop without end, a full memory, a file removed by mistake. It is no
prison. On Linux the kernel takes the network away, where it permits that; all other refusals are Python's own audit
events (PEP 578), which code that is written to break out gets around. Do not run a model that you do not trust. Without
the `resource` module (Windows) memory has no bound; macOS does not keep that bound.
"""

from __future__ import annotations

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
# The standard library alone, no bytecode written. The environment is ours, so that its hash seed can be fixed.
FLAGS = ("-P", "-s", "-S", "-B", "-X", "utf8")
ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # the same order of a set, and so the same verdict, each time

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # Linux: CLONE_NEWUSER, CLONE_NEWNET
REFUSED = (
    "_posixsubprocess.", "_winapi.", "ctypes.", "ftplib.", "http.", "imaplib.", "nntplib.", "os.exec", "os.fork",
    "os.kill", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "poplib.", "pty.", "resource.prlimit",
    "resource.setrlimit", "signal.pthread_kill", "smtplib.", "socket.", "sqlite3.enable_load_extension", "subprocess.",
    "syslog.", "telnetlib.", "urllib.", "webbrowser.", "winreg.",
)  # fmt: skip
# The audit events of what changes files: where in their arguments a path stands, and the folder that it is relative to.
ALONE = ((0, None),)
CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.chflags": ALONE, "os.chmod": ((0, 2),), "os.chown": ((0, 3),), "os.link": ((0, 2), (1, 3)),
    "os.mkdir": ((0, 2),), "os.remove": ((0, 1),), "os.removexattr": ALONE, "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),), "os.setxattr": ALONE, "os.symlink": ((1, 2),), "os.truncate": ALONE, "os.utime": ((0, 3),),
    "shutil.rmtree": ALONE, "sqlite3.connect": ALONE,
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
AF_UNIX = 1  # a pair of such sockets wakes an asyncio loop and leads nowhere else


def holds(code: str, test: str, *, seconds: float = SECONDS) -> bool:
    """Whether `code` runs to its end within so many seconds, and after it `test`, its asserts.

    Code that leaves before them, by `sys.exit()` or otherwise, has not passed. Where it gives one of Python's builtins
    another meaning, the test must hold with Python's own as well.
    """
    ticket = os.urandom(16)
    return _run({"code": code, "test": test, "ticket": ticket}, seconds)[0] == ticket


def printed(code: str, *, seconds: float = SECONDS) -> str | None:
    """What `code` prints; None if it fails, takes too long or prints more than a megabyte."""
    return _run({"code": code, "test": None, "ticket": b""}, seconds)[1]


def _run(job: dict[str, Any], seconds: float) -> tuple[bytes, str | None]:
    """What the process said to the job, and what the code printed if the process came to a good end."""
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
        kept = {key: os.environ[key] for key in ("SYSTEMROOT",) if key in os.environ}  # Windows starts none without
        with subprocess.Popen(
            [sys.executable, *FLAGS, __file__], cwd=inside, env=ENVIRONMENT | kept, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            clock = threading.Timer(seconds, _kill, [process])
            clock.start()
            try:
                with contextlib.suppress(OSError):  # it may have gone already
                    process.stdin.write(marshal.dumps(job))
                    process.stdin.close()
                said = process.stdout.read(len(job["ticket"]) + 1)
                well = process.wait() == 0 if job["test"] is None else False
            finally:
                clock.cancel()
                _kill(process)
        text = output.read_bytes().decode("utf-8", "replace") if well else None
    return said, text


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it may have started, unless somebody has seen it end."""
    import contextlib
    import signal

    if process.returncode is not None:
        return  # its number may be another's by now
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
        else:
            process.kill()


def _main() -> None:
    """What the process does: read the job, give up what the code shall not have, run it, and say how it went."""
    job = marshal.loads(sys.stdin.buffer.read())
    answer = os.dup(1)
    _redirect(job["output"])
    for name in [*ENVIRONMENT, "LC_CTYPE"]:  # Python itself sets the second
        os.environ.pop(name, None)
    _limit(job["seconds"])
    _leave_the_network()
    if "random" in job["code"]:
        import random

        random.seed(0)  # unseeded draws would give another verdict each time
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
    """Nothing to read, and what is printed goes to a file, whose size is bounded, and not to whoever listens."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)


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
        except (AttributeError, OSError, ValueError):  # not every system has, and keeps, each of them
            continue


def _leave_the_network() -> None:
    """Go into a network that has nothing in it, and give up a superuser's rights, where the kernel permits that."""
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
    """An audit hook that refuses what would reach out of the process or of `folder`."""
    realpath, separator, devnull = os.path.realpath, os.sep, os.path.realpath(os.devnull)
    decode, join, readlink, left = os.fsdecode, os.path.join, os.readlink, [WRITTEN_FILES]

    def outside(path: Any, relative_to: Any = None) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False  # a file descriptor, which is open already
        path = decode(path)
        if isinstance(relative_to, int) and relative_to >= 0:
            try:
                base = readlink(f"/proc/self/fd/{relative_to}")
            except OSError:  # macOS has no such files
                base = ""
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
    """The one way to start a process of which Python tells no audit hook."""
    try:
        import _posixsubprocess as starter
    except ImportError:
        return

    def fork_exec(*arguments: Any) -> None:
        refuse("_posixsubprocess.fork_exec", arguments)

    starter.fork_exec = fork_exec  # type: ignore[assignment]


def _main_module() -> dict[str, Any]:
    """The namespace of a fresh `__main__`, as code expects that is run as a program."""
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
        vars(builtins).update(own)  # what the code has changed in there
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
    """The names that compiled code uses, in its functions too."""
    return set(code.co_names).union(*(_names(one) for one in code.co_consts if hasattr(one, "co_names")))


if __name__ == "__main__":
    _main()
