"""Read your own CSV, TSV, JSONL and Parquet files as tables, without guessing types."""

from __future__ import annotations

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

FILE_TYPES = (".csv", ".tsv", ".jsonl", ".parquet")
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
    frame = _parse(path)
    if frame.empty and not len(frame.columns):
        raise BadInput(f"{path} has no rows; expected a table with the columns {' and '.join(columns)}")
    if not unless(frame):
        require_columns(path, frame, columns, advice)
    if frame.empty:
        raise BadInput(f"{path} has a header but no rows; expected at least one row for each label")
    return frame


def how_to_convert(path: Path) -> str:
    """Return how to convert the file at `path` to a type that is read, as the end of a sentence, or ""."""
    return f"; {CONVERT[path.suffix.lower()]}" if path.suffix.lower() in CONVERT else ""


def require_columns(
    path: Path | str, frame: pd.DataFrame, columns: Sequence[str], advice: str = COLUMNS_ADVICE
) -> None:
    """Raise BadInput unless the table `frame`, read from `path`, has these `columns`; `advice` is the next step."""
    for column in columns:
        if column not in frame.columns:
            raise BadInput(f"{path} has no column {column!r}; it has {_shown(frame)}; {_next_step(frame, advice)}")


def _shown(frame: pd.DataFrame) -> str:
    names = [name if name == name.strip() else repr(name) for name in map(str, frame.columns)]
    shown = [name if len(name) <= 60 else f"{name[:60]}..." for name in names[:20]]
    return ", ".join([*shown, *(["..."] if len(names) > 20 else [])])


def _next_step(frame: pd.DataFrame, advice: str) -> str:
    """What to do about a missing column: the likely cause if the table shows one, and else `advice`."""
    if any(values.is_chat(next(iter(column.dropna()), None)) for _, column in frame.items()):
        return f"{values.CHAT}, then {advice}"
    only, *others = map(str, frame.columns)
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
    """Turn an error of a parser of `path` into one sentence (BadInput). Returns a context manager."""
    try:
        yield
    except (ValueError, OSError, NotImplementedError) as problem:  # as pyarrow's errors are
        reason = " ".join(str(problem).split())
        raise BadInput(
            f"{path} cannot be read as {path.suffix.lower()[1:]} ({reason[:200]}); correct the file and try again"
        ) from problem


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
        raise BadInput(f"{path} is a binary file; expected text in UTF-8 ({path.suffix.lower()[1:]}){utf_16}")


def text_lines(file: BinaryIO, where: object) -> Iterator[str]:
    r"""Return the lines of `file` with their ends: \n, or \r in a file without \n; `where` is as for `decoded`."""
    return decoded(_lines(file), where)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    first = file.readline()
    if first.endswith(b"\n") or b"\r" not in first:
        yield from itertools.chain([first] if first else [], file)
    else:
        yield from first.splitlines(keepends=True)  # the line ends of old Macs: the first line was the whole file


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
    classes = _class_names(table.schema.metadata or {})
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    for name in columns.keys() & classes.keys():
        if pa.types.is_integer(table.schema.field(name).type):
            columns[name] = label_names(columns[name], classes[name], f"{path}, column {name!r}")
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in columns.items()})


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The label names of each ClassLabel column, which `datasets` stores in the metadata."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: list(feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def label_names(ids: Sequence[int | None], names: Sequence[str], where: str) -> list[str | None]:
    """Return the names of label ids, and None for a missing label, for which `datasets` writes -1.

    Args:
        ids: one a row.
        names: of the labels, in the order of their ids.
        where: the file and the column, for the message.

    Raises:
        BadInput: an id has no name.
    """
    for number, label in enumerate(ids, start=1):
        if label is not None and not -1 <= label < len(names):
            raise BadInput(
                f"{where}, row {number}: the label {label} has no name; the file names 0 to {len(names) - 1} "
                f"({', '.join(map(str, names))[:100]}); name it, or leave the row out"
            )
    return [None if label is None or label < 0 else str(names[label]) for label in ids]
