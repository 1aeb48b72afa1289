"""Read CSV and TSV exactly: each cell as it is in the file, or the file is refused with the number of the line.

CSV follows RFC 4180: a cell in quotes may contain commas, line ends and doubled quotes; a quote inside an unquoted cell
is text. TSV has two conventions: IANA's text/tab-separated-values has no quoting, while spreadsheets and pandas quote
as in CSV. So a cell of a TSV is quoted if it begins and ends with a quote; every other quote is text.

A TSV is ambiguous if a quote that opens a cell is closed on a later line, and each of these lines could be a row too.
Such a file is refused, unless all the cells of that row are quoted, or all of the header.

An empty line is a row of empty cells; at the end of a table of several columns it is ignored.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ftlab.errors import BadInput

LONGEST = 1 << 27  # characters of a cell: a quote that is never closed reads no further
AHEAD = 1 << 20  # characters of a TSV in which the end of a quote is searched
BARE = "a carriage return stands in a cell without quotes; put the cell in quotes"
QUOTED = re.compile(r'"((?:[^"]++|"")*+)"(?=\t|\Z)')
UNCLOSED = re.compile(r'"(?:[^"]++|"")*+\Z')
INSIDE = re.compile(r'(?:[^"]++|"")*+\Z')
CLOSING = re.compile(r'(?:[^"]++|"")*+"(?=\t|\Z)')


def table(path: Path, lines: Iterable[str]) -> tuple[list[str], Iterator[list[str]]]:
    """Return the names of the columns, and an iterator of the rows, each with a cell for each column.

    >>> names, rows = table(Path("a.csv"), ["text,label\\n", '"one, two",x\\n'])
    >>> names, list(rows)
    (['text', 'label'], [['one, two', 'x']])

    Args:
        path: of the file, for its type and for messages.
        lines: of the file, with their ends.

    Raises:
        BadInput: the first line is blank; or, while the rows are read, a row has more or fewer cells than columns, or a
            quote is never closed or ambiguous.
    """
    records = (_tsv_records if path.suffix.lower() == ".tsv" else _csv_records)(path, iter(lines))
    _, names = next(records, (1, []))
    if not any(name.strip() for name in names):
        raise _refused(path, "the first line is blank; expected the names of the columns")
    # Spreadsheets leave names out, and pandas leaves out the name of its index.
    names = [name or f"Unnamed: {place}" for place, name in enumerate(names)]
    return names, _whole_rows(path, records, len(names))


def require_distinct(path: Path | str, names: Iterable[str]) -> None:
    """Raise BadInput if two of the column `names` of the file at `path` are equal: one column would be lost."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadInput(f"{path} has two columns {name!r}; give each column a name of its own")
        seen.add(name)


def _whole_rows(path: Path, records: Iterator[tuple[int, list[str]]], columns: int) -> Iterator[list[str]]:
    blank = 0
    for number, cells in records:
        if len(cells) <= 1 < columns and not "".join(cells).strip(" "):
            blank += 1
            continue
        for _ in range(blank):
            yield [""] * columns
        blank = 0
        if len(cells or [""]) != columns:
            raise _wrong_number(path, number, columns, len(cells))
        yield cells or [""]


def _csv_records(path: Path, lines: Iterator[str], delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each record, and its cells; [] for an empty line."""
    csv.field_size_limit(LONGEST)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        begins = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            raise _refused(path, f"line {begins}: {_explained(problem)}") from problem
        yield begins, cells


def _explained(problem: csv.Error) -> str:
    said = str(problem)
    if "end of data" in said:
        return "a quote opens a cell there and is never closed"
    if "expected after" in said:
        return 'a cell in quotes goes on after its closing quote; write a quote inside it twice, ""'
    if "new-line" in said:
        return BARE
    if "field limit" in said:
        return f"a cell of more than {LONGEST:,} characters; is there a quote that is never closed?"
    return said


class _Cell(NamedTuple):
    text: str
    quoted: bool


def _tsv_records(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """As `_csv_records`, with the quoting of a TSV."""
    first = next(lines, "")
    header = _cells(_without_end(first))
    if all(cell.quoted for cell in header):
        yield from _csv_records(path, itertools.chain([first], lines), "\t")
        return
    yield 1, [cell.text for cell in header]
    number, columns = 2, len(header)
    ahead: deque[str] = deque()  # lines that were read to find the end of a quote
    while (line := ahead.popleft() if ahead else next(lines, None)) is not None:
        row = _row(_without_end(line), columns)
        further = _lines_to_the_end_of_a_quote(line, lines, ahead)
        over_lines = _cells(_without_end("".join([line, *itertools.islice(ahead, further)]))) if further else []
        if _is_row(over_lines, columns):
            others = [_row(_without_end(one), columns) for one in itertools.islice(ahead, further)]
            sure = columns > 1 and all(cell.quoted for cell in over_lines)
            if not sure and None not in (row, *others):
                raise _refused(
                    path,
                    f"line {number}: the quote there may open a cell that ends in line {number + further}, and each of "
                    "these lines may be a row; put the header in quotes too if it does, else take the quotes away",
                )
            row = over_lines
            for _ in range(further):
                ahead.popleft()
        else:
            further = 0
        if row is None and not _without_end(line).strip(" "):
            yield number, []
        elif row is None and any("\r" in cell.text for cell in _cells(_without_end(line)) if not cell.quoted):
            raise _refused(path, f"line {number}: {BARE}")
        elif row is None:
            raise _wrong_number(path, number, columns, len(_cells(_without_end(line))))
        else:
            yield number, [cell.text for cell in row]
        number += 1 + further


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _cells(text: str) -> list[_Cell]:
    """The cells of a record of a TSV, quoted or not."""
    if '"' not in text:
        return [_Cell(cell, False) for cell in text.split("\t")]
    cells, place = [], 0
    while place <= len(text):
        if quoted := QUOTED.match(text, place):
            cells.append(_Cell(quoted[1].replace('""', '"'), True))
            place = quoted.end() + 1
        else:
            end = text.find("\t", place)
            end = len(text) if end < 0 else end
            cells.append(_Cell(text[place:end], False))
            place = end + 1
    return cells


def _is_row(cells: list[_Cell], columns: int) -> bool:
    return len(cells) == columns and not any("\n" in text or "\r" in text for text, quoted in cells if not quoted)


def _row(text: str, columns: int) -> list[_Cell] | None:
    """The cells of a line if it is a complete row, else None."""
    # First with tabs in quotes as text, then with every tab between two cells.
    for cells in (_cells(text), [cell for part in text.split("\t") for cell in _cells(part)]):
        if _is_row(cells, columns):
            return cells
    return None


def _is_open(text: str) -> bool:
    """Whether a record ends inside a cell that a quote opened."""
    place = 0
    while 0 <= place < len(text):
        if quoted := QUOTED.match(text, place):
            place = quoted.end() + 1
        elif UNCLOSED.match(text, place):
            return True
        else:
            place = text.find("\t", place) + 1 or len(text)
    return False


def _lines_to_the_end_of_a_quote(line: str, lines: Iterator[str], ahead: deque[str]) -> int:
    """How many more lines a record has if a quote is open at the end of `line`; 0 if no line closes it.

    Lines that are read for this go from `lines` to `ahead`.
    """
    if '"' not in line or not _is_open(_without_end(line)):
        return 0
    length = 0
    for taken in itertools.count(1):
        if taken > len(ahead):
            further = next(lines, None) if length < AHEAD else None
            if further is None:
                break
            ahead.append(further)
        text = _without_end(ahead[taken - 1])
        length += len(text)
        if INSIDE.match(text):
            continue
        if not (end := CLOSING.match(text)):
            break
        if not _is_open(text[end.end() + 1 :]):
            return taken
    return 0


def _refused(path: Path, reason: str) -> BadInput:
    kind = path.suffix.lower()[1:]
    return BadInput(f"{path} cannot be read as {kind} ({reason}); correct the file and try again")


def _wrong_number(path: Path, number: int, columns: int, there: int) -> BadInput:
    return _refused(path, f"expected {columns} fields in line {number}, saw {there}")
