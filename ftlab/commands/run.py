"""ftlab run: run lessons from start to end, without Jupyter."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.errors import BadInput
from ftlab.wording import printable

# YAML 1.1 reads 010 as 8, in base 8, and 1:30 as 90, in base 60.
_OTHER_BASE = re.compile(r"[-+]?0[0-9_]+|.*:.*")


def add(commands: Any) -> None:
    """Add the command and its options to `commands`, the subparsers of the command line."""
    parser = commands.add_parser("run", help="run lessons from start to end, without Jupyter")
    parser.add_argument("lesson", nargs="*", help="number or name of a lesson (default: all lessons)")
    add_parameters(parser)
    parser.set_defaults(command=run)


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """Add to `parser` the options of what runs with a lesson's parameters."""
    parser.add_argument("--profile", default="cpu", help="smoke, cpu (default) or gpu")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="set a parameter of the lesson; text is taken as it is, other values are read as YAML",
    )  # fmt: skip
    parser.add_argument("-y", "--yaml", action="append", default=[], help="set parameters by YAML: 'rows: 400'")
    parser.add_argument("-f", "--file", action="append", default=[], type=Path, help="set parameters from a YAML file")
    parser.add_argument("--out", type=Path, help="folder of the results (default: runs/<time>-<profile>)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(options: argparse.Namespace) -> int:
    """Run the lessons that `options` name, and print their results. Return the exit code."""
    from ftlab.course import expected_time, ledger, profiles, runner
    from ftlab.course.notebooks import lessons as find

    given = read_parameters(options)
    profile = str(given.pop("profile", options.profile))
    # A time was measured for a profile's own values alone; those are never refused, so this may come first.
    if not (options.json or given) and profile in profiles.PROFILES:
        before = expected_time.before_lessons if options.lesson else expected_time.before_the_course
        for line in before(find(options.lesson), profile):
            print(line, file=sys.stderr, flush=True)
        expected = [each.number for each in find(options.lesson) if _claims_are_expected(each.slug, profile)]
        if expected:
            said = f"the claims of profile {profile} are {ledger.NOT_MEASURED}, and stop no lesson"
            print(f"ftlab: {said} (lessons {', '.join(expected)})", file=sys.stderr, flush=True)
    folder, results = runner.run(
        options.lesson, profile=profile, parameters=given, out=options.out, watch=not options.json
    )
    claims = ledger.rows(ledger.read(folder))
    if options.json:
        lessons = [
            {
                "lesson": result.lesson,
                "seconds": round(result.seconds, 1),
                "peak_memory_mb": result.peak_memory_mb,
                "headline": result.headline,
                "metrics": result.metrics["metrics"],
                "claims": result.metrics["claims"],
                "notebook": str(result.notebook),
            }
            for result in results
        ]
        counts = ledger.counts(claims)
        whole = {"folder": str(folder), "profile": profile, "lessons": lessons, "claims": counts}
        print(files.to_json(whole, ascii_only=True))
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("lesson", "minutes", "memory", "result", title=f"profile {profile}")
    for result in results:
        memory = f"{result.peak_memory_mb / 1000:.1f} GB"
        table.add_row(result.lesson, f"{result.seconds / 60:.1f}", memory, Text(printable(result.headline)))
    Console().print(table)
    print(f"notebooks, metrics and records: {printable(folder)}")
    if claims:
        print(f"{ledger.summary(claims)} -> {printable(folder / ledger.FILE)}")
    return 0


def _claims_are_expected(lesson: str, profile: str) -> bool:
    from ftlab.course import profiles

    return profiles.resolve(lesson, profile).claims_are_expected


def read_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters of -f, -y and -p in `options`, in this order; the last one wins.

    A parameter of type str keeps its text, even if YAML reads it as another type: a column may have the name 1 or yes.
    With -p nothing in it is a sign of YAML, such as a # before a comment, but for quotes around all of it.

    Raises:
        BadInput: a file cannot be read, or is not YAML of names and values; or a value of -p is empty.
    """
    import yaml

    from ftlab.course.profiles import PARAMETERS

    kinds = {name: parameter.kind for name, parameter in PARAMETERS.items()}

    def typed(name: str, value: Any, written: Any) -> Any:
        if not isinstance(written, str) or value is None:
            return value
        is_number = kinds.get(name) in (int, float)
        return written if kinds.get(name) is str or (is_number and _OTHER_BASE.fullmatch(written)) else value

    def from_command(name: str, text: str) -> Any:
        if not text.strip():
            raise BadInput(f"the value of {name} is empty; leave -p {name} out for the profile's own value")
        if kinds.get(name) is str and text[0] + text[-1] not in ("''", '""'):
            return None if text in ("~", "null") else text
        try:
            return typed(name, yaml.safe_load(text), yaml.load(text, yaml.BaseLoader))
        except (yaml.YAMLError, ValueError, RecursionError):
            return text  # such as 'it's

    def mapping(text: str, where: str) -> dict[str, Any]:
        try:
            loaded, written = yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as problem:  # 2024-13-45 is no date: a ValueError
            raise BadInput(
                f"{where} is not YAML ({' '.join(str(problem).split())}); expected 'name: value'"
            ) from problem
        if not isinstance(loaded, dict):
            raise BadInput(f"{where} is {text.strip()[:60]!r}; expected 'name: value'")
        return {name: typed(name, value, written.get(name)) for name, value in loaded.items()}

    parameters: dict[str, Any] = {}
    for name in options.file:
        path, _ = files.named_path(str(name), "the path of a YAML file")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise BadInput(f"the parameter file {path} cannot be read ({problem}); expected a YAML file") from problem
        parameters |= mapping(text, f"the parameter file {path}")
    for text in options.yaml:
        parameters |= mapping(text, "--yaml")
    for name, value in options.parameter:
        parameters[name] = from_command(name, value)
    return parameters
