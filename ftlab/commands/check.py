"""ftlab check: check what was handed in for an exercise."""

from __future__ import annotations

import argparse
from typing import Any

from ftlab import files
from ftlab.errors import BadInput
from ftlab.wording import printable


def add(commands: Any) -> None:
    """Add the command and its options to `commands`, the subparsers of the command line."""
    check = commands.add_parser("check", help="check what you handed in for an exercise")
    check.add_argument("level", metavar="LEVEL", help="level1, level2 or level3; or 1, 2 or 3")
    check.add_argument("--work", metavar="DIR", help="the folder that the notebook recorded into (default: work/LEVEL)")
    check.add_argument("--json", action="store_true", help="one JSON object on stdout")
    check.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Check the level that `options` name, and print the answer of each rule.

    Returns:
        The exit code: 0 if the level is done, 1 if something is to be corrected, 3 if nothing was handed in.

    Raises:
        BadInput: there is no such level, or the folder holds something else.
    """
    from ftlab.exercises import checker, exercise, manifest

    level = manifest.level(options.level)
    default = exercise.work_folder(level.name)
    folder, exists = files.named_path(options.work or str(default), "the folder that the notebook recorded into")
    if exists and not folder.is_dir():
        raise BadInput(
            f"{folder} is a file; give the folder that the notebook recorded into, such as work/{level.name}"
        )
    result = checker.check(level, folder)
    print(files.to_json(result.to_dict(), ascii_only=True) if options.json else printable(result))
    return result.exit_code
