"""Read a file larger than memory once, and keep numbers of all its rows and the texts of a random sample."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ftlab.data import group_columns, values
from ftlab.data.audit import large_files
from ftlab.data.audit.large_files import Piece
from ftlab.data.audit.large_rows import SHOWN, Found, Measured, excerpt, hashes_of, measure
from ftlab.errors import BadInput

SAMPLE = 5_000  # rows
SAMPLED_CHARACTERS = 100_000_000  # of the sample; where texts are long, fewer rows are drawn, and none is cut
FEWEST_SAMPLED = 200  # rows, however long they are
MOST_LABELS = 100_000  # more are no classes
REMEMBERED = 2_000_000  # rows among which the first copies are noticed while the file is read
AHEAD = 2  # pieces for each process that wait

Part = tuple[list[str | None], list[str] | None]  # texts, and what a model gets of them as input if that is less


class Rows(NamedTuple):
    """What is read of a piece of a file.

    Attributes:
        texts: of the rows; prompt and completion together.
        labels: of the rows; None for instruction data.
        inputs: the prompts; None for rows with labels.
        unanswered: the positions of the rows without a completion.
        structured: how many completions are lists or objects.
    """

    texts: list[str | None]
    labels: list[Any] | None = None
    inputs: list[str] | None = None
    unanswered: Sequence[int] = ()
    structured: int = 0


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are read: a text and its label, or the parts of a prompt and its completion."""

    text: str = "text"
    label: str = "label"
    prompt: tuple[str, ...] = ()
    completion: str = ""
    group: str = ""

    @property
    def of_texts(self) -> list[str]:
        """The columns of texts, labels, prompts and completions."""
        return [*self.prompt, self.completion] if self.prompt else [self.text, self.label]

    @property
    def names(self) -> list[str]:
        """The columns of the file."""
        return [*dict.fromkeys([*self.of_texts, self.group] if self.group else self.of_texts)]

    def rows(self, piece: Piece, where: Callable[[str, int], str]) -> Rows:
        """Return what is read of a `piece`; `where` says for an error in which column and row it is."""
        if not self.prompt:
            return Rows(_texts(piece[self.text], self.text, where), piece[self.label])
        parts = [_texts(piece[name], name, where) for name in self.prompt]
        inputs = ["\n".join(part for part in row if part and part.strip()) for row in zip(*parts, strict=True)]
        answers, structured = _answers(piece[self.completion], self.completion, where)
        texts: list[str | None] = ["\n".join(row) for row in zip(inputs, answers, strict=True)]
        return Rows(texts, None, inputs, [row for row, answer in enumerate(answers) if not answer.strip()], structured)

    def record(self, piece: Piece, row: int) -> dict[str, Any]:
        """Return the row `row` of `piece` as an audit in memory takes it."""
        if not self.prompt:
            return {"text": values.text_of(piece[self.text][row]), "label": piece[self.label][row]}
        named = sorted(dict.fromkeys(self.prompt), key=lambda name: name != "instruction")
        parts = [values.text_of(piece[name][row]) or "" for name in named]
        joined = ["\n".join(part for part in some if part.strip()) for some in (parts, parts[1:])]
        answer = values.text_of(piece[self.completion][row])
        return {"instruction": parts[0], "input": joined[1], "prompt": joined[0], "completion": answer}


def _texts(column: list[Any], name: str, where: Callable[[str, int], str]) -> list[str | None]:
    texts: list[str | None] = []
    for row, value in enumerate(column):
        if type(value) is str or value is None:
            texts.append(value)
        else:
            values.require_text(value, where(name, row))
            texts.append(values.text_of(value))
    return texts


def _answers(column: list[Any], name: str, where: Callable[[str, int], str]) -> tuple[list[str], int]:
    """The answers as text ("" if missing), and how many of them were lists or objects."""
    answers, structured = [], 0
    for row, value in enumerate(column):
        if type(value) is not str:
            values.require_answer(value, where(name, row))
            structured += values.kind_of(value) is not None
        answers.append(values.text_of(value) or "")
    return answers, structured


@dataclass
class Scan:
    """What was kept of a file.

    Attributes:
        name: of the file.
        measured: of its pieces, in order; `joined` joins them.
        codes: the position of each row's label in `labels`, -1 for none.
        labels: the different values of the label column.
        groups: the hash of each row's group, 0 for none; empty without a column of groups.
        unanswered: the positions of the rows without a completion.
        structured: how many completions are lists or objects, which were read as JSON.
        found: by each search in the texts.
        texts: of the first rows that have an earlier text, by their positions.
        sample: some of the rows, drawn at random, as an audit in memory takes them; in the order of the file.
    """

    name: str
    measured: list[Measured] = field(default_factory=list)
    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    labels: list[Any] = field(default_factory=list)
    groups: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    unanswered: list[int] = field(default_factory=list)
    structured: int = 0
    found: dict[str, Found] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    sample: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __len__(self) -> int:
        return len(self.codes)

    def array(self, name: str) -> np.ndarray:
        """Return the array `name` of `Measured` of all rows."""
        return np.concatenate([getattr(piece, name) for piece in self.measured])

    def ids(self, rows: Iterable[int]) -> list[str]:
        """Return the ids of the `rows` at these positions, as `sources.row_ids` names them."""
        return [f"{self.name}-{row:05d}" for row in rows]


def scan(
    path: Path,
    columns: Columns,
    *,
    processes: int,
    advice: str,
    done: Callable[[int], object],
    search: bool = True,
    known: np.ndarray | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
) -> Scan:
    """Read the file at `path`, and keep numbers of all rows and a sample of them.

    Args:
        path: of the file.
        columns: which to read.
        processes: that measure pieces while this one reads; with 0 this one does both.
        advice: the next step, for the message on a column that is missing.
        done: called from time to time with the bytes read since then.
        search: whether to search the texts for noise, personal data and secrets.
        known: the hashes (see `Measured.inputs`) of the inputs of earlier files; the first rows with one are kept.
        sample: how many rows to draw; fewer are drawn if these have more than SAMPLED_CHARACTERS.
        seed: of the drawing.

    Raises:
        BadInput: as `large_files.pieces`; a text or a group is a list or an object, or all texts are numbers; a
            completion is a conversation or bytes; or there are too many labels.
    """
    kept = Scan(path.name)
    labels, drawn = _Labels(path, columns.label), _Sample(sample, seed)
    copies = _FirstCopies(np.zeros(0, dtype=np.uint64) if known is None else known)
    groups: list[np.ndarray] = []
    words = columns.prompt != ()  # whether a text was seen that is no number
    begins = 0

    def where(column: str, row: int) -> str:
        return f"{path}, column {column!r}, row {begins + row + 1}"

    def read() -> Iterator[Part]:
        nonlocal begins, words
        for piece in large_files.pieces(path, columns.names, advice=advice, done=done):
            rows = columns.rows(piece, where)
            words = words or any(text and text.strip() and not _is_number(text) for text in rows.texts)
            if rows.labels is not None:
                labels.add(rows.labels)
            if columns.group:
                groups.append(_group_hashes(_texts(piece[columns.group], columns.group, where)))
            kept.unanswered += [begins + row for row in rows.unanswered]
            kept.structured += rows.structured
            drawn.add(begins, len(rows.texts), partial(columns.record, piece))
            begins += len(rows.texts)
            yield rows.texts, rows.inputs

    at = 0
    with _without_collector():
        for (texts, _), measured in _measured(read(), processes, search):
            for name, found in measured.found.items():
                kept.found.setdefault(name, Found()).extend(found, at)
            copies.look(texts, measured, labels.parts[len(kept.measured)] if labels.parts else None, at)
            at += len(measured)
            measured.found = {}
            kept.measured.append(measured)
    if not words:
        raise BadInput(f"{path}, column {columns.text!r}, contains numbers, not text; name the column of the texts")
    kept.texts = copies.texts
    kept.codes = labels.joined() if not columns.prompt else np.full(begins, -1, dtype=np.int32)
    kept.labels = labels.values
    kept.groups = np.concatenate(groups) if groups else kept.groups
    kept.sample = drawn.table(kept)
    return kept


@contextmanager
def _without_collector() -> Iterator[None]:
    """Stop the search for objects that refer to each other: here it costs a fifth of the time, and finds none."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _group_hashes(groups: list[str | None]) -> np.ndarray:
    return hashes_of([group_columns.key(group).encode() for group in groups])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _measured(rows: Iterator[Part], processes: int, search: bool) -> Iterator[tuple[Part, Measured]]:
    """Yield each piece with what is kept of it, in order. `processes` others do the work while this one reads."""
    if not processes:
        for texts, inputs in rows:
            yield (texts, inputs), measure(texts, inputs, search)
        return
    with ExitStack() as stack:
        # Not forked: a library may have started threads in this process.
        pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        waiting: deque[tuple[Part, Future[Measured]]] = deque()
        try:
            for part in rows:
                waiting.append((part, pool.submit(measure, *part, search)))
                if len(waiting) > AHEAD * processes:
                    part, future = waiting.popleft()
                    yield part, future.result()
            for part, future in waiting:
                yield part, future.result()
        except BrokenProcessPool as problem:
            raise BadInput(
                "a process of the audit was killed, most likely because the memory of the machine is full; close other "
                "programs, or audit a part of the file"
            ) from problem


class _Labels:
    """The labels of all rows as codes."""

    def __init__(self, path: Path, column: str) -> None:
        self.path, self.column = path, column
        self.numbers: dict[Any, int] = {}
        self.values: list[Any] = []
        self.parts: list[np.ndarray] = []
        self.rows = 0

    def add(self, labels: list[Any]) -> None:
        """Add the labels of a piece."""
        codes = [self._code(label, row) for row, label in enumerate(labels, start=self.rows)]
        self.rows += len(codes)
        self.parts.append(np.array(codes, dtype=np.int32))

    def joined(self) -> np.ndarray:
        """Return the codes of all rows."""
        return np.concatenate(self.parts)

    def _code(self, label: Any, row: int) -> int:
        key = label if type(label) is str else (type(label), label)  # 1, True and 1.0 are equal
        try:
            return self.numbers[key]
        except KeyError:
            return self._new(key, label, row)
        except TypeError:  # a list
            return self._new(None, label, row)

    def _new(self, key: Any, label: Any, row: int) -> int:
        if values.kind_of(label):
            # The reader of files in memory says what is wrong with such a label.
            values.with_label_names(pd.DataFrame({"id": [f"{self.path.name}-{row:05d}"], "label": [label]}))
        if label is None or (not isinstance(label, str) and pd.isna(label)) or not str(label).strip():
            code = -1
        else:
            code = len(self.values)
            self.values.append(label)
        self.numbers[key] = code
        if len(self.values) > MOST_LABELS:
            raise BadInput(
                f"{self.path}, column {self.column!r}: more than {MOST_LABELS:,} different labels in the first "
                f"{row + 1:,} rows, too many for classes; is it the right column?"
            )
        return code


class _Sample:
    """Rows drawn at random from a file whose number of rows is not known before its end.

    Each row gets a random number, and the rows with the smallest stay (reservoir sampling with random sort, Sunter
    1977). If they have more than SAMPLED_CHARACTERS, half of them stay, and so on. A text is never cut: its end and
    its length are what some checks look at.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.limit = size, float(size > 0)
        self.draw = np.random.default_rng(seed)
        self.rows: list[tuple[float, int, dict[str, Any]]] = []
        self.characters = 0

    def add(self, begins: int, count: int, record: Callable[[int], dict[str, Any]]) -> None:
        """Draw from a piece of `count` rows; `begins` is the position of the first."""
        keys = self.draw.random(count)
        for row in np.flatnonzero(keys < self.limit).tolist():
            self.rows.append((float(keys[row]), begins + row, record(row)))
            self.characters += _characters(self.rows[-1][2])
            if len(self.rows) > 2 * self.size or self.characters > 2 * SAMPLED_CHARACTERS:
                self._shrink()

    def _shrink(self) -> None:
        self.rows = sorted(self.rows, key=lambda row: row[0])[: self.size]
        self.characters = sum(_characters(record) for _, _, record in self.rows)
        while self.characters > SAMPLED_CHARACTERS and len(self.rows) > FEWEST_SAMPLED:
            # Half, and not as many as fit: the row that does not fit is a long one, and would always be left out.
            self.size = max(FEWEST_SAMPLED, len(self.rows) // 2)
            self.rows = self.rows[: self.size]
            self.characters = sum(_characters(record) for _, _, record in self.rows)
        if self.size and len(self.rows) == self.size:
            self.limit = self.rows[-1][0]

    def table(self, kept: Scan) -> pd.DataFrame:
        """Return the rows in the order of the file, with their ids."""
        self._shrink()
        rows = sorted(self.rows, key=lambda row: row[1])
        table = pd.DataFrame([record for _, _, record in rows], dtype=object)
        table.insert(0, "id", kept.ids(row for _, row, _ in rows))
        return table


def _characters(record: dict[str, Any]) -> int:
    return sum(len(value) for value in record.values() if isinstance(value, str))


class _FirstCopies:
    """The first rows whose text was there before, with their texts: only while the file is read are these at hand."""

    def __init__(self, known: np.ndarray) -> None:
        self.known = np.unique(known)
        self.firsts: dict[int, tuple[int, int, int]] = {}  # of each skeleton: exact, normal and label of its first row
        self.found: dict[str, dict[int, str]] = {kind: {} for kind in ("exact", "normal", "skeleton", "label", "known")}

    @property
    def texts(self) -> dict[int, str]:
        """The texts by the positions of their rows."""
        return {row: text for found in self.found.values() for row, text in found.items()}

    def look(self, texts: Sequence[str | None], measured: Measured, codes: np.ndarray | None, begins: int) -> None:
        """Look for copies in the next piece, whose first row is the row `begins` of the file."""

        def keep(kind: str, row: int) -> None:
            if len(self.found[kind]) < SHOWN:
                self.found[kind][begins + row] = excerpt(texts[row] or "")

        if len(self.known) and len(self.found["known"]) < SHOWN:
            places = np.searchsorted(self.known[:-1], measured.inputs)
            again = (measured.inputs != 0) & (self.known[places] == measured.inputs)
            for row in np.flatnonzero(again)[:SHOWN].tolist():
                keep("known", row)
        enough = all(len(rows) >= SHOWN for kind, rows in self.found.items() if kind != "known")
        if enough or begins > REMEMBERED:
            return
        labels = [-1] * len(measured) if codes is None else codes.tolist()
        rows = zip(measured.exact.tolist(), measured.normal.tolist(), labels, strict=True)
        for row, (skeleton, here) in enumerate(zip(measured.skeleton.tolist(), rows, strict=True)):
            first = self.firsts.setdefault(skeleton, here)
            if first is not here and here[0]:
                keep("exact" if first[0] == here[0] else "normal" if first[1] == here[1] else "skeleton", row)
                if first[2] != here[2]:
                    keep("label", row)
