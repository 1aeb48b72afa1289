"""Read your own CSV, TSV, JSONL and Parquet files as tables, without guessing types."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from ftlab import strict_json
from ftlab.data import delimited, values
from ftlab.errors import BadInput
from ftlab.wording import beginning, visible

FILE_TYPES = (".csv", ".tsv", ".jsonl", ".parquet")
MOST_CONTROLS = 0.2  # of the characters of a text; UTF-16 has a byte 0 in every other place
_DECODER = json.JSONDecoder(
    **strict_json.hooks(
        repeated="the name {} stands twice in it",
        constant="JSON has no {}; write null where a value is missing",
        overflow="{} is too large for a number",
    )
)
COLUMNS_ADVICE = "name the right ones with text_column and label_column"
CONVERT = {
    ".parquet": "save it as .jsonl",
    ".json": "write each object of its list on a line of its own, into a .jsonl file",
    ".xlsx": "save the sheet as CSV (UTF-8)",
    ".xls": "save the sheet as CSV (UTF-8)",
}


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    advice: str = COLUMNS_ADVICE,
    unless: Callable[[pd.DataFrame], object] = lambda frame: None,
) -> pd.DataFrame:
    """Read the table in a file, in the order of its rows; a missing value is None.

    Values keep their types: text in CSV and TSV, JSON's types in JSONL, Python's in Parquet (a ClassLabel of `datasets`
    becomes its name).

    Args:
        path: of a file of one of FILE_TYPES.
        columns: that it must have.
        advice: the next step, for the message on a column that is missing.
        unless: the columns are not needed if this returns something for the table: it is of another form.

    Returns:
        The table, with at least one row.

    Raises:
        BadInput: the file is missing, of another type, empty, broken, or lacks a column or rows.
    """
    require_table(path, columns)
    frame = _parse(path)
    if frame.empty and not len(frame.columns):
        raise BadInput(f"{path} has no rows; expected a table with the columns {' and '.join(columns)}")
    if not unless(frame):
        require_columns(path, frame, columns, advice)
    if frame.empty:
        raise BadInput(f"{path} has a header but no rows; expected at least one row for each label")
    return frame


def require_table(path: Path, columns: Sequence[str]) -> None:
    """Raise BadInput unless there is a file at `path`, of one of FILE_TYPES and not empty; it should have `columns`."""
    if not path.exists():
        raise BadInput(
            f"there is no file {path}; give the path of a {', '.join(FILE_TYPES)} file, relative or absolute"
        )
    if path.suffix.lower() not in FILE_TYPES:
        raise BadInput(
            f"{path} is not a file type that the course reads; expected one of {', '.join(FILE_TYPES)}"
            f"{how_to_convert(path)}"
        )
    if not path.is_file():
        raise BadInput(f"{path} is a folder; give a file in it ({', '.join(FILE_TYPES)})")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty; expected a table with the columns {' and '.join(columns)}")


def how_to_convert(path: Path) -> str:
    """Return how to convert the file at `path` to a type that is read, as the end of a sentence, or ""."""
    return f"; {CONVERT[path.suffix.lower()]}" if path.suffix.lower() in CONVERT else ""


def require_columns(
    path: Path | str, frame: pd.DataFrame, columns: Sequence[str], advice: str = COLUMNS_ADVICE
) -> None:
    """Raise BadInput unless the table `frame`, read from `path`, has these `columns`; `advice` is the next step."""
    for column in columns:
        if column not in frame.columns:
            there = named_columns(frame) or "none"
            raise BadInput(f"{path} has no column {column!r}; it has {there}; {_next_step(frame, advice)}")


def named_columns(frame: pd.DataFrame) -> str:
    """Return the names of the columns of `frame` for a message."""
    shown = [beginning(visible(name)) for name in frame.columns[:20]]
    return ", ".join([*shown, *(["..."] if len(frame.columns) > 20 else [])])


def _next_step(frame: pd.DataFrame, advice: str) -> str:
    """What to do about a missing column: the likely cause if the table shows one, and else `advice`."""
    if any(values.is_chat(next(iter(column.dropna()), None)) for _, column in frame.items()):
        return f"{values.CHAT}, then {advice}"
    only, *others = [*map(str, frame.columns)] or [""]
    for separator, called in ((";", "semicolons"), ("\t", "tabs"), (",", "commas"), ("|", "bars")):
        if not others and separator in only:
            return f"its columns seem to be separated by {called}; a .csv file takes commas, a .tsv file tabs"
    return advice


def _parse(path: Path) -> pd.DataFrame:
    """The table in a file of any type; an error of a parser becomes one sentence."""
    suffix = path.suffix.lower()
    with explained(path):
        if suffix == ".parquet":
            return _read_parquet(path)
        if suffix == ".jsonl":
            rows = list(json_objects(path))
            return pd.DataFrame(rows, dtype=object)  # else 7 is 7.0 where another row has no number
        (frame,) = csv_chunks(path, None)
        return frame


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of a parser of `path` into one sentence (BadInput). Returns a context manager.

    If the file changes meanwhile, that is the sentence: rows of two states belong to neither.
    """
    before = _state(path)
    try:
        yield
    except (ValueError, OSError, NotImplementedError, OverflowError) as problem:  # as pyarrow's errors are
        _require_unchanged(path, before)
        reason = beginning(" ".join(str(problem).split()), 200)
        raise BadInput(
            f"{path} cannot be read as {path.suffix.lower()[1:]} ({reason}); correct the file and try again"
        ) from problem
    except BadInput:
        _require_unchanged(path, before)
        raise
    _require_unchanged(path, before)


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes with the content of the file at `path`: its inode, its bytes, and the time of the last change."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _require_unchanged(path: Path, before: tuple[int, int, int] | None) -> None:
    """Raise BadInput if the state of the file at `path` is not the one `before`."""
    after = _state(path)
    if before is None or after == before:
        return
    if after is None:
        how = "it is gone"
    elif after[1] != before[1]:
        how = f"{before[1]:,} bytes before, {after[1]:,} after"
    else:
        how = "it was written again"
    raise BadInput(f"{path} changed while it was read ({how}); wait until nothing writes to it, then try again")


def csv_chunks(path: Path, rows: int | None) -> Iterator[pd.DataFrame]:
    """Yield the table of the CSV or TSV file at `path`, `rows` at a time (None: whole), with each value as text.

    There is at least one table, perhaps without rows; an empty cell is a missing value. See `delimited` for the format.
    """
    require_text(path)
    with path.open("rb") as file:
        names, cells = delimited.table(path, _ahead(text_lines(file, path)))
        delimited.require_distinct(path, names)
        for part in _pieces(cells, rows):
            # As text: 007 is not 7, and "None" may be a label.
            yield pd.DataFrame([[cell or None for cell in row] for row in part], columns=names, dtype="str")


def _ahead(lines: Iterator[str]) -> Iterator[str]:
    """The same lines, read by the thousand: a short file that is not UTF-8 is refused before its first row."""
    while some := list(itertools.islice(lines, 1000)):
        yield from some


def _pieces(cells: Iterator[list[str]], rows: int | None) -> Iterator[list[list[str]]]:
    part = list(itertools.islice(cells, rows))
    yield part
    while part and rows is not None and (part := list(itertools.islice(cells, rows))):
        yield part


def require_text(path: Path) -> None:
    """Raise BadInput if the file at `path` is not text in UTF-8: a picture, or text in UTF-16."""
    with path.open("rb") as file:
        beginning = file.read(1 << 16)
    if b"\0" in beginning:
        utf_16 = "; this looks like UTF-16: save it as UTF-8" if beginning[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        if (line := _line_of_a_stray_nul(beginning)) is not None:
            raise BadInput(
                f"{path}, line {line}, has the byte 0, which no text has; remove it, or save the file again as text in "
                f"UTF-8 ({path.suffix.lower()[1:]})"
            )
        raise BadInput(f"{path} is a binary file; expected text in UTF-8 ({path.suffix.lower()[1:]}){utf_16}")


def _line_of_a_stray_nul(head: bytes) -> int | None:
    """The line of the first byte 0 in what is text otherwise, or None if it is no text in UTF-8."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    if sum(character < " " and character not in "\t\n\r" for character in text) > MOST_CONTROLS * len(text):
        return None
    return text[: text.index("\0")].count("\n") + 1


def text_lines(file: BinaryIO, where: object) -> Iterator[str]:
    r"""Return the lines of `file` with their ends: \n, or \r in a file without \n; `where` is as for `decoded`."""
    return decoded(_lines(file), where)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    first = file.readline(delimited.LONGEST)
    if len(first) == delimited.LONGEST and not first.endswith(b"\n") and b"\r" not in first:
        first += file.readline()
    if first.endswith(b"\n") or b"\r" not in first:
        yield from itertools.chain([first] if first else [], file)
        return
    rest = first  # the line ends of old Macs: the first line is the whole file, or as much as was read of it
    while more := file.read(1 << 20):
        *whole, rest = (rest + more).splitlines(keepends=True)
        yield from whole
    yield from rest.splitlines(keepends=True)


def decoded(lines: Iterable[bytes], where: object) -> Iterator[str]:
    """Yield the `lines` as text, without a byte order mark.

    Raises BadInput, with the file `where` and the line, for a line that is not UTF-8 or has a NUL character.
    """
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as problem:
            byte = f"{problem.object[problem.start]:#x}"
            raise BadInput(f"{where} is not UTF-8 (line {number} has the byte {byte}); save it as UTF-8") from problem
        if "\0" in text:
            raise BadInput(f"{where}, line {number}: a NUL character, which no text has; is the file damaged?")
        yield text


def json_objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of the JSONL file at `path`; BadInput names the line that is not one object in strict JSON."""
    require_text(path)
    with path.open("rb") as file:
        for number, line in enumerate(text_lines(file, path), start=1):
            if not line.strip():
                continue
            try:
                row = _DECODER.decode(line.strip())
            except (ValueError, RecursionError) as problem:
                reason = getattr(
                    problem, "msg", "nested too deeply" if isinstance(problem, RecursionError) else problem
                )
                raise BadInput(f"{path}, line {number}: not JSON ({reason}); expected one object a line") from problem
            if r"\ud" in line.lower() and not values.is_whole(row):
                raise BadInput(f"{path}, line {number}: half a character (a lone \\ud...); write the whole one")
            if not isinstance(row, dict):
                raise BadInput(f'{path}, line {number}: expected an object such as {{"text": ..., "label": ...}}')
            yield row


def _read_parquet(path: Path) -> pd.DataFrame:
    """The columns of a Parquet file with Python's values; a column of integers with nulls keeps its integers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read()
    delimited.require_distinct(path, table.column_names)
    classes = class_names(table.schema.metadata or {})
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    for name in columns.keys() & classes.keys():
        if pa.types.is_integer(table.schema.field(name).type):
            columns[name] = label_names(columns[name], classes[name], f"{path}, column {name!r}")
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in columns.items()})


def class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the label names of each ClassLabel column, which `datasets` stores in the `metadata` of a Parquet file."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: list(feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def label_names(ids: Sequence[int | None], names: Sequence[str], where: str, *, first_row: int = 1) -> list[str | None]:
    """Return the names of label ids, and None for a missing label, for which `datasets` writes -1.

    Args:
        ids: one a row.
        names: of the labels, in the order of their ids.
        where: the file and the column, for the message.
        first_row: the number of the first row in the file, for the message.

    Raises:
        BadInput: an id has no name.
    """
    for number, label in enumerate(ids, start=first_row):
        if label is not None and not -1 <= label < len(names):
            raise BadInput(
                f"{where}, row {number}: the label {label} has no name; the file names 0 to {len(names) - 1} "
                f"({beginning(', '.join(map(visible, names)), 100)}); name it, or leave the row out"
            )
    return [None if label is None or label < 0 else str(names[label]) for label in ids]
