"""ftlab audit: find what is wrong with the rows of a file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.errors import BadInput
from ftlab.wording import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from ftlab.data.audit import AuditReport

ROWS = (".csv", ".tsv", ".jsonl", ".parquet")  # the ends of the names of files of rows


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
        "--group", metavar="COL",
        help="the column of groups whose rows belong together, such as an author or a product: none on two sides",
    )  # fmt: skip
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
        BadInput: options that do not go together, or a file that cannot be read; without secrets and personal data,
            which can stand in a row, a label or the first line of a file.
    """
    from ftlab.data.audit import personal_data

    try:
        return _run(options)
    except BadInput as problem:
        said = str(problem)
        if (masked := personal_data.without_private(said)) == said:
            raise
        raise BadInput(masked) from None


def _run(options: argparse.Namespace) -> int:
    from functools import partial

    from ftlab.data import sources
    from ftlab.data.audit import audit, audit_instructions, large
    from ftlab.models import loading

    for name in ("file", "validation", "test"):
        if getattr(options, name) is not None and not getattr(options, name).strip():
            told = "the file" if name == "file" else f"--{name}"
            raise BadInput(f"{told} is empty; give the path of a file{'' if name == 'file' else ', or leave it out'}")
    _require_one_kind(options)
    if options.html:
        options.html = files.named_path(str(options.html), "another name with --html")[0]  # --html=~/x keeps its ~
        _require_no_rows(options)
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
    columns = {"text_column": options.text, "label_column": options.label, "group_column": options.group}
    read: Any = partial(
        sources.read,
        **columns,
        advice="name the right ones with --text and --label, or with --prompt and --completion for instruction data",
    )
    if options.prompt:
        examine = audit_instructions
        columns = {
            "prompt_columns": options.prompt,
            "completion_column": options.completion,
            "group_column": options.group,
        }
        read = partial(sources.read_pairs, **columns, advice="name the right ones with --prompt and --completion")
    elif options.messages is not None:
        examine, read = (
            audit_instructions,
            partial(sources.read_conversations, column=options.messages, group_column=options.group),
        )
    lengths: dict[str, Any] = {}
    if options.tokenizer:
        lengths = {"tokenizer": loading.bare_tokenizer(options.tokenizer), "max_length": options.max_length}
        if (loading.tokenizer_folder(options.tokenizer) / "config.json").is_file():
            lengths["hidden_size"] = loading.hidden_size(options.tokenizer)
    if large.is_large([file for file in (options.file, options.validation, options.test) if file]):
        return _said(_of_large_files(options, columns, lengths), options)
    splits = {}
    for name in ("file", "validation", "test"):
        if file := getattr(options, name):
            of_hub = name != "file" and examine is audit and sources.comes_from_hub(file)
            try:
                splits[name] = read(file, split=name) if of_hub else read(file, judging=name != "file")
            except BadInput:
                if options.messages is None and (column := sources.has_conversations(file)):
                    raise BadInput(
                        f"{file} has conversations in the column {column!r}; add --messages to audit them, and leave "
                        "out the options that name other columns"
                    ) from None
                raise
    _require_distinct_splits(splits, options)
    rows, others = splits.pop("file"), splits
    for note in dict.fromkeys(table.attrs["provenance"].note for table in (rows, *others.values())):
        if note:
            print(f"ftlab: {printable(note)}", file=sys.stderr)
    return _said(examine(rows, **others, **lengths), options)


def _require_distinct_splits(splits: Mapping[str, pd.DataFrame], options: argparse.Namespace) -> None:
    """Raise BadInput if one split of a data set of the hub was read twice: all its rows would be leakage."""
    read: dict[str, str] = {}
    for name, frame in splits.items():
        split = frame.attrs.get("hub_split", name)
        if split in read:
            first = "the training rows" if read[split] == "file" else f"--{read[split]}"
            raise BadInput(
                f"--{name} {getattr(options, name)} and {first} are the same rows ({split}), so all of them would be "
                f"leakage; leave --{name} out, or name a data set with a split of its own for it"
            )
        read[split] = name


def _said(report: AuditReport, options: argparse.Namespace) -> int:
    """Print the report as the `options` ask, and return the exit code."""
    if options.html:
        with files.atomic(options.html) as temporary:
            temporary.write_text(report.html(f"Audit of {options.file}"), encoding="utf-8")
    print(files.to_json(report.to_dict(), ascii_only=True) if options.json else str(report))
    if options.html and not options.json:
        print(f"\nthe report as a page: {printable(options.html)}")
    return 1 if options.fail_on and report.at_least(options.fail_on) else 0


def _of_large_files(options: argparse.Namespace, columns: dict[str, Any], lengths: dict[str, Any]) -> AuditReport:
    """The report on files that are too large for an audit in memory."""
    from ftlab.data.audit import large

    if options.messages is not None:
        raise BadInput(
            f"{options.file} is too large for memory, and conversations of that size are not audited; write a part of "
            "it to a file of its own, and audit that"
        )
    advice = "name the right ones with --text and --label, or with --prompt and --completion for instruction data"
    given = {name: value for name, value in columns.items() if value is not None}
    beside = min(2, os.cpu_count() or 1)
    return large.audit_file(
        options.file, validation=options.validation, test=options.test, advice=advice, processes=beside,
        **given, **lengths,
    )  # fmt: skip


def _require_one_kind(options: argparse.Namespace) -> None:
    """Raise BadInput if options that name columns of different kinds of rows stand beside each other."""
    pairs = [name for name in ("prompt", "completion") if getattr(options, name)]
    labelled = [name for name in ("text", "label") if getattr(options, name)]
    if options.messages is None and pairs and labelled:
        raise BadInput(
            f"--{pairs[0]} names a column of instruction data, and --{labelled[0]} a column of rows with labels; leave "
            "one of the two out"
        )
    if options.completion in (options.prompt or []):
        raise BadInput(
            f"the column {options.completion!r} cannot be a part of the prompt and the answer to it; name others with "
            "--prompt and --completion"
        )
    if options.messages is None:
        return
    given = [name for name in ("text", "label", "prompt", "completion") if getattr(options, name)]
    if given:
        raise BadInput(
            f"--messages audits whole conversations, and --{given[0]} names a column of other rows; leave one of the "
            "two out"
        )


def _require_no_rows(options: argparse.Namespace) -> None:
    """Raise BadInput if the report would replace a file of rows."""
    for name in ("file", "validation", "test"):
        rows, exists = files.named_path(getattr(options, name) or "", "the path of a file")
        if exists and rows.is_file() and options.html.exists() and rows.samefile(options.html):
            raise BadInput(
                f"--html would write the report over the rows in {options.html}; give the report a name of its own, "
                "such as report.html"
            )
    if options.html.suffix.lower() in ROWS:
        raise BadInput(
            f"--html writes a web page, and {options.html} has the name of a file of rows; give it a name such as "
            "report.html"
        )


def _column(name: str) -> str:
    """Return the name of a column. A file after --messages would be taken for one."""
    if Path(name).suffix.lower() in ROWS:
        raise argparse.ArgumentTypeError(f"{name} is a file, and --messages takes a column; write the file first")
    return name
