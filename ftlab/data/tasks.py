"""Instruction tasks: rows of an instruction, perhaps an input, and the output to learn, with test rows unseen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab import files
from ftlab.data import docstrings, duplicates, sources, tables, values
from ftlab.data.splits import Splits
from ftlab.data.subsets import spread
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset

TASKS = ("clinical_notes", "tutor", "summaries")
LIBRARY = "python_docstrings"  # the rows that `tutor` has from Python's standard library
# kind: what sort of answer it is, in proportion in each split; test: code that judges a written function, or nothing;
# group: rows of one group stand in one split.
COLUMNS = ("id", "instruction", "input", "output", "kind", "test", "group")
CLASSIFY = "Is this note a diagnosis, a treatment or a symptom?"
SUMMARIZE = "Summarize this text in one sentence."
ADVICE = "rename the columns of the file: a task's are called instruction and output, and perhaps input, kind and group"
MOST_OF_A_GROUP = 0.1  # of a split: a test of one module alone would say little of others


def read(task: str) -> pd.DataFrame:
    """The rows of a task, in the order of its source: columns id, instruction, input, output, kind, test and group.

    `task` is one of TASKS, or a JSONL, CSV, TSV or Parquet file with columns instruction, output and perhaps input,
    kind and group; an output that is a list or an object is JSON text, and `attrs["note"]` says so. `tutor` is the
    course's own pairs and what Python's standard library says of itself (`docstrings`), grouped by module. Raises
    BadInput for an unknown name, and for a file that cannot be read, has a row without instruction or output, or one
    whose instruction or input is a list or an object.
    """
    if task == "clinical_notes":
        notes = sources.read(task)
        rows = pd.DataFrame({"id": notes["id"], "instruction": CLASSIFY, "input": notes["text"]})
        rows = rows.assign(output=notes["label"], kind=notes["label"])
    elif task == "summaries":
        pairs = _shipped(task).rename(columns={"text": "input", "summary": "output"})
        rows = pairs.assign(instruction=SUMMARIZE, kind="summary")
    elif task == "tutor":
        library = _shipped(LIBRARY).rename(columns={"module": "group"}).assign(kind="library")
        rows = pd.concat([_shipped(task), library], ignore_index=True)
    else:
        rows = _own(task)
    for column in COLUMNS:
        texts = values.plain_texts(rows[column], f"{task}, column {column!r}") if column in rows else ""
        rows[column] = texts if isinstance(texts, str) else texts.fillna("").astype(str)
    return rows[list(COLUMNS)]


def load(
    task: str,
    *,
    rows: int | None,
    validation_rows: int,
    test_rows: int,
    seed: int = 0,
    at_most: bool = False,
    most: int = 0,
    without: Collection[str] = (),
) -> Splits:
    """Training, validation and test rows of a task, without overlap; None takes all that the others leave.

    Rows of one group (a module of the standard library) and near-copies of each other stand in one split, or are left
    out of the others; each kind has its share of each split, and at least a row where a split has room for all kinds
    and there are groups of it enough. A kind of a single group stands among the training rows, and is not tested. With
    `at_most` the sizes are bounds, which shrink to three, one and one fifth of what there is, and to what groups leave.
    With `most` about so many rows are read, spread over the source; the rows whose ids stand in `without` are not
    drawn. Raises BadInput when there are too few rows.
    """
    table = part(task, most)
    texts = (table["instruction"] + "\n" + table["input"]).tolist()
    firsts = np.unique(duplicates.same(texts), return_index=True)[1]
    kept = table.iloc[np.sort(firsts)].reset_index(drop=True)
    apart = _components(kept)
    usable = ~kept["id"].isin(list(without)).to_numpy()
    sizes: list[int | None] = [rows, validation_rows, test_rows]
    there = int(usable.sum())
    if at_most and sum(size or 1 for size in sizes) > there:
        bounds = (3 * there // 5, there // 5, there // 5)
        sizes = [None if size is None else min(size, most) for size, most in zip(sizes, bounds, strict=True)]
    names = ("rows", "validation_rows", "test_rows")
    for name, size in zip(names, sizes, strict=True):
        if size is not None and size < 1:
            raise BadInput(f"{task} has {there:,} rows, and {name} would be {size}; each split needs at least one")
    if (wanted := sum(size or 1 for size in sizes)) > there:
        raise BadInput(f"{task} has {there:,} rows, and {wanted:,} are asked for in all; ask for fewer")
    rng = np.random.default_rng(seed)
    free = np.ones(len(kept), dtype=bool)
    drawn: list[np.ndarray] = []
    # From the last to the first: the test rows stay the same whatever number of training rows is asked for.
    for name, size in zip(reversed(names), reversed(sizes), strict=True):
        places = _draw(kept, apart, free, usable, size, rng, training=name == "rows")
        least = 1 if size is None or at_most else size
        if len(places) < least:
            raise BadInput(
                f"{task} leaves {len(places):,} rows for {name}, which needs {least:,}: groups and near-copies stand "
                "in one split; ask for fewer rows"
            )
        drawn.append(places)
        free &= ~np.isin(apart, apart[places])
    provenance = _provenance(task)._replace(note=table.attrs.get("note", ""))
    train, validation, test = (_dataset(kept.iloc[places], provenance) for places in reversed(drawn))
    return Splits(train, validation, test, len(table) - len(kept))


def part(task: str, most: int = 0) -> pd.DataFrame:
    """The rows of a task as `read` gives them; with `most` about so many, spread over the source, of each kind some."""
    return spread(read(task), most, by="kind")


def as_pairs(rows: Dataset) -> pd.DataFrame:
    """Rows as `audit_instructions` takes them: columns id, instruction, input, prompt and completion."""
    frame = rows.to_pandas()
    prompts = (frame["instruction"] + "\n" + frame["input"]).str.strip()
    return frame[["id", "instruction", "input"]].assign(prompt=prompts, completion=frame["output"])


def _components(table: pd.DataFrame) -> np.ndarray:
    """A number for each row, equal where two rows share a group or are near-copies, or are linked by such rows."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    # The words of an instruction that rows share would make short inputs look alike; a number tells it from others.
    numbers = pd.Series(pd.factorize(table["instruction"])[0].astype(str))
    begins = (numbers + " ").where(table["instruction"].duplicated(keep=False), table["instruction"] + "\n")
    near = duplicates.together((begins + table["input"]).tolist())
    own = pd.Series([f"row {number}" for number in range(len(table))])
    groups = pd.factorize(table["group"].where(table["group"] != "", own))[0]
    size = int(near.max()) + 1
    links = coo_matrix((np.ones(len(table)), (near, size + groups)), shape=(size + groups.max() + 1,) * 2)
    return connected_components(links, directed=False)[1][near]


def _draw(
    table: pd.DataFrame,
    apart: np.ndarray,
    free: np.ndarray,
    usable: np.ndarray,
    size: int | None,
    rng: np.random.Generator,
    *,
    training: bool,
) -> np.ndarray:
    """The places of `size` free rows (None: all), each kind in its share and no component with too many of them.

    Rows that are not `usable` are passed over when their turn comes: what is drawn of the others does not move. Unless
    this is the `training` split, a component of each kind is left to it, as far as there are rows without.
    """
    if size is None:
        places = rng.permutation(np.flatnonzero(free))
        return places[usable[places]]
    kinds = table["kind"].to_numpy()
    names, of = np.unique(kinds, return_inverse=True)
    there = free & usable
    if not training and 1 < len(names) <= size:
        others = there & ~np.isin(apart, _last_of_each_kind(of, apart, there, size))
        there = others if others.sum() >= size else there
    of_each = np.bincount(of[there], minlength=len(names))
    quota = _shares(np.bincount(of), of_each, size, rng)
    while (absent := (quota == 0) & (of_each > 0)).any() and quota.max() > 1:  # a row of each kind, if there is room
        quota[quota.argmax()] -= 1
        quota[absent.argmax()] += 1
    most = max(1, int(MOST_OF_A_GROUP * size))
    chosen: list[int] = []
    for name, wanted in zip(names, quota, strict=True):
        places = rng.permutation(np.flatnonzero(free & (kinds == name)))
        places = places[there[places]]
        rank = pd.Series(apart[places]).groupby(apart[places]).cumcount().to_numpy()
        few = np.concatenate([places[rank < most], places[rank >= most]])  # more of a component only where it must be
        chosen.extend(few[:wanted])
    return rng.permutation(np.array(chosen, dtype=int))


def _last_of_each_kind(of: np.ndarray, apart: np.ndarray, there: np.ndarray, size: int) -> list[int]:
    """The component with the most rows of a kind, for each kind of which a draw of `size` could take all components."""
    share = np.bincount(of) * (size / len(of))
    last = []
    for kind in np.unique(of[there]):
        components, rows = np.unique(apart[there & (of == kind)], return_counts=True)
        if len(components) <= np.ceil(share[kind]):
            last.append(int(components[rows.argmax()]))
    return last


def _shares(counts: np.ndarray, there: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """How many rows of each kind make `size`: in the proportion of `counts`, and no more than are `there`."""
    exact = counts * (size / counts.sum())
    quota = np.minimum(np.floor(exact).astype(int), there)
    lot = 1e-9 * rng.spawn(1)[0].random(len(counts))  # else of kinds of one size the first names would always win
    for _ in range(min(size, int(there.sum())) - int(quota.sum())):
        quota[np.where(quota < there, exact - quota + lot, -np.inf).argmax()] += 1
    return quota


def _shipped(name: str) -> pd.DataFrame:
    with (sources.ROWS / f"{name}.jsonl").open(encoding="utf-8") as lines:  # ends a line at \n, and not at U+2028
        rows = pd.DataFrame([json.loads(line) for line in lines])
    return rows if "id" in rows else rows.assign(id=[f"{name}-{number:05d}" for number in range(len(rows))])


def _own(task: str) -> pd.DataFrame:
    path, there = files.named_path(task, "a task's name or the path of a file")
    if not (there or path.suffix or "/" in task):
        raise BadInput(f"there is no task {task!r}; there are {', '.join(TASKS)}, or give the path of a file")
    rows = tables.read_table(path, ["instruction", "output"], advice=ADVICE)
    for column in ("instruction", "output"):
        empty = sources.blank(rows[column])
        if empty.any():
            raise BadInput(f"row {int(empty.argmax())} of {path} has no {column}; give it one, or leave the row out")
    outputs, note = values.as_answers(rows["output"], f"{path.name}, column 'output'")
    for column in ("instruction", "input"):
        if column in rows:
            rows[column] = values.plain_texts(rows[column], f"{path}, column {column!r}")
    # A column `test` of a stranger's file is no code to run.
    rows = rows.drop(columns="test", errors="ignore").assign(output=outputs)
    rows.attrs["note"] = note
    return rows.assign(id=[f"{path.name}-{number:05d}" for number in range(len(rows))])


def _dataset(rows: pd.DataFrame, provenance: sources.Provenance) -> Dataset:
    from datasets import Dataset

    dataset = Dataset.from_pandas(rows.reset_index(drop=True), preserve_index=False)
    dataset.info.dataset_name = provenance.name
    dataset.info.description = json.dumps(provenance._asdict())
    return dataset


def _provenance(task: str) -> sources.Provenance:
    if task not in TASKS:
        path = files.named_path(task, "the path of a file")[0]
        return sources.Provenance(path.name, str(path), "your own", files.sha256(path))
    shipped = sources.ROWS / f"{task}.{'csv' if task in sources.SOURCES else 'jsonl'}"
    if task != "tutor":
        return sources.Provenance(task, "shipped with ftlab", "Apache-2.0", files.sha256(shipped))
    origin = f"shipped with ftlab, with the docstrings of Python {docstrings.MADE_WITH}"
    both = "".join(map(files.sha256, (shipped, sources.ROWS / f"{LIBRARY}.jsonl")))
    checksum = hashlib.sha256(both.encode()).hexdigest()
    return sources.Provenance(task, origin, "Apache-2.0; the docstrings PSF-2.0", checksum)


def check(task: str) -> None:
    """Raise BadInput unless `task` is a known name or a file with rows to learn from."""
    if task not in TASKS:
        _own(task)
