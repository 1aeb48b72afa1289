"""ftlab audit: find what is wrong with the rows of a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.errors import BadInput


def add(commands: Any) -> None:
    """Add the command and its options to `commands`, the subparsers of the command line."""
    audit = commands.add_parser("audit", help="find what is wrong with the rows of a file")
    audit.add_argument(
        "file",
        help=(
            "training rows: a CSV, TSV, JSONL or Parquet file, a data set of the course, or one of the model hub "
            "(owner/name, owner/name:configuration, owner/name@revision)"
        ),
    )
    both = "rows, to find texts that are in both files; of a data set of the hub its split of this name is read"
    audit.add_argument("--validation", metavar="FILE", help=f"validation {both}")
    audit.add_argument("--test", metavar="FILE", help=f"test {both}")
    found = "; of a data set of the hub: the one that is found"
    audit.add_argument("--text", metavar="COL", help=f"the column of the texts (default: text{found})")
    audit.add_argument("--label", metavar="COL", help=f"the column of the labels (default: label{found})")
    audit.add_argument(
        "--prompt",
        nargs="+",
        metavar="COL",
        help=(
            "instruction data: the columns of the prompt; tokens are counted in the course's template, with the column "
            "called instruction (or else the first) as the instruction, and the others as its input"
        ),
    )
    audit.add_argument("--completion", metavar="COL", help="instruction data: the column of the answer")
    audit.add_argument(
        "--messages",
        nargs="?",
        const="",
        type=_column,
        metavar="COL",
        help=(
            "conversations: the column of their turns, each with role and content, or from and value (default: "
            "messages, conversations or conversation); tokens are counted in the tokenizer's chat template"
        ),
    )
    audit.add_argument(
        "--tokenizer", metavar="NAME",
        help="to count tokens: a model of the course, a folder, or a hub id (no weights are downloaded)",
    )  # fmt: skip
    audit.add_argument("--max-length", type=int, metavar="N", help="in tokens; reports what is truncated, and its cost")
    audit.add_argument("--json", action="store_true", help="one JSON object on stdout, with the ids of all rows")
    audit.add_argument("--html", type=Path, metavar="OUT", help="write the report as a web page")
    audit.add_argument(
        "--fail-on", choices=("error", "warning"), help="exit with 1 on a finding of this severity or worse"
    )
    audit.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Audit the rows as the `options` ask, and print the report.

    Returns:
        The exit code: 1 if there is a finding as severe as --fail-on.

    Raises:
        BadInput: options that do not go together, or a file that cannot be read.
    """
    from functools import partial

    from ftlab.data import sources
    from ftlab.data.audit import audit, audit_instructions
    from ftlab.models import loading

    _require_one_kind(options)
    if bool(options.prompt) != bool(options.completion):
        raise BadInput("instruction data needs both --prompt and --completion; rows with labels need neither")
    if options.max_length is not None and options.max_length < 8:
        raise BadInput(f"--max-length is {options.max_length}; expected at least 8 tokens")
    if options.max_length is not None and not options.tokenizer:
        raise BadInput("--max-length counts tokens: name the tokenizer that counts them with --tokenizer")
    if options.tokenizer:
        loading.check_tokenizer(options.tokenizer)
    if options.file in sources.SOURCES and (options.text or "text", options.label or "label") != ("text", "label"):
        raise BadInput(
            f"{options.file} is a data set of the course, and its columns are text and label; leave --text and --label "
            "out"
        )
    examine: Any = audit
    columns = {"text_column": options.text, "label_column": options.label}
    read: Any = partial(
        sources.read,
        **columns,
        advice="name the right ones with --text and --label, or with --prompt and --completion for instruction data",
    )
    if options.prompt:
        examine = audit_instructions
        columns = {"prompt_columns": options.prompt, "completion_column": options.completion}
        read = partial(sources.read_pairs, **columns, advice="name the right ones with --prompt and --completion")
    elif options.messages is not None:
        examine, read = audit_instructions, partial(sources.read_conversations, column=options.messages)
    splits = {}
    for name in ("file", "validation", "test"):
        if file := getattr(options, name):
            of_hub = name != "file" and examine is audit and sources.comes_from_hub(file)
            try:
                splits[name] = read(file, split=name) if of_hub else read(file)
            except BadInput:
                if options.messages is None and (column := sources.has_conversations(file)):
                    raise BadInput(
                        f"{file} has conversations in the column {column!r}; add --messages to audit them, and leave "
                        "out the options that name other columns"
                    ) from None
                raise
    rows, others = splits.pop("file"), splits
    for note in dict.fromkeys(table.attrs["provenance"].note for table in (rows, *others.values())):
        if note:
            print(f"ftlab: {note}", file=sys.stderr)
    lengths: dict[str, Any] = {}
    if options.tokenizer:
        lengths = {"tokenizer": loading.bare_tokenizer(options.tokenizer), "max_length": options.max_length}
        if (loading.tokenizer_folder(options.tokenizer) / "config.json").is_file():
            lengths["hidden_size"] = loading.hidden_size(options.tokenizer)
    report = examine(rows, **others, **lengths)
    if options.html:
        with files.atomic(options.html) as temporary:
            temporary.write_text(report.html(f"Audit of {options.file}"), encoding="utf-8")
    print(files.to_json(report.to_dict(), ascii_only=True) if options.json else report)
    if options.html and not options.json:
        print(f"\nthe report as a page: {options.html}")
    return 1 if options.fail_on and report.at_least(options.fail_on) else 0


def _require_one_kind(options: argparse.Namespace) -> None:
    """Raise BadInput if --messages stands beside an option that names columns of other rows."""
    if options.messages is None:
        return
    given = [name for name in ("text", "label", "prompt", "completion") if getattr(options, name)]
    if given:
        raise BadInput(
            f"--messages audits whole conversations, and --{given[0]} names a column of other rows; leave one of the "
            "two out"
        )


def _column(name: str) -> str:
    """Return the name of a column. A file after --messages would be taken for one."""
    if Path(name).suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet"):
        raise argparse.ArgumentTypeError(f"{name} is a file, and --messages takes a column; write the file first")
    return name
