"""The command line: it parses the options, runs a command of `ftlab.commands`, and prints an error in one sentence.

Exit code 0: success. 1: a check did not pass. 2: wrong input. 3: an exercise was not started. 141: whoever read the
output closed it before its end.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ftlab import __version__, files
from ftlab.commands import audit, bench, check, doctor, export, fetch, generate, merge, predict, run, serve, train
from ftlab.errors import BadInput, CourseError
from ftlab.progress import quiet
from ftlab.wording import printable

CLOSED_PIPE = 141  # 128 and the number of SIGPIPE: what a shell says of any program whose reader went away


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # argparse reads -5 as a value, and -2e-5 as an unknown option (until Python 3.14).
        self._negative_number_matcher = re.compile(r"^-\.?\d")

    def error(self, message: str) -> NoReturn:
        """Exit with one line, without the usage that argparse prints before it."""
        self.exit(2, f"ftlab: {printable(message)}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (by default those of the process), and return the exit code."""
    _write_any_letter()
    options = _parser().parse_args(arguments)
    quiet()
    try:
        code = options.command(options)
        sys.stdout.flush()  # here, where an error can be told
        return code
    except CourseError as problem:
        print(f"ftlab: {problem}", file=sys.stderr)
        return problem.exit_code
    except BrokenPipeError:  # the reader, `head` for example, has closed the pipe
        _discard_output()
        return CLOSED_PIPE
    except OSError as problem:
        if not files.says_disk_is_full(problem):
            raise
        _discard_output()
        print(f"ftlab: {files.explain(problem, Path('the output'))}", file=sys.stderr)
        return BadInput.exit_code
    except KeyboardInterrupt:
        print("ftlab: stopped", file=sys.stderr)
        return 130


def _discard_output() -> None:
    """Send what is left of the output nowhere, so that Python does not try to write it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_any_letter() -> None:
    """Let what is printed have letters that the output lacks: they stand there as escapes, and no command fails.

    On Windows a pipe or a file has the code page of the system, without ✓ and most of the world's letters. Everywhere
    the name of a file may be no text at all.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ftlab", description="A course on fine-tuning language models.")
    parser.add_argument("--version", action="version", version=f"ftlab {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for command in (doctor, fetch, audit, predict, generate, merge, export, serve, run, train, check, bench):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
