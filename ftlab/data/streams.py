"""Read and write files larger than memory: texts in chunks, answers row by row.

A CSV, TSV or JSONL file keeps its columns; a .txt file, or stdin, has one text a line.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from ftlab import files
from ftlab.data import tables, values
from ftlab.errors import BadInput

CHUNK = 4096  # rows in memory at a time
INPUT_TYPES = (".csv", ".tsv", ".jsonl", ".txt")
OUTPUT_TYPES = (".csv", ".tsv", ".jsonl")
STDIN = "-"


def chunks(
    file: str, column: str = "text", *, rows: int = CHUNK, advice: str = "name the right one"
) -> Iterator[pd.DataFrame]:
    """Yield the rows of a file in its order, in tables of at most `rows` rows.

    Args:
        file: a path, or "-" for one text a line on stdin.
        column: the column of the texts, which each table has; a missing text is None or NaN.
        rows: in memory at a time.
        advice: the next step, for the message on a column that is missing.

    Raises:
        BadInput: the file is missing, empty, of another type, not UTF-8, broken at some row, or without the column.
    """
    if file == STDIN:
        # As bytes: the machine's locale may decode them as something other than UTF-8.
        parts = _tables(_lines(sys.stdin.buffer, "stdin", column), rows)
        yield from _with_column(parts, "stdin", column, advice)
        return
    path = _as_path(file)
    with tables.explained(path):
        yield from _with_column(_parts(path, column, rows), path, column, advice)


def _as_path(file: str) -> Path:
    path, there = files.named_path(file, "the path of a file")
    if not path.is_file():
        what = "is a folder" if there else "does not exist"
        raise BadInput(f"{file} {what}; give a {', '.join(INPUT_TYPES)} file, or - for one text a line on stdin")
    if path.suffix.lower() not in INPUT_TYPES:
        raise BadInput(
            f"{file} is not a file type that is read in pieces; expected one of {', '.join(INPUT_TYPES)}"
            f"{tables.how_to_convert(path)}"
        )
    if path.stat().st_size == 0:
        raise BadInput(f"{file} is empty; expected at least one text")
    return path


def _parts(path: Path, column: str, rows: int) -> Iterator[pd.DataFrame]:
    if path.suffix.lower() in (".csv", ".tsv"):
        yield from tables.csv_chunks(path, rows)
        return
    if path.suffix.lower() == ".jsonl":
        yield from _tables(_objects(path, column), rows)
        return
    tables.require_text(path)
    with path.open("rb") as lines:
        yield from _tables(_lines(lines, path, column), rows)


def _objects(path: Path, column: str) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(tables.json_objects(path), start=1):
        values.require_text(row.get(column), f"{path}, row {number}: {column!r}")
        yield row


def _lines(file: BinaryIO, where: object, column: str) -> Iterator[dict[str, Any]]:
    for line in tables.text_lines(file, where):
        yield {column: line.removesuffix("\n").removesuffix("\r") or None}


def _tables(rows: Iterator[dict[str, Any]], size: int) -> Iterator[pd.DataFrame]:
    while part := list(itertools.islice(rows, size)):
        yield pd.DataFrame(part, dtype=object)  # else 7 is 7.0 where another row has no number


def _with_column(parts: Iterator[pd.DataFrame], where: Path | str, column: str, advice: str) -> Iterator[pd.DataFrame]:
    """The tables that have rows. The first must have the column; later rows of a JSONL file may lack it."""
    first = True
    for part in parts:
        if first:
            tables.require_columns(where, part, [column], advice)
        if not len(part):  # a header without rows
            break
        yield part if column in part.columns else part.assign(**{column: None})
        first = False
    if first:
        raise BadInput(f"{where} has no rows; expected at least one text")


def texts(part: pd.DataFrame, column: str) -> list[str]:
    """Return the texts in the column `column` of the table `part`, in order; "" for a missing one."""
    return [values.text_of(value) or "" for value in part[column]]


def require_writable(out: Path, source: str = STDIN) -> None:
    """Raise BadInput if `out` is not a type of file that can be written, or is `source`, the file that is read."""
    if out.suffix.lower() not in OUTPUT_TYPES:
        raise BadInput(f"{out} is not a file type that can be written; expected one of {', '.join(OUTPUT_TYPES)}")
    if source != STDIN and out.exists() and Path(source).exists() and out.samefile(source):
        raise BadInput(f"{out} is the file that is read; give the answers a file of their own")


@contextmanager
def writer(out: Path | None) -> Iterator[Any]:
    """Return a context manager whose value is a function that writes the rows of a table.

    It writes to `out` (.csv, .tsv or .jsonl), or as JSONL to stdout if `out` is None. The file appears when all rows
    are written. Raises BadInput for another type of file, for a later column that the first rows lack, and if the file
    cannot be written.
    """
    if out is None:
        write_utf8()  # JSON is UTF-8, whatever the machine's locale
        yield lambda part: sys.stdout.write(_as_lines(part))
        sys.stdout.flush()
        return
    require_writable(out)
    suffix = out.suffix.lower()
    with files.atomic(out, error=BadInput) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        columns: list[str] = []

        def write(part: pd.DataFrame) -> None:
            nonlocal columns
            if suffix == ".jsonl":
                file.write(_as_lines(part))
                return
            if columns and (strange := [name for name in part.columns if name not in columns]):
                raise BadInput(f"{out}: later rows have a column {strange[0]!r} that the first lack; write a .jsonl")
            header, columns = not columns, columns or list(part.columns)
            file.write(_as_cells(part.reindex(columns=columns), header, out))

        yield write


def write_utf8() -> None:
    """Let stdout, if it is a real one, be UTF-8: what is written there is kept in a file, or read by a program."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors=sys.stdout.errors)


def _as_cells(table: pd.DataFrame, header: bool, out: Path) -> str:
    """The rows as text of a CSV or TSV file that `delimited` can read back; lists and objects as JSON."""
    for name in filter(lambda name: pd.api.types.is_object_dtype(table[name]), table.columns):
        table[name] = table[name].map(values.text_of)
    tabs = out.suffix.lower() == ".tsv"
    options: Any = {"sep": "\t" if tabs else ",", "index": False, "header": header, "lineterminator": "\n"}
    text = table.to_csv(None, **options)
    if "\0" in text:
        raise BadInput(f"{out}: a value has a NUL character in it, which no {out.suffix[1:]} can hold; write a .jsonl")
    # Python before 3.13 does not quote a carriage return, which would end the row. In a TSV, a line end in quotes is
    # certain to be read as one only if all the cells of a row are quoted, or all of the header.
    if "\r" in text or (tabs and (len(table.columns) == 1 or text.count("\n") > len(table) + header)):
        text = table.to_csv(None, **options, quoting=csv.QUOTE_ALL)
    return text


def formulas(part: pd.DataFrame) -> int:
    """Return how many cells of `part` a spreadsheet may take for a formula (https://owasp.org: CSV injection).

    They are written as they are: a file of rows is data, and another text would be another row.
    """
    return sum(
        isinstance(value, str) and bool(_FORMULA.match(value)) and not _NO_FORMULA.fullmatch(value)
        for name in part.columns
        for value in part[name]
    )


_FORMULA = re.compile(r"[\t\r]\s*\S|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]\s*\S")
_NO_FORMULA = re.compile(
    r"""\s*[+-]?[\d.,]+(e[+-]?\d+)?\s*%?\s*  # a number
    | \+[\d\s()/.-]+  # a phone number
    | -\s+(?!.*(\||\w\())\w.*  # an item of a list, without a function's bracket and a program's bar
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


def _as_lines(part: pd.DataFrame) -> str:
    rows = part.astype(object).where(part.notna(), None).to_dict(orient="records")
    return "".join(files.to_json(row, default=str) + "\n" for row in rows)
