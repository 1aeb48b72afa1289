"""ftlab train: the training of a lesson as a command, also in several processes by `accelerate launch`."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.commands.run import add_parameters, read_parameters
from ftlab.errors import BadInput, CourseError
from ftlab.wording import printable

WHAT = {
    "classify": "lesson 02: a classifier",
    "instruct": "lesson 04: instructions, in full",
    "lora": "lesson 05: LoRA",
}
REPORTS = ("none", "trackio", "tensorboard", "wandb", "mlflow")
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # set by the launcher, which prints the reason in this file at its end


def add(commands: Any) -> None:
    """Add the command and its options to `commands`, the subparsers of the command line."""
    parser = commands.add_parser("train", help="train as a lesson does, also under accelerate launch")
    parser.add_argument("what", choices=WHAT, help="; ".join(f"{name} ({lesson})" for name, lesson in WHAT.items()))
    add_parameters(parser)
    parser.add_argument("--data", metavar="FILE", help="your own rows: the parameter dataset, or task")
    parser.add_argument(
        "--stream", action="store_true", help="classify: a file larger than memory, read while it trains"
    )
    parser.add_argument("--max-steps", type=_steps, default=0, metavar="N", help="optimizer steps, whatever the epochs")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints in --out")
    parser.add_argument("--report-to", choices=REPORTS, default="none", help="where Trainer reports, too")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Train as `options` say, and print the result in the main process. Return the exit code."""
    from ftlab.models import processes

    try:
        return _run(options)
    except CourseError as problem:
        _tell_the_launcher(problem)
        if not processes.is_main():
            return problem.exit_code  # the main process prints it, or the launcher
        raise


def _run(options: argparse.Namespace) -> int:
    from ftlab.course import profiles, trainings
    from ftlab.course.lesson import slug_of
    from ftlab.models import processes

    given = read_parameters(options)
    profile = str(given.pop("profile", options.profile))
    if options.data is not None:
        rows = profiles.rows_from(slug_of(trainings.LESSONS[options.what]))
        if rows in given:
            raise BadInput(f"--data is {options.data!r}, and {rows} is set, too; give the rows once")
        given[rows] = options.data
    resumes = profiles.PARAMETERS["resume"].parse("resume", given.pop("resume", False))
    chosen = trainings.Options(
        max_steps=options.max_steps, report_to=options.report_to, stream=options.stream,
        resume=resumes or options.resume,
        show_progress=processes.is_main() and not options.json,
    )  # fmt: skip
    with redirect_stdout(sys.stderr):  # a note on the rows, for example: stdout is for the result
        done = trainings.train(options.what, profile, given, chosen, options.out)
    if not processes.is_main():
        return 0
    if options.json:
        whole = {
            "folder": str(done.folder), "profile": profile, "processes": processes.count(),
            "headline": done.headline, "metrics": done.metrics["metrics"],
        }  # fmt: skip
        print(files.to_json(whole, ascii_only=True))
        return 0
    print(printable(done.headline))
    print(f"model, metrics and records: {printable(done.folder)}")
    return 0


def _tell_the_launcher(problem: CourseError) -> None:
    if place := os.environ.get(ERROR_FILE):
        files.write_json(Path(place), {"message": {"message": str(problem), "extraInfo": {"timestamp": "0"}}})


def _steps(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of steps; expected a whole number from 1")
    return int(text)
