"""ftlab doctor: check this machine, and print what to do."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ftlab import files
from ftlab.wording import printable


def add(commands: Any) -> None:
    """Add the command and its options to `commands`, the subparsers of the command line."""
    doctor = commands.add_parser("doctor", help="check this machine, and print what to do")
    doctor.add_argument("--json", action="store_true", help="one JSON object on stdout")
    doctor.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the checks as the `options` ask. Return the exit code: 1 if a check does not pass."""
    from ftlab.course import doctor

    checks = doctor.examine()
    ok = all(check.ok for check in checks)
    if options.json:
        print(files.to_json({"ok": ok, "checks": [asdict(check) for check in checks]}, ascii_only=True))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{'OK  ' if check.ok else 'LOOK'}  {check.name:<{width}}  {printable(check.found)}")
            if not check.ok:
                print(f"      {'':<{width}}  -> {printable(check.todo)}")
    return 0 if ok else 1
