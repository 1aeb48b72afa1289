"""Files larger than memory: texts in by the thousand, answers out as they come.

A CSV, TSV or JSONL file keeps its columns; a .txt file, or what comes through a pipe, has one text a line.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ftlab import files
from ftlab.data import tables
from ftlab.errors import BadInput

CHUNK = 4096  # rows in memory at a time
INPUT_TYPES = (".csv", ".tsv", ".jsonl", ".txt")
OUTPUT_TYPES = (".csv", ".tsv", ".jsonl")
STDIN = "-"


def chunks(file: str, column: str = "text", *, rows: int = CHUNK) -> Iterator[pd.DataFrame]:
    """The rows of a file, at most `rows` at a time, in its order, with the column `column` among others.

    A text that is missing is None or NaN. `file` is a path, or "-" for one text a line on stdin. Raises BadInput for a
    file that is missing, empty, of another type, not UTF-8, broken at some row, or without the column.
    """
    if file == STDIN:
        # As bytes: what a machine's locale makes of them is not always UTF-8.
        yield from _with_column(_tables(_lines(sys.stdin.buffer, "stdin", column), rows), "stdin", column)
        return
    path = _as_path(file)
    with tables.explained(path):
        yield from _with_column(_parts(path, column, rows), path, column)


def _as_path(file: str) -> Path:
    path, there = files.look_at(file, "the path of a file")
    if not path.is_file():
        what = "is a folder" if there else "does not exist"
        raise BadInput(f"{file} {what}; give a {', '.join(INPUT_TYPES)} file, or - for one text a line on stdin")
    if path.suffix.lower() not in INPUT_TYPES:
        raise BadInput(f"{file} is not a file type that is read in pieces; expected one of {', '.join(INPUT_TYPES)}")
    if path.stat().st_size == 0:
        raise BadInput(f"{file} is empty; expected at least one text")
    return path


def _parts(path: Path, column: str, rows: int) -> Iterator[pd.DataFrame]:
    if path.suffix.lower() in (".csv", ".tsv"):
        yield from tables.csv_chunks(path, rows)
        return
    tables.require_text(path)
    if path.suffix.lower() == ".jsonl":
        yield from _tables(_objects(path, column), rows)
        return
    with path.open("rb") as lines:
        yield from _tables(_lines(lines, path, column), rows)


def _objects(path: Path, column: str) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(tables.json_objects(path), start=1):
        if isinstance(row.get(column), (list, dict)):
            what = "a list" if isinstance(row[column], list) else "an object"
            raise BadInput(f"{path}, row {number}: {column!r} is {what}; expected a text, or name another column")
        yield row


def _lines(lines: Iterable[bytes], where: object, column: str) -> Iterator[dict[str, Any]]:
    for line in tables.decoded(lines, where):
        yield {column: line.rstrip("\r\n") or None}


def _tables(rows: Iterator[dict[str, Any]], size: int) -> Iterator[pd.DataFrame]:
    while part := list(itertools.islice(rows, size)):
        yield pd.DataFrame(part, dtype=object)  # else 7 is 7.0 where another row has no number


def _with_column(parts: Iterator[pd.DataFrame], where: Path | str, column: str) -> Iterator[pd.DataFrame]:
    """The tables that have rows. The column must stand in the first; rows of a JSONL file may lack it later on."""
    first = True
    for part in parts:
        if first:
            tables.require_columns(where, part, [column])
        if not len(part):  # a header, and nothing under it
            break
        yield part if column in part.columns else part.assign(**{column: None})
        first = False
    if first:
        raise BadInput(f"{where} has no rows; expected at least one text")


def texts(part: pd.DataFrame, column: str) -> list[str]:
    """The texts of a column, in the order of the rows; empty where one is missing."""
    return part[column].where(part[column].notna(), "").astype(str).tolist()


def require_writable(out: Path, source: str = STDIN) -> None:
    """Raise BadInput when `out` is no type of file that can be written, or the file that is being read."""
    if out.suffix.lower() not in OUTPUT_TYPES:
        raise BadInput(f"{out} is not a file type that can be written; expected one of {', '.join(OUTPUT_TYPES)}")
    if source != STDIN and out.exists() and Path(source).exists() and out.samefile(source):
        raise BadInput(f"{out} is the file that is read; give the answers a file of their own")


@contextmanager
def writer(out: Path | None) -> Iterator[Any]:
    """A function that writes the rows of a table as they come: to `out` (.csv, .tsv or .jsonl), else JSONL to stdout.

    A file appears when everything is written, and not before. Raises BadInput for another type of file, and when it
    cannot be written.
    """
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # as JSON is, whatever the machine's locale
        yield lambda part: sys.stdout.write(_as_lines(part))
        sys.stdout.flush()
        return
    require_writable(out)
    suffix = out.suffix.lower()
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
            table = part.reindex(columns=columns)
            options: Any = {"sep": separator, "index": False, "header": header, "lineterminator": "\n"}
            text = table.to_csv(None, **options)
            if "\r" in text:  # Python quotes it from 3.13 on only; bare, it would end the row
                text = table.to_csv(None, **options, quoting=csv.QUOTE_NONNUMERIC)
            file.write(text)

        yield write


def _as_lines(part: pd.DataFrame) -> str:
    rows = part.astype(object).where(part.notna(), None).to_dict(orient="records")
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
