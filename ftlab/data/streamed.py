"""Rows to train a classifier on from a file larger than memory: held-out rows in memory, training rows from the file.

`survey` reads the file once. It counts rows and labels, and draws the rows for validation and test as a bottom-k
sketch (Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches", https://doi.org/10.1145/1281100.1281133):
each text has a hash, and the rows with the smallest hashes are held out. So the draw needs one pass and the memory of
the rows that it keeps, it does not depend on the order of the rows, and the copies of a text share a hash and a side.
Of the training rows it keeps a sample (Vitter 1985, "Random sampling with a reservoir", algorithm R,
https://doi.org/10.1145/3147.3165), for baselines and the audit.

Training then reads the file again in each epoch, and shuffles the rows in a buffer. A buffer mixes neighbours only: if
the rows of the file are sorted by label, shuffle the file first.

Unlike `splits.split`, which has all texts at hand, nothing here finds near-duplicates, and copies stay: audit the file
first (`audit.large`).
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from ftlab import files
from ftlab.data import delimited, group_columns, streams, tables, values
from ftlab.data.group_columns import GROUP
from ftlab.data.normalisation import skeleton
from ftlab.data.sources import Provenance, keep_provenance
from ftlab.data.splits import Splits
from ftlab.data.stratified import SHORT
from ftlab.errors import BadInput
from ftlab.wording import beginning

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.utils.data import IterableDataset

NO_STDIN = (
    "stdin can be read only once, and each epoch of a training reads the rows again; write them to a file and give its "
    "path"
)
PIECE = 512  # rows of the file in memory at a time
BUFFER = 4096  # rows that a shuffle mixes
MOST_LABELS = 1000  # more are no classes
NO_LIMIT = 1 << 64  # above every hash
MANY = 100  # groups of one row each, of which none is by chance
SPARE = 4  # texts with too many copies for a split, in place of which others are kept


@dataclass
class Streamed:
    """The rows of a file: training rows that are read from it, a validation split, and a sealed test split.

    Attributes:
        labels: the names of the labels, in the order of their numbers.
        counts: the number of training rows of each label.
        rows: the number of training rows.
        validation: a Dataset of columns id, text and label (a ClassLabel), and group if the file has groups.
        sample: training rows that were drawn at random, as a Dataset of the same columns. A label that the draw missed
            has its first row in it.
        dropped: the number of rows without a text or a label, which are left out.
    """

    labels: list[str]
    counts: dict[str, int]
    rows: int
    validation: Dataset
    sample: Dataset
    dropped: int
    _held_out: Splits = field(repr=False)
    _training: _TrainingRows = field(repr=False)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of rows in each split; this does not open the test split."""
        return self._held_out.sizes | {"train": self.rows}

    @property
    def openings(self) -> list[str]:
        """The reason for each opening of the test split."""
        return self._held_out.openings

    def open_test(self, why: str) -> Dataset:
        """Return the test split, and add the reason `why` to `openings`; raise BadInput if it is blank."""
        return self._held_out.open_test(why)

    def check_test(self, check: Callable[[Dataset], object]) -> None:
        """Run `check` on the test split without opening it, as `splits.Splits.check_test` does."""
        self._held_out.check_test(check)

    def on_this_machine(self) -> Streamed:
        """Return the same rows for a process that has got them from another machine, whose file is a copy.

        From here on a change of the copy is noticed, and not that it was written at another time.
        """
        return replace(self, _training=self._training.of_the_copy_here())

    def train_rows(self, seed: int, epoch: int, *, buffer: int = BUFFER) -> Iterator[dict[str, Any]]:
        """Yield each training row once, in the order of the file but for a shuffle among `buffer` rows.

        Args:
            seed: of the shuffle.
            epoch: the same seed and epoch give the same order, and another epoch gives another one.
            buffer: rows in memory; 1 keeps the order of the file.

        Yields:
            Rows with the keys id, text and label (its number).

        Raises:
            BadInput: the file is not the one that `survey` read, or changes while it is read.
        """
        return self._training.shuffled(seed, epoch, buffer)

    def endless(self, seed: int, *, buffer: int = BUFFER) -> IterableDataset:
        """Return the training rows, epoch after epoch without end, as an iterable dataset of torch.

        The rows and their order are the same in every process: what trains on several devices takes each process's
        share (`accelerate.data_loader.IterableDatasetShard`). A training is resumed by skipping the rows it has had.
        Of several workers of a DataLoader, each reads the whole file and yields its share of the rows.

        Args:
            seed: of the shuffles; each epoch has its own.
            buffer: as for `train_rows`.

        Raises:
            BadInput: as `train_rows`, at the beginning of an epoch or in it.
        """
        return _endless(self._training, seed, buffer)


def survey(
    file: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    validation_rows: int,
    test_rows: int,
    sample_rows: int = 0,
    seed: int = 0,
    drop_incomplete: bool = False,
) -> Streamed:
    """Read a CSV, TSV, JSONL or Parquet file once, and draw the rows that are held out from training.

    The hash of a row is that of its text in the form in which the course compares texts (`normalisation.skeleton`), so
    copies share it. With a `group_column` it is that of the group, and a row without a group has the hash of its text:
    copies of a text in two groups may then stand on two sides. Rows that share a hash stay together; if there are more
    of them than `validation_rows` or `test_rows`, they are for training. Classes are not stratified: in a random draw
    they have about their share.

    Args:
        file: its path.
        text_column: None means "text".
        label_column: None means "label".
        group_column: of rows that belong together; None reads no groups.
        validation_rows: at most so many are held out for validation. Up to a tenth may be missing, since rows that
            share a hash stay together.
        test_rows: for the test, likewise.
        sample_rows: how many training rows `sample` has: all, if there are fewer, and at least one of each label.
        seed: of the draws.
        drop_incomplete: whether to leave out rows without a text or a label; otherwise they are refused.

    Returns:
        The rows. Texts, labels, their numbers and ids are those of `sources.load`, but for a number among texts, which
        stays as the file has it (7.0). The SHA-256 in the provenance of the rows is empty, since the file is read only
        once.

    Raises:
        BadInput: the file is missing, a folder, stdin, empty, broken at some row, or changes while it is read; it lacks
            a column, has values that are no texts, labels that are no classes or groups of one row each; or the rows
            are too few to hold out so many and to leave a training row for each label.
    """
    if file == streams.STDIN:
        raise BadInput(NO_STDIN)
    for name, rows in (("validation_rows", validation_rows), ("test_rows", test_rows)):
        if rows < 1:
            raise BadInput(f"{name} is {rows}; expected at least 1, since a training is judged on held-out rows")
    columns = _Columns(files.named_path(file, "the path of a file")[0], text_column or "text", label_column or "label",
                       group_column)  # fmt: skip
    columns.require()
    state = _state_of(columns.path)
    labels = _Labels(columns)
    counted = _Counted(columns)
    largest = min(validation_rows, test_rows)
    sketch = _Sketch(validation_rows + test_rows + SPARE * largest, largest)
    reservoir = _Reservoir(sample_rows + validation_rows + test_rows, seed)  # enough without those that are held out
    for row in columns.rows():
        code = labels.code(row)
        if counted.is_complete(row, code):
            labels.counts[code] += 1
            key, coded = _hash_of(row, seed), row._replace(label=code)
            if key < sketch.limit:
                sketch.add(key, coded)
            if sample_rows:
                reservoir.add(coded)
    counted.require(drop_incomplete)
    names, number_of = labels.numbered(counted.rows)
    _require_enough(columns, counted.rows, len(names), validation_rows, test_rows)
    if group_column:
        _require_groups(columns, sketch, counted.rows)
    test, validation = sketch.draw([test_rows, validation_rows])
    for split, drawn, wanted in (("test", test, test_rows), ("validation", validation, validation_rows)):
        _require_filled(columns, split, len(drawn), wanted, largest)
    held_out = [row._replace(label=number_of[row.label]) for row in (*test, *validation)]
    counts = _left_for_training(columns, names, labels.by_number(number_of), held_out)
    parts = [_as_dataset(part, names, columns) for part in (held_out[: len(test)], held_out[len(test) :])]
    training = _TrainingRows(
        columns, state, frozenset(row.position for row in held_out),
        {key: number_of[code] for key, code in labels.codes.items() if number_of[code] >= 0},
    )  # fmt: skip
    sample = reservoir.left_of(training.held_out, sample_rows)
    sample = [row._replace(label=number_of[row.label]) for row in sample]
    if sample_rows:
        sample += training.first_of({*range(len(names))} - {row.label for row in sample})
    return Streamed(
        names, counts, sum(counts.values()), parts[1], _as_dataset(sample, names, columns), counted.incomplete,
        Splits(_as_dataset([], names, columns), parts[1], parts[0], counted.incomplete), training,
    )  # fmt: skip


class _Row(NamedTuple):
    """A row of the file: its position, its text and group (None if missing), and its label, whatever that is."""

    position: int
    text: str | None
    label: Any
    group: str | None


@dataclass(frozen=True)
class _Columns:
    """A file, and which of its columns are read."""

    path: Path
    text: str
    label: str
    group: str | None

    def require(self) -> None:
        """Raise BadInput unless there is a file with a table at the path."""
        if self.text == self.label:
            raise BadInput(f"text_column and label_column are both {self.text!r}; expected two columns of {self.path}")
        tables.require_table(self.path, [self.text, self.label])

    def id_of(self, position: int) -> str:
        """Return the id of the row at `position`, as `sources.row_ids` names it."""
        return f"{self.path.name}-{position:05d}"

    def rows(self) -> Iterator[_Row]:
        """Yield the rows of the file in its order."""
        position = 0
        for part in self._pieces():
            if not position:
                self._require_in(part)
            absent = [None] * len(part)  # a later row of a JSONL file may lack a column
            read = [part[name] if name in part.columns else absent for name in (self.text, self.label, self.group)]
            for text, label, group in zip(*read, strict=True):
                said = self._as_text(text, self.text, position)
                of = self._as_text(group, self.group, position) if self.group else None
                yield _Row(position, said, label, of if group_columns.key(of) else None)
                position += 1

    def _require_in(self, table: pd.DataFrame) -> None:
        tables.require_columns(self.path, table, [self.text, self.label])
        if self.group:
            group_columns.require_column(str(self.path), table, self.group, [self.text, self.label])

    def _pieces(self) -> Iterator[pd.DataFrame]:
        if self.path.suffix.lower() == ".parquet":
            with tables.explained(self.path):
                yield from self._parquet_pieces()
            return
        yield from streams.chunks(str(self.path), self.text, rows=PIECE, advice=tables.COLUMNS_ADVICE)

    def _parquet_pieces(self) -> Iterator[pd.DataFrame]:
        """The columns of a Parquet file with the values that `read_table` gives them."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path, memory_map=True) as file:
            schema = file.schema_arrow
            delimited.require_distinct(self.path, schema.names)
            self._require_in(pd.DataFrame(columns=schema.names))
            if not file.metadata.num_rows:
                raise BadInput(f"{self.path} has a header but no rows; expected at least one row for each label")
            named = tables.class_names(schema.metadata or {})
            wanted = [self.text, self.label, *([self.group] if self.group else [])]
            read = 0
            for batch in file.iter_batches(batch_size=PIECE, columns=wanted):
                columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
                for name in columns.keys() & named.keys():
                    if pa.types.is_integer(schema.field(name).type):
                        where = f"{self.path}, column {name!r}"
                        columns[name] = tables.label_names(columns[name], named[name], where, first_row=read + 1)
                read += batch.num_rows
                yield pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in columns.items()})

    def _as_text(self, value: Any, column: str, position: int) -> str | None:
        if isinstance(value, str) or value is None:
            return value
        values.require_text(value, f"{self.path}, column {column!r}, row {position + 1}")
        return values.text_of(value)


def _is_blank(text: str | None) -> bool:
    return text is None or not text.strip()


def _hash_of(row: _Row, seed: int) -> int:
    """64 bits of the row's group, or of its text if it has no group; rows of one hash stay together."""
    said = f"text {skeleton(row.text or '')}" if row.group is None else f"group {group_columns.key(row.group)}"
    digest = hashlib.blake2b(said.encode(errors="surrogatepass"), digest_size=8, key=str(seed).encode()[:64])
    return int.from_bytes(digest.digest(), "big")


def _key_of(label: Any) -> Any:
    return label if isinstance(label, str) else (type(label), label)  # 1, True and 1.0 are equal


class _Labels:
    """The labels of the file as codes, in the order in which they are met; they are numbered at its end."""

    def __init__(self, columns: _Columns) -> None:
        self.columns = columns
        self.codes: dict[Any, int] = {}
        self.values: list[Any] = []
        self.first: list[str] = []  # the id of the first row of each
        self.counts: list[int] = []  # of complete rows

    def code(self, row: _Row) -> int:
        """Return the code of the row's label; -1 if it is missing."""
        try:
            return self.codes[_key_of(row.label)]
        except (KeyError, TypeError):  # a list has no hash
            return self._new(row)

    def _new(self, row: _Row) -> int:
        label, row_id = row.label, self.columns.id_of(row.position)
        if values.kind_of(label):  # the reader of files in memory says what is wrong with it
            values.with_label_names(pd.DataFrame({"id": [row_id], "label": pd.Series([label], dtype=object)}))
        if (not isinstance(label, str) and pd.isna(label)) or not str(label).strip():
            return -1
        if len(self.values) == MOST_LABELS:
            raise BadInput(
                f"{self.columns.path}, column {self.columns.label!r}: more than {MOST_LABELS:,} different labels in "
                f"the first {row.position + 1:,} rows, too many for classes; is label_column the right column?"
            )
        self.codes[_key_of(label)] = len(self.values)
        self.values.append(label)
        self.first.append(row_id)
        self.counts.append(0)
        return len(self.values) - 1

    def numbered(self, rows: int) -> tuple[list[str], list[int]]:
        """Return the names of the labels in the order of `sources.load`, and the number of each code."""
        path = self.columns.path
        there = pd.DataFrame({"id": self.first, "label": pd.Series(self.values, dtype=object)})
        named = [str(name) for name in values.with_label_names(there)["label"]]
        used = {name for name, count in zip(named, self.counts, strict=True) if count}
        names = sorted(used, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
        if len(names) < 2:
            raise BadInput(f"{path} has one label ({names[0] if names else 'none'}); classification needs at least two")
        if len(names) > rows / 2:
            raise BadInput(
                f"{path} has {len(names)} different labels in {rows} rows; is label_column the right column?"
            )
        return names, [names.index(name) if name in used else -1 for name in named]

    def by_number(self, number_of: list[int]) -> list[int]:
        """Return the number of complete rows of each label, by its number."""
        counts = [0] * (max(number_of) + 1)
        for number, count in zip(number_of, self.counts, strict=True):
            if number >= 0:
                counts[number] += count
        return counts


class _Counted:
    """Counts the rows of the file, and those without a text or a label."""

    def __init__(self, columns: _Columns) -> None:
        self.columns = columns
        self.rows = self.incomplete = 0
        self.missing: Counter[str] = Counter()  # texts and labels
        self.first: dict[str, str] = {}  # the id of the first row without one
        self.number = ""  # the first text, while all are numbers
        self.has_words = False

    def is_complete(self, row: _Row, code: int) -> bool:
        """Count `row`, whose label has this `code`, and return whether it has a text and a label."""
        lacks = {"text": _is_blank(row.text), "label": code < 0}
        for name in filter(lacks.__getitem__, lacks):
            self.missing[name] += 1
            self.first.setdefault(name, self.columns.id_of(row.position))
        if not lacks["text"] and not self.has_words:
            self.has_words = not _is_number(row.text or "")
            self.number = self.number or row.text or ""
        complete = not any(lacks.values())
        self.rows += complete
        self.incomplete += not complete
        return complete

    def require(self, drop_incomplete: bool) -> None:
        """Raise BadInput if all texts are numbers, or if rows lack a text or a label and are not to be left out."""
        if self.number and not self.has_words:
            raise BadInput(
                f"{self.columns.path}, column {self.columns.text!r}, contains numbers, not text (the first is "
                f"{beginning(self.number, 40)}); name the column of the texts"
            )
        for name in ("text", "label"):
            if self.missing[name] and not drop_incomplete:
                raise BadInput(
                    f"{self.columns.path}: {self.missing[name]} rows have no {name}, the first is {self.first[name]}; "
                    "fill them in or remove them before training"
                )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("true", "false")
    return True


class _Sketch:
    """The rows with the smallest hashes among all that were added, whatever their order.

    Hashes with more than `largest` rows fit into no split. Their rows are only counted, up to `largest`. Kept are the
    smallest hashes until they count `enough` rows. Further rows make this bound smaller and never larger, so a hash
    above it need not be kept, and each hash below it has all its rows.
    """

    def __init__(self, enough: int, largest: int) -> None:
        self.enough, self.largest = enough, largest
        self.limit = NO_LIMIT  # a hash from here on is not kept
        self.rows: dict[int, list[_Row]] = {}
        self.sizes: dict[int, int] = {}
        self._heap: list[int] = []  # the hashes below zero, so that the largest comes first
        self._counted = 0

    @property
    def has_all(self) -> bool:
        """Whether each hash of the file is kept."""
        return self.limit == NO_LIMIT

    def add(self, key: int, row: _Row) -> None:
        """Add a row by its hash `key`, which is below `limit`."""
        if key not in self.sizes:
            heapq.heappush(self._heap, -key)
            self.sizes[key], self.rows[key] = 0, []
        self.sizes[key] += 1
        if self.sizes[key] > self.largest:
            self.rows[key].clear()
            return
        self.rows[key].append(row)
        self._counted += 1
        while self._counted - (last := min(self.sizes[-self._heap[0]], self.largest)) >= self.enough:
            self.limit = -heapq.heappop(self._heap)
            self._counted -= last
            del self.sizes[self.limit], self.rows[self.limit]

    def draw(self, sizes: list[int]) -> list[list[_Row]]:
        """Return at most so many rows for each split: by their hashes, and all rows of a hash or none."""
        drawn: list[list[_Row]] = [[] for _ in sizes]
        for key in sorted(self.rows):
            together = sorted(self.rows[key], key=lambda row: row.position)
            for split, size in zip(drawn, sizes, strict=True):
                if len(split) + len(together) <= size:
                    split += together
                    break
        return drawn


class _Reservoir:
    """A random sample of the rows that were added, of which each is as likely to be in it."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.added = size, 0
        self.rows: list[_Row] = []
        self._draw = random.Random(f"sample {seed}")

    def add(self, row: _Row) -> None:
        """Add a row, which may take the place of another one."""
        self.added += 1
        if len(self.rows) < self.size:
            self.rows.append(row)
        elif (place := self._draw.randrange(self.added)) < self.size:
            self.rows[place] = row

    def left_of(self, held_out: frozenset[int], most: int) -> list[_Row]:
        """Return at most so many rows, without those at the positions `held_out`, in the order of the file."""
        left = [row for row in self.rows if row.position not in held_out]
        return sorted(self._draw.sample(left, min(most, len(left))), key=lambda row: row.position)


def _require_enough(columns: _Columns, rows: int, labels: int, validation_rows: int, test_rows: int) -> None:
    if validation_rows + test_rows + labels > rows:
        raise BadInput(
            f"{columns.path} has {rows:,} rows, and with {validation_rows:,} for validation and {test_rows:,} for test "
            f"there would be fewer than one training row for each of the {labels} labels; ask for fewer held-out rows"
        )


def _require_groups(columns: _Columns, sketch: _Sketch, rows: int) -> None:
    """Raise BadInput if there are no groups, one group, or groups of one row each, as far as the sketch can tell.

    Few groups out of many may all have one row by chance, so groups of one row are refused only if many were drawn, or
    all.
    """
    where = f"{columns.path}, column {columns.group!r}"
    kept = [(key, row) for key, some in sketch.rows.items() for row in some[:1]]
    grouped = [sketch.sizes[key] for key, row in kept if row.group is not None]
    all_known = len(kept) == len(sketch.sizes)  # of hashes with too many rows none is kept
    if all_known and not grouped:
        raise BadInput(f"{where}: none of the {len(kept):,} rows drawn has a group; {group_columns.ADVICE}")
    if len(sketch.sizes) == 1:
        raise BadInput(
            f"{where}: all {rows:,} rows have the same group, so no split can keep it on one side; "
            f"{group_columns.ADVICE}, or leave the groups out"
        )
    if all_known and max(grouped) == 1 and (len(grouped) >= MANY or sketch.has_all):
        raise BadInput(
            f"{where}: each of the {len(grouped):,} rows drawn has a value of its own, as ids have, so nothing is kept "
            f"together; {group_columns.ADVICE}, or leave the groups out"
        )


def _require_filled(columns: _Columns, split: str, there: int, wanted: int, largest: int) -> None:
    """Raise BadInput if the split is empty, or lacks more than a tenth of its rows."""
    if not there or wanted - there > math.ceil(SHORT * wanted):
        together, instead = ("the rows of a group", "leave the groups out") if columns.group else (
            "the copies of a text", "drop copies first"
        )  # fmt: skip
        raise BadInput(
            f"{columns.path}: only {there:,} of {wanted:,} {split} rows could be drawn, since {together} stay on one "
            f"side, and none with more than {largest:,} rows is held out; ask for more held-out rows, or {instead}"
        )


def _left_for_training(columns: _Columns, names: list[str], there: list[int], held_out: list[_Row]) -> dict[str, int]:
    """The training rows of each label; BadInput if a label has none."""
    left = dict(zip(names, there, strict=True))
    for row in held_out:
        left[names[row.label]] -= 1
    for name, count in left.items():
        if not count:
            raise BadInput(
                f"{columns.path}: no training row has the label {name!r}, since all rows with it "
                f"({there[names.index(name)]:,}) are held out; add rows of it, ask for fewer held-out rows, or give "
                "another seed"
            )
    return left


def _as_dataset(rows: list[_Row], names: list[str], columns: _Columns) -> Dataset:
    """The held-out rows as `sources.load` would give them."""
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=names)})
    table: dict[str, list[Any]] = {
        "id": [columns.id_of(row.position) for row in rows],
        "text": [row.text for row in rows],
        "label": [row.label for row in rows],
    }
    if columns.group:
        features[GROUP] = Value("string")
        table[GROUP] = [row.group for row in rows]
    dataset = Dataset.from_dict(table, features=features)
    keep_provenance(dataset, Provenance(columns.path.name, str(columns.path), "your own", ""))
    return dataset


def _state_of(path: Path) -> tuple[int, int] | None:
    """What changes with the content of the file at `path`: its bytes, and the time of its last change in ns."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class _TrainingRows:
    """What finds the training rows in the file again; it is small, and a worker of a DataLoader gets a copy."""

    columns: _Columns
    state: tuple[int, int] | None
    held_out: frozenset[int]  # positions
    numbers: dict[Any, int]  # of the labels, by `_key_of`

    def in_order(self) -> Iterator[dict[str, Any]]:
        """Yield the training rows in the order of the file."""
        for row in self._rows():
            yield {"id": self.columns.id_of(row.position), "text": row.text, "label": row.label}

    def first_of(self, labels: set[int]) -> list[_Row]:
        """Return the first training row of each of `labels`, which are numbers; the file is read up to the last."""
        found: dict[int, _Row] = {}
        for row in self._rows() if labels else ():
            if row.label in labels:
                found.setdefault(row.label, row)
            if len(found) == len(labels):
                break
        return list(found.values())

    def of_the_copy_here(self) -> _TrainingRows:
        """Return the same rows of a copy of the file, which has as many bytes and was written at another time."""
        here = _state_of(self.columns.path)
        is_as_long = here is not None and self.state is not None and here[0] == self.state[0]
        return replace(self, state=here) if is_as_long else self

    def _rows(self) -> Iterator[_Row]:
        """The training rows in the order of the file, each with the number of its label."""
        self._require_unchanged()
        for row in self.columns.rows():
            if row.position in self.held_out or _is_blank(row.text):
                continue
            number = self.numbers.get(_key_of(row.label))
            if number is not None:
                yield row._replace(label=number)

    def shuffled(self, seed: int, epoch: int, buffer: int) -> Iterator[dict[str, Any]]:
        """Yield the training rows in the order of this seed and epoch, with `buffer` rows in memory.

        The shuffle of datasets' IterableDataset adds the epoch to the seed, so the second epoch of seed 0 is the first
        of seed 1, and its order changes with `set_epoch`, which a training calls.
        """
        draw = random.Random(f"{seed} {epoch}")  # a text gives the same numbers in every process
        waiting: list[dict[str, Any]] = []
        for row in self.in_order():
            waiting.append(row)
            if len(waiting) >= buffer:
                place = draw.randrange(len(waiting))
                waiting[place], waiting[-1] = waiting[-1], waiting[place]
                yield waiting.pop()
        draw.shuffle(waiting)
        yield from waiting

    def endless(self, seed: int, buffer: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of epoch after epoch."""
        return itertools.chain.from_iterable(self.shuffled(seed, epoch, buffer) for epoch in itertools.count())

    def _require_unchanged(self) -> None:
        now = _state_of(self.columns.path)
        if now == self.state:
            return
        how = "it is gone" if now is None else "its size or the time of its last change is another one"
        raise BadInput(
            f"{self.columns.path} changed after its rows were counted and held out ({how}); put the file back, or "
            "begin the training anew"
        )


def _share_of_worker(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of this worker of a DataLoader; all rows in the main process."""
    from torch.utils.data import get_worker_info

    worker = get_worker_info()
    return iter(rows) if worker is None else itertools.islice(rows, worker.id, None, worker.num_workers)


def _endless(training: _TrainingRows, seed: int, buffer: int) -> IterableDataset:
    from torch.utils.data import IterableDataset

    class Endless(IterableDataset):
        """The training rows, epoch after epoch; a class in a function is pickled as the call that makes it."""

        def __iter__(self) -> Iterator[dict[str, Any]]:
            return _share_of_worker(training.endless(seed, buffer))

        def __reduce__(self) -> tuple[Any, ...]:
            return _endless, (training, seed, buffer)

    return Endless()
