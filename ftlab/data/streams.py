"""Files larger than memory: texts in by the thousand, answers out as they come.

A CSV, TSV or JSONL file keeps its columns; a .txt file, or what comes through a pipe, has one text a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from ftlab import files
from ftlab.data import tables
from ftlab.errors import BadInput

CHUNK = 4096  # rows in memory at a time
INPUT_TYPES = (".csv", ".tsv", ".jsonl", ".txt")
OUTPUT_TYPES = (".csv", ".tsv", ".jsonl")
STDIN = "-"


def chunks(file: str, column: str = "text", *, rows: int = CHUNK) -> Iterator[pd.DataFrame]:
    """The rows of a file, at most `rows` at a time, in its order, with the column `column` as text among others.

    A text that is missing is None. `file` is a path, or "-" for one text a line on stdin. Raises BadInput for a file
    that is missing, of another type, not UTF-8, broken at some row, or without the column.
    """
    if file == STDIN:
        yield from _lines(sys.stdin, "stdin", column, rows)
        return
    path = Path(file).expanduser()
    suffix = path.suffix.lower()
    if not path.is_file():
        there = "is a folder" if path.exists() else "does not exist"
        raise BadInput(f"{file} {there}; give a {', '.join(INPUT_TYPES)} file, or - for one text a line on stdin")
    if suffix not in INPUT_TYPES:
        raise BadInput(f"{file} is not a file type that is read in pieces; expected one of {', '.join(INPUT_TYPES)}")
    with tables.explained(path):
        if suffix in (".csv", ".tsv"):
            parts = tables.csv_chunks(path, rows)
        elif suffix == ".jsonl":
            parts = _objects(path, rows)
        else:
            with path.open(encoding="utf-8-sig") as lines:
                yield from _lines(lines, file, column, rows)
            return
        seen = False
        for part in parts:
            tables.require_columns(path, part, [column])
            seen = True
            yield part
        if not seen:
            raise BadInput(f"{file} has no rows; expected at least one with the column {column!r}")


def _lines(lines: TextIO, where: str, column: str, rows: int) -> Iterator[pd.DataFrame]:
    texts: list[str | None] = []
    try:
        for line in lines:
            texts.append(line.rstrip("\r\n") or None)
            if len(texts) == rows:
                yield pd.DataFrame({column: pd.Series(texts, dtype=object)})
                texts = []
    except UnicodeDecodeError as problem:
        raise BadInput(f"{where} is not UTF-8 (byte {problem.object[problem.start]:#x}); save it as UTF-8") from problem
    if texts:
        yield pd.DataFrame({column: pd.Series(texts, dtype=object)})


def _objects(path: Path, rows: int) -> Iterator[pd.DataFrame]:
    part: list[dict[str, Any]] = []
    for row in tables.json_objects(path):
        part.append(row)
        if len(part) == rows:
            yield pd.DataFrame(part)
            part = []
    if part:
        yield pd.DataFrame(part)


@contextmanager
def writer(out: Path | None) -> Iterator[Any]:
    """A function that writes the rows of a table as they come: to `out` (.csv, .tsv or .jsonl), else JSONL to stdout.

    A file appears when everything is written, and not before. Raises BadInput for another type of file, and when it
    cannot be written.
    """
    if out is None:
        yield lambda part: sys.stdout.write(_as_lines(part))
        sys.stdout.flush()
        return
    suffix = out.suffix.lower()
    if suffix not in OUTPUT_TYPES:
        raise BadInput(f"{out} is not a file type that can be written; expected one of {', '.join(OUTPUT_TYPES)}")
    with files.whole(out, error=BadInput) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        columns: list[str] = []

        def write(part: pd.DataFrame) -> None:
            nonlocal columns
            if suffix == ".jsonl":
                file.write(_as_lines(part))
                return
            separator = "\t" if suffix == ".tsv" else ","
            if columns and (strange := [name for name in part.columns if name not in columns]):
                raise BadInput(f"{out}: later rows have a column {strange[0]!r} that the first lack; write a .jsonl")
            header, columns = not columns, columns or list(part.columns)
            part.reindex(columns=columns).to_csv(file, sep=separator, index=False, header=header, lineterminator="\n")

        yield write


def _as_lines(part: pd.DataFrame) -> str:
    rows = part.astype(object).where(part.notna(), None).to_dict(orient="records")
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
