"""ftlab bench: run a benchmark of the course, and print its result."""

from __future__ import annotations

import argparse
from typing import Any

from ftlab import files


def add(commands: Any) -> None:
    """Add the command and its options to `commands`, the subparsers of the command line."""
    bench = commands.add_parser("bench", help="run a benchmark of the course, and print its result")
    bench.add_argument("name", help="name of a module in benchmarks/")
    bench.add_argument("--json", action="store_true", help="one JSON object on stdout")
    bench.add_argument("--save", action="store_true", help="store the result in benchmarks/results/")
    bench.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Run the benchmark that `options` name, and print its result. Return the exit code."""
    from ftlab.course import bench

    result = bench.run(options.name, save=options.save)
    shown = result if options.json else result["result"]
    print(files.to_json(shown, indent=None if options.json else 2, ascii_only=True))
    return 0
