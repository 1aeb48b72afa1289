"""Read the columns of a file in pieces: what an audit of a file larger than memory reads.

A piece is a list for each column, of at most ROWS rows, and of about CHARACTERS characters unless one row has more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ftlab.data import delimited, tables
from ftlab.errors import BadInput

LARGE = 256 << 20  # bytes: an audit in memory needs about six times as many
ROWS = 4096
CHARACTERS = 8 << 20

Piece = dict[str, list[Any]]


def size(path: Path) -> int:
    """Return the bytes of the file at `path`; of a Parquet file those without compression, if that can be read."""
    on_disk = path.stat().st_size
    if path.suffix.lower() != ".parquet":
        return on_disk
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            return max(on_disk, sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups)))
    except (ValueError, OSError):  # as pyarrow's errors are; the reader will say what is wrong
        return on_disk


def pieces(
    path: Path,
    columns: Sequence[str],
    *,
    advice: str = tables.COLUMNS_ADVICE,
    done: Callable[[int], object] = lambda read: None,
) -> Iterator[Piece]:
    """Yield the `columns` of a CSV, TSV, JSONL or Parquet file, piece by piece, in the order of its rows.

    Values are those of `ftlab.data.tables.read_table`: text in CSV and TSV, JSON's types in JSONL, Python's in Parquet;
    a missing one is None.

    Args:
        path: of the file.
        columns: that it must have. In JSONL the first piece must have them, and a later row may lack one.
        advice: the next step, for the message on a column that is missing.
        done: called with each piece, before it is yielded, with the bytes of it (see `size`).

    Raises:
        BadInput: the file is missing, of another type, empty, broken, or lacks a column or rows; or it changes while it
            is read.
    """
    tables.require_table(path, columns)
    read = {".jsonl": _objects, ".parquet": _batches}.get(path.suffix.lower(), _cells)
    rows = 0
    with tables.explained(path):
        for piece in read(path, [*dict.fromkeys(columns)], advice, done):
            rows += len(piece[columns[0]])
            yield piece
        if not rows:
            raise BadInput(f"{path} has a header but no rows; expected at least one row for each label")


def _cells(path: Path, columns: list[str], advice: str, done: Callable[[int], object]) -> Iterator[Piece]:
    tables.require_text(path)
    with path.open("rb") as file:
        names, rows = delimited.table(path, tables.text_lines(file, path))
        delimited.require_distinct(path, names)
        tables.require_columns(path, pd.DataFrame(columns=names), columns, advice)
        places = [names.index(column) for column in columns]
        wanted = ([row[place] or None for place in places] for row in rows)
        yield from _grouped(wanted, columns, _moved(file.tell, done))


def _objects(path: Path, columns: list[str], advice: str, done: Callable[[int], object]) -> Iterator[Piece]:
    found = tables.json_objects(path)
    first = list(itertools.islice(found, ROWS))
    tables.require_columns(path, pd.DataFrame(first, dtype=object), columns, advice)
    rows = ([row.get(column) for column in columns] for row in itertools.chain(first, found))
    counted = 0

    def bytes_of(piece: Piece) -> None:
        nonlocal counted
        read = sum(len(value) for values in piece.values() for value in values if isinstance(value, str))
        read = min(read, path.stat().st_size - counted)
        counted += read
        done(read)

    for piece in _grouped(rows, columns, lambda: None):
        bytes_of(piece)
        yield piece


def _batches(path: Path, columns: list[str], advice: str, done: Callable[[int], object]) -> Iterator[Piece]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = size(path)
    with pq.ParquetFile(path, memory_map=True) as file:
        schema = file.schema_arrow
        delimited.require_distinct(path, schema.names)
        tables.require_columns(path, pd.DataFrame(columns=schema.names), columns, advice)
        classes = {
            name: names
            for name, names in tables.class_names(schema.metadata or {}).items()
            if name in columns and pa.types.is_integer(schema.field(name).type)
        }
        # Few rows at a time: a batch is whole in memory before its size is known.
        batches = file.iter_batches(batch_size=256, columns=columns)
        rows = _rows_of(path, batches, columns, classes)
        for piece in _grouped(rows, columns, lambda: None):
            done(whole * len(piece[columns[0]]) // max(1, file.metadata.num_rows))
            yield piece


def _rows_of(
    path: Path, batches: Iterable[Any], columns: list[str], classes: dict[str, list[str]]
) -> Iterator[tuple[Any, ...]]:
    read = 0
    for batch in batches:
        values = {column: batch.column(column).to_pylist() for column in columns}
        for column, names in classes.items():
            where = f"{path}, column {column!r}"
            values[column] = tables.label_names(values[column], names, where, first_row=read + 1)
        read += batch.num_rows
        yield from zip(*values.values(), strict=True)


def _grouped(rows: Iterable[Sequence[Any]], columns: list[str], done: Callable[[], object]) -> Iterator[Piece]:
    """The rows as pieces; a piece ends early if its texts are long."""
    part: list[Sequence[Any]] = []
    characters = 0
    for row in rows:
        part.append(row)
        for value in row:
            if type(value) is str:
                characters += len(value)
        if len(part) == ROWS or characters >= CHARACTERS:
            done()
            yield dict(zip(columns, map(list, zip(*part, strict=True)), strict=True))
            part, characters = [], 0
    if part:
        done()
        yield dict(zip(columns, map(list, zip(*part, strict=True)), strict=True))


def _moved(place: Callable[[], int], done: Callable[[int], object]) -> Callable[[], object]:
    """Return a function that calls `done` with the bytes since its last call; `place` says where the reader is."""
    before = 0

    def moved() -> None:
        nonlocal before
        here = place()
        done(here - before)
        before = here

    return moved
