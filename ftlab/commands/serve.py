"""ftlab serve: llama.cpp's own server with an exported model, on the loopback address."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from ftlab.wording import printable

PORT = 8080  # the one that llama.cpp's own command takes


def add(commands: Any) -> None:
    """Add the command and its options to `commands`, the subparsers of the command line."""
    serve = commands.add_parser("serve", help="serve an exported model with llama.cpp's server")
    serve.add_argument("file", type=Path, metavar="FILE.gguf", help="a file that `ftlab export` wrote")
    serve.add_argument("--port", type=int, default=PORT, metavar="N", help=f"on this machine only (default: {PORT})")
    serve.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="the most tokens of a prompt with its answer, rounded up to a multiple of 256 (default: 2048)",
    )
    serve.add_argument(
        "--slots", type=int, default=1, metavar="N", help="answer N requests at once; others wait (default: 1)"
    )
    serve.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: one for each core)")
    serve.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Serve the file until Ctrl-C or SIGTERM. Return the exit code.

    Raises:
        BadInput: the file cannot be served, the port is taken, or the extra `serve` is not installed.
    """
    from ftlab.serving.llama_cpp import NO_CHAT, Engine

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what `kill`, systemd and Docker send: as Ctrl-C
    with Engine(
        options.file, port=options.port, context=options.context, slots=options.slots, threads=options.threads
    ) as engine:
        print(
            f"{printable(options.file)} is served at {engine.address}/v1: greedy answers, a context of "
            f"{engine.context:,} tokens; Ctrl-C stops it",
            flush=True,
        )
        if not engine.has_chat_template:
            print(f"ftlab: {NO_CHAT}", file=sys.stderr)
        try:
            engine.wait()
        except KeyboardInterrupt:
            print("ftlab: stopped")
    return 0
