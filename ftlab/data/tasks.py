"""Instruction tasks: rows of an instruction, perhaps an input, and the output to learn, in three splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab import files
from ftlab.data import (
    conversations,
    dialogues,
    docstrings,
    duplicates,
    group_columns,
    sources,
    stratified,
    tables,
    values,
)
from ftlab.data.splits import Splits
from ftlab.data.subsets import spread
from ftlab.errors import BadInput
from ftlab.wording import visible

if TYPE_CHECKING:
    from datasets import Dataset

TASKS = ("clinical_notes", "tutor", "summaries")
LIBRARY = "python_docstrings"  # the rows that `tutor` has from Python's standard library
# kind: the sort of answer; each split has the kinds in proportion. test: code that judges a function, or empty.
# group: rows of one group stay in one split.
COLUMNS = ("id", "instruction", "input", "output", "kind", "test", "group")
CLASSIFY = "Is this note a diagnosis, a treatment or a symptom?"
SUMMARIZE = "Summarize this text in one sentence."
PAIR = ("instruction", "input", "output")
OWN = ("id", "kind", "group")  # that are read of a file of one's own; its column `test` must not be run as code
MESSAGES = "messages"  # one more column, if the rows are conversations
ADVICE = "rename the columns of the file: a task's are called instruction and output, and perhaps input, kind and group"


def read(task: str) -> pd.DataFrame:
    """Return the rows of a task in the order of its source: id, instruction, input, output, kind, test and group.

    `tutor` has the course's own pairs and the docstrings of Python's standard library (`docstrings`), grouped by
    module.

    Args:
        task: one of TASKS, or a JSONL, CSV, TSV or Parquet file with columns instruction, output and perhaps input,
            kind and group. An output that is a list or an object becomes JSON text. A file of conversations
            (`conversations.of_frame`) has one more column, `messages`: the turns of each. The last question is then
            the instruction, and the last answer the output. `attrs["note"]` says what became JSON text, and names the
            other columns, which are not read.

    Raises:
        BadInput: the name is unknown, the file cannot be read, a row has no instruction or output, an instruction or
            input is a list or an object, a pair has earlier turns or a system text in a column of its own
            (`conversations.require_whole`), or a conversation cannot be learned from (`conversations.problem_of`).
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
    return rows[[*COLUMNS, *([MESSAGES] if MESSAGES in rows else [])]]


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
    """Draw disjoint training, validation and test rows of a task, with its kinds in proportion.

    Of rows with equal instruction and input (of conversations: with equal turns before the last answer) the first is
    kept, whatever their outputs (`duplicates.distinct`). Rows of one group, near-duplicates and rows of one dialogue
    (`dialogues.clusters`) stay in one split (`stratified.draw_kinds`). Each kind has a row in each split that has room
    for all kinds, if it has enough groups; a kind of a single group is in the training split alone.

    Args:
        task: as for `read`.
        rows: of the training split; None takes all that the others leave.
        validation_rows: of the validation split.
        test_rows: of the test split.
        seed: of the draw.
        at_most: whether the sizes are upper bounds, which shrink to three, one and one fifth of the rows, and to the
            rows that groups leave.
        most: about how many rows to read, spread over the source (0: all).
        without: ids of rows that must not be drawn.

    Returns:
        The splits, with the columns of `read`.

    Raises:
        BadInput: there are too few rows.
    """
    table = part(task, most)
    kept = table.iloc[duplicates.distinct(_asked(table))].reset_index(drop=True)
    drawn = stratified.draw_kinds(
        kept["kind"].to_numpy(),
        _clusters(kept),
        {"rows": rows, "validation_rows": validation_rows, "test_rows": test_rows},
        usable=~kept["id"].isin(list(without)).to_numpy(),
        seed=seed,
        at_most=at_most,
        what=task,
    )
    provenance = _provenance(task)._replace(note=table.attrs.get("note", ""))
    train, validation, test = (_dataset(kept.iloc[places], provenance) for places in drawn)
    return Splits(train, validation, test, len(table) - len(kept))


def part(task: str, most: int = 0) -> pd.DataFrame:
    """Return the rows of `task` as `read` does; with `most`, about that many, spread over the source and its kinds."""
    return spread(read(task), most, by="kind")


def as_pairs(rows: Dataset) -> pd.DataFrame:
    """Return `rows` as `audit_instructions` takes them: columns id, instruction, input, prompt and completion.

    Conversations have the columns of `sources.read_conversations`: id, prompt, completion, messages and problem.
    """
    if MESSAGES in rows.column_names:
        said = list(rows[MESSAGES])
        pairs = pd.DataFrame({"id": list(rows["id"]), "problem": ""}, dtype=object)
        pairs["prompt"], pairs["completion"] = (
            [conversations.said_by(turns, role) for turns in said] for role in ("user", "assistant")
        )
        return pairs.assign(messages=pd.Series(said, dtype=object))
    frame = rows.to_pandas()
    return frame[["id", "instruction", "input"]].assign(prompt=_asked(frame).str.strip(), completion=frame["output"])


def _asked(table: pd.DataFrame) -> pd.Series:
    """What each row says before the answer to learn."""
    if MESSAGES not in table:
        return table["instruction"] + "\n" + table["input"]
    said = [conversations.question({MESSAGES: turns}) for turns in table[MESSAGES]]
    alone = [turns[0]["content"] if len(turns) == 1 else conversations.written(turns) for turns in said]
    return pd.Series(alone, index=table.index, dtype=object)


def _clusters(table: pd.DataFrame) -> np.ndarray:
    """A number for each row, equal for rows of one group or dialogue, near-duplicates, and chains of such links."""
    # An instruction that several rows share would make short inputs near-duplicates, so a number replaces it. In
    # conversations a system turn is what many rows share.
    shared, own_words = table["instruction"], table["input"]
    if MESSAGES in table:
        said = [conversations.question({MESSAGES: turns}) for turns in table[MESSAGES]]
        parts = [["\n".join(turn["content"] for turn in turns if (turn["role"] == "system") == told)
                  for turns in said] for told in (True, False)]  # fmt: skip
        shared, own_words = (pd.Series(part, index=table.index, dtype=object) for part in parts)
    numbers = pd.Series(pd.factorize(shared)[0].astype(str))
    begins = (numbers + " ").where(shared.duplicated(keep=False), shared + "\n")
    groups = group_columns.numbers(table["group"])
    of_dialogues = [dialogues.clusters(table[MESSAGES].tolist())] if MESSAGES in table else []
    alike = duplicates.together((begins + own_words).tolist())
    return group_columns.chained(alike, groups, *of_dialogues)


def _shipped(name: str) -> pd.DataFrame:
    with (sources.ROWS / f"{name}.jsonl").open(encoding="utf-8") as lines:  # splitlines would end a line at U+2028
        rows = pd.DataFrame([json.loads(line) for line in lines])
    return rows if "id" in rows else rows.assign(id=sources.row_ids(name, len(rows)))


def _own(task: str) -> pd.DataFrame:
    path, there = files.named_path(task, "a task's name or the path of a file")
    if not (there or path.suffix or "/" in task):
        raise BadInput(f"there is no task {task!r}; there are {', '.join(TASKS)}, or give the path of a file")
    rows = tables.read_table(path, ["instruction", "output"], advice=ADVICE, unless=conversations.of_frame)
    rows = rows.assign(id=sources.row_ids(path.name, len(rows)))
    named = conversations.of_frame(rows)
    return _of_conversations(rows, named, path) if named else _of_pairs(rows, path)


def _of_conversations(rows: pd.DataFrame, named: str, path: Path) -> pd.DataFrame:
    conversations.require_alone(rows, str(path))
    said = conversations.read(rows[named], f"{path}, column {named!r}")
    what = f"{path.name}: the rows are the conversations in column {named!r}"
    note = _note(what, rows, {named, *OWN})
    rows = rows[[name for name in rows if name in OWN and name != named]].assign(
        instruction=[turns[-2]["content"] for turns in said], output=[turns[-1]["content"] for turns in said]
    )
    rows[MESSAGES] = pd.Series(said, index=rows.index, dtype=object)
    rows.attrs["note"] = note
    return rows


def _note(what: str, rows: pd.DataFrame, read: Collection[str]) -> str:
    """A sentence that begins with `what` and names the columns of `rows` that are not `read`, if any says something."""
    unread = [visible(name) for name in rows if name not in read and rows[name].map(conversations.is_said).any()]
    return f"{what}; not read beside them: {', '.join(unread)}" if unread else ""


def _of_pairs(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    conversations.require_whole(rows, str(path))
    for column in ("instruction", "output"):
        empty = sources.blank(rows[column])
        if empty.any():
            raise BadInput(f"row {int(empty.argmax())} of {path} has no {column}; give it one, or leave the row out")
    outputs, converted = values.as_answers(rows["output"], f"{path.name}, column 'output'")
    for column in ("instruction", "input"):
        if column in rows:
            rows[column] = values.plain_texts(rows[column], f"{path}, column {column!r}")
    read = [name for name in rows if name in (*PAIR, *OWN)]
    unread = _note(f"{path.name}: the rows are pairs of instruction and output", rows, read)
    rows = rows[read].assign(output=outputs)
    rows.attrs["note"] = "; ".join(filter(None, [unread, converted]))
    return rows


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
    """Raise BadInput unless `task` is a known name or a file with usable rows."""
    if task not in TASKS:
        _own(task)
