"""ftlab merge: merge an adapter into its base, and keep the result only if its certificate passes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.errors import BadInput
from ftlab.wording import printable

COLUMN = "prompt"  # of a file with texts to compare on
PASSAGES, WORDS = 12, 24  # of the course's general text, which no adapter of the course was trained on


def add(commands: Any) -> None:
    """Add the command and its options to `commands`, the subparsers of the command line."""
    merge = commands.add_parser("merge", help="merge a LoRA adapter into its base, and certify the result")
    merge.add_argument("base", help="the model that the adapter was trained on: a folder, or a model of the course")
    merge.add_argument("adapter", type=Path, help="the folder of the adapter")
    merge.add_argument("out", type=Path, help="a new folder for the merged model")
    add_comparison(merge)
    merge.add_argument("--json", action="store_true", help="one JSON object on stdout")
    merge.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Merge, measure and print the certificate, as the `options` ask. Return the exit code.

    If the certificate does not pass, nothing is kept.
    """
    from ftlab.adapters import lora
    from ftlab.inference.generator import require_language_model
    from ftlab.merging import certificate
    from ftlab.models import loading

    options.adapter = files.named_path(str(options.adapter), "the folder of an adapter")[0]
    options.out = files.named_path(str(options.out), "another folder for the merged model")[0]
    require_language_model(options.base)
    texts = comparison_texts(options.prompts, options.prompt)
    if options.record_base:
        lora.record_fitting_base(options.adapter, options.base)
    found = certificate.merge_with_certificate(loading.folder(options.base), options.adapter, options.out, texts)
    if options.json:
        print(files.to_json({"out": str(options.out), **found.record()}, ascii_only=True))
    else:
        print(printable(found.markdown()))
        print(printable(f"the merged model: {options.out}; its certificate: {options.out / certificate.RECORD}"))
    return 0


def add_comparison(command: argparse.ArgumentParser) -> None:
    """Add the options of a `command` that compares models: on which texts, and what to record of an adapter's base."""
    command.add_argument(
        "--prompts", metavar="FILE",
        help="texts to compare on: CSV, TSV, JSONL or .txt (default: short passages of the course)",
    )  # fmt: skip
    command.add_argument("--prompt", metavar="COL", help="the column of these texts (default: prompt)")
    command.add_argument(
        "--record-base", action="store_true", help="record this model as the base, in the adapter's folder"
    )


def comparison_texts(file: str | None, column: str | None) -> list[str]:
    """Return the texts to compare models on: those in the `column` of `file`, or passages of the course without one.

    Raises BadInput for a column without a file, and for a file that cannot be read.
    """
    from ftlab.data import streams
    from ftlab.evaluation import forgetting

    if not file:
        if column is not None:
            raise BadInput("--prompt names a column of the file in --prompts; give that file, or leave --prompt out")
        return [" ".join(passage.split()[:WORDS]) for passage in forgetting.general_passages()[:PASSAGES]]
    column = column or COLUMN
    parts = list(streams.chunks(file, column, advice="name the column of the texts with --prompt"))
    return [text for part in parts for text in streams.texts(part, column)]
