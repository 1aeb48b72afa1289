"""ftlab predict: label the texts of a file with a saved classifier."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.errors import BadInput
from ftlab.progress import bar
from ftlab.wording import printable

if TYPE_CHECKING:
    import torch


def add(commands: Any) -> None:
    """Add the command and its options to `commands`, the subparsers of the command line."""
    predict = commands.add_parser("predict", help="label the texts of a file with a saved classifier")
    predict.add_argument("model", help="a folder that lesson 02 saved, or a hub id")
    predict.add_argument(
        "file", nargs="?", default="-", help="CSV, TSV, JSONL or .txt (default: one text a line on stdin)"
    )
    predict.add_argument("--text", default="text", metavar="COL", help="the column of the texts (default: text)")
    predict.add_argument("--out", type=Path, help="a CSV, TSV or JSONL file (default: JSONL on stdout)")
    predict.add_argument("--max-length", type=int, metavar="N", help="in tokens (default: as the model was trained)")
    predict.add_argument(
        "--unsure-below", type=float, default=0.0, metavar="P", help="print unsure where no label has this probability"
    )
    predict.add_argument(
        "--half",
        action="store_true",
        help="half precision where this machine computes in it: faster, and slightly less exact",
    )
    predict.add_argument("--json", action="store_true", help="one JSON object on stdout about what was written to OUT")
    predict.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write each row with its label, to a file or to stdout, as the `options` ask. Return the exit code.

    Raises:
        BadInput: --json without --out, or a file or a model that cannot be used.
    """
    from collections import Counter

    from ftlab.data import streams

    if options.json and not options.out:
        raise BadInput("--json describes what was written to a file; name the file with --out")
    if options.out:
        options.out = files.named_path(str(options.out), "a file of another name")[0]  # a shell leaves --out=~ as it is
        read = options.file
        if read != streams.STDIN:
            read = str(files.named_path(read, "the path of a file")[0])
        streams.require_writable(options.out, read)
    parts = streams.chunks(options.file, options.text, advice="name the column of the texts with --text")
    first = next(parts)  # a file that cannot be read is reported before a model is loaded
    from ftlab.inference import UNSURE, Classifier

    classifier = Classifier(options.model, max_length=options.max_length, dtype=_half() if options.half else None)
    labels: Counter[str] = Counter()
    rows = unlabelled = formulas = 0
    with streams.writer(options.out) as write, bar("predicting", unit="rows") as progress:
        for answered in classifier.label_rows(
            itertools.chain([first], parts), options.text, unsure_below=options.unsure_below
        ):
            write(answered)
            labels.update(answered["prediction"].dropna())
            rows += len(answered)
            progress.update(len(answered))
            unlabelled += int(answered["prediction"].isna().sum())
            formulas += streams.formulas(answered) if options.out and options.out.suffix.lower() != ".jsonl" else 0
    if unlabelled:
        print(f"ftlab: {unlabelled:,} of {rows:,} rows have no text, so they get no label", file=sys.stderr)
    if formulas:
        print(
            f"ftlab: {formulas:,} values begin as a formula does (=, +, -, @), which a spreadsheet may take for "
            "one; import the columns as text, or write a .jsonl",
            file=sys.stderr,
        )
    names = [*classifier.labels, *([UNSURE] if options.unsure_below else [])]
    if options.json:
        counts = {name: labels[name] for name in names}
        said = {"rows": rows, "without_text": unlabelled, "labels": counts, "out": str(options.out)}
        print(files.to_json(said, ascii_only=True))
    elif options.out:
        counted = ", ".join(f"{name} {labels[name]:,}" for name in names)
        print(printable(f"{rows:,} rows: {counted}; {options.out}"))
    return 0


def _half() -> torch.dtype | None:
    """Return half precision if this machine computes in it, else None, with a message to the user."""
    import torch

    from ftlab.models import devices

    if (dtype := devices.answer_dtype()) != torch.float32:
        return dtype
    print("ftlab: half precision is no faster on this machine, so --half changes nothing", file=sys.stderr)
    return None
