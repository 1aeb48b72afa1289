"""Several processes of one training, started as a launcher does it, as forks of one warm process: torch is read once.

`Ranks` starts `python -m tests.distributed.ranks`. A task names commands of ftlab; each process runs them in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
FSDP = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true", "FSDP_SYNC_MODULE_STATES": "true",
}  # fmt: skip
LONGEST = 300.0  # seconds


@dataclass(frozen=True)
class Rank:
    """How a process ended: its exit code (negative: the signal), and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        """The sentences for the user."""
        return [
            line.removeprefix("ftlab: ")
            for line in self.err.splitlines()
            if line.startswith("ftlab: ") and not line.endswith("...")
        ]


class Ranks:
    """The warm process. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.distributed.ranks"], cwd=REPOSITORY, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(
        self,
        *commands: Sequence[Any],
        processes: int = 2,
        environment: dict[str, str] | None = None,
        folders: Sequence[Path] | None = None,
        kill_when: str | None = None,
    ) -> list[Rank]:
        """Run `commands` of ftlab in each of the `processes`, and return how they ended.

        Args:
            commands: the arguments of each.
            processes: their number.
            environment: more variables (FSDP).
            folders: the working directory of each process.
            kill_when: a pattern of a file; as soon as there is one, the last process is killed, and then the others.
        """
        self._number += 1
        task = {
            "commands": [list(map(str, command)) for command in commands], "processes": processes,
            "environment": environment or {}, "said": str(self._folder / f"said-{self._number}"),
            "folders": [str(folder) for folder in folders or [self._folder] * processes], "kill_when": kill_when,
        }  # fmt: skip
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(task), file=self._process.stdin, flush=True)
        return [Rank(**one) for one in json.loads(self._process.stdout.readline())]


def _serve() -> None:
    import peft  # noqa: F401
    import trl  # noqa: F401
    from accelerate import Accelerator  # noqa: F401
    from transformers import Trainer  # noqa: F401

    from ftlab.course import trainings  # noqa: F401
    from ftlab.training import classification, distributed, instruction, sft  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


def _run(task: dict[str, Any]) -> list[dict[str, Any]]:
    said = Path(task["said"])
    said.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(task["processes"]):
        child = os.fork()
        if not child:
            _be(rank, port, task, said)
        children.append(child)
    codes = _wait(children, task["kill_when"])
    return [
        {"code": code, **{name: (said / f"{rank}.{name}").read_text(encoding="utf-8") for name in ("out", "err")}}
        for rank, code in enumerate(codes)
    ]


def _be(rank: int, port: int, task: dict[str, Any], said: Path) -> None:
    """Be the process `rank`; this does not return."""
    code = 1
    try:
        for number, name in ((0, os.devnull), (1, said / f"{rank}.out"), (2, said / f"{rank}.err")):
            opened = os.open(name, os.O_RDWR | os.O_CREAT)
            os.dup2(opened, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", buffering=1) for number in (1, 2))
        os.environ.update(task["environment"])
        if task["processes"] > 1:
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(task["processes"]),
                LOCAL_WORLD_SIZE=str(task["processes"]), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
            )  # fmt: skip
        os.chdir(task["folders"][rank])
        from ftlab import cli

        before = dict(os.environ)
        for command in task["commands"]:
            os.environ.clear()
            os.environ.update(before)  # each is a process of its own
            with contextlib.suppress(SystemExit):
                if code := cli.main(command):
                    break
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(children: list[int], kill_when: str | None) -> list[int]:
    """Wait until all have ended; as a launcher does, end the others if one fails."""
    codes: dict[int, int] = {}
    end = time.monotonic() + LONGEST
    while len(codes) < len(children):
        if kill_when and any(Path("/").glob(kill_when.lstrip("/"))):
            kill_when = None
            os.kill(children[-1], signal.SIGKILL)
        for child in children:
            if child not in codes and (ended := os.waitpid(child, os.WNOHANG))[0]:
                codes[child] = os.waitstatus_to_exitcode(ended[1])
        failed = any(codes.values()) or time.monotonic() > end
        if failed:
            time.sleep(1)  # each may still tell its reason
            for child in children:
                if child not in codes:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGTERM)
        time.sleep(0.02)
    return [codes[child] for child in children]


if __name__ == "__main__":
    _serve()
