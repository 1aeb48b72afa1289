"""Run a command, and count each attempt of it and of its children to talk to another machine.

    python -m tests.network_log [--strace] COMMAND ...

Two counters, which see different things. In each Python process an audit hook (https://peps.python.org/pep-0578/) sees
`connect`, `sendto` and each name that is looked up: it comes in as `sitecustomize`, by PYTHONPATH, so kernels, servers
and converters have it too. With --strace the kernel of the system is watched as well: there a library in C or Rust
cannot hide. What stays on the machine (the loopback interface, sockets in folders) is not counted, a question to a name
server is, wherever that runs.

The attempts are printed, and the exit code is that of the command, or 1 if there was an attempt.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = "NETWORK_LOG"  # in the environment: where each process writes what it tried
STRACE = shutil.which("strace")
NAMES = 53  # the port of name servers

# It has no import from here: it runs in each child, before anything else, wherever that child's path leads.
HOOK = """
import os
import sys


def _note_what_is_tried():
    folder, busy = os.environ["NETWORK_LOG"], []

    def note(event, arguments):
        if event not in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
                         "socket.gethostbyname", "socket.gethostbyaddr"):
            return
        tried = arguments[-1] if event.startswith(("socket.connect", "socket.send")) else arguments[0]
        if busy or tried is None or isinstance(tried, int):
            return
        busy.append(event)
        try:
            if isinstance(tried, tuple):
                tried = f"{tried[0]} {tried[1]}"
            elif event.startswith(("socket.connect", "socket.send")):
                tried = "unix"
            with open(os.path.join(folder, str(os.getpid())), "a", encoding="utf-8") as log:
                log.write(f"{event} {tried!r}\\n")
        finally:
            busy.pop()

    with open(os.path.join(folder, str(os.getpid())), "a", encoding="utf-8") as log:
        log.write(f"began {' '.join(sys.orig_argv)[:200]!r}\\n")
    sys.addaudithook(note)


_note_what_is_tried()
"""


class Seen:
    """What a command did. `processes` counts those that had the hook; `local` what stayed; `attempts` what did not."""

    def __init__(self, code: int, output: str, lines: Sequence[str], traced: Sequence[str]) -> None:
        self.code = code
        self.output = output
        self.processes = sum(line.startswith("began ") for line in lines)
        tried = [line for line in lines if not line.startswith("began ")]
        by_system = [found for found in map(_address, traced) if found]
        self.attempts = [line for line in tried if leaves(*_of_hook(line))]
        self.attempts += [f"by the system: {address} {port}" for address, port in by_system if leaves(address, port)]
        self.local = len(tried) + len(by_system) - len(self.attempts)

    def __str__(self) -> str:
        counted = f"{len(self.attempts)} attempts to leave the machine, {self.local} that stayed on it"
        return "\n".join([f"{self.processes} Python processes: {counted}", *self.attempts])


def leaves(address: str, port: int = 0) -> bool:
    """Whether what goes to `address` and `port` leaves the machine, or asks a name server on behalf of who does.

    >>> leaves("127.0.0.1", 8080), leaves("localhost"), leaves("unix"), leaves("192.0.2.1"), leaves("127.0.0.53", 53)
    (False, False, False, True, True)
    """
    try:
        return port == NAMES or not ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:  # a name
        return address not in ("localhost", "unix", "")


def watched(command: Sequence[str], *, environment: Mapping[str, str] = os.environ, strace: bool = False) -> Seen:
    """Run `command` under the counters, and return what was seen."""
    with tempfile.TemporaryDirectory(prefix="network-") as name:
        folder = Path(name)
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
        (folder / "log").mkdir()
        path = os.pathsep.join(filter(None, (str(folder / "hook"), environment.get("PYTHONPATH"))))
        given = {**environment, "PYTHONPATH": path, FOLDER: str(folder / "log")}
        if strace:
            calls = "trace=connect,sendto,sendmsg,sendmmsg"
            told = ["-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e", calls, "-o", str(folder / "calls")]
            command = [str(STRACE), *told, *command]
        done = subprocess.run(
            command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            check=False,
        )  # fmt: skip
        lines = [
            line for log in sorted((folder / "log").iterdir()) for line in log.read_text(encoding="utf-8").splitlines()
        ]
        calls_made = (folder / "calls").read_text(errors="replace", encoding="utf-8").splitlines() if strace else []
    return Seen(done.returncode, done.stdout, lines, calls_made)


def _of_hook(line: str) -> tuple[str, int]:
    address, _, port = line.partition(" ")[2].strip("'\"").partition(" ")
    return address.removeprefix("b'"), int(port) if port.isdigit() else 0


def _address(call: str) -> tuple[str, int] | None:
    """The address and the port in a line of strace; None for a socket of another family."""
    if "AF_INET" not in call:
        return None
    address = re.search(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', call)
    port = re.search(r"port=htons\((\d+)\)", call)
    return (address[1] or address[2], int(port[1]) if port else 0) if address else None


def main() -> int:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strace", action="store_true", help="watch the system's calls as well")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.strace and STRACE is None:
        parser.error("there is no strace on this machine; leave --strace out")
    seen = watched(options.command, strace=options.strace)
    print(seen.output, seen, sep="\n", flush=True)
    return seen.code or int(bool(seen.attempts))


if __name__ == "__main__":
    sys.exit(main())
