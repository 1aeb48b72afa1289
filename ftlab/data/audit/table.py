"""The rows under audit, with what several checks need (words, groups of copies, label codes), computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ftlab.data import dialogues, duplicates, histories, sources
from ftlab.data.containment import Contained, contained
from ftlab.data.duplicates import Forms, NearPairs
from ftlab.data.values import is_whole, with_label_names
from ftlab.data.words import Words, shared_lines, without_lines
from ftlab.errors import BadInput
from ftlab.wording import quoted, visible

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

TRAIN = "train"
PARTS = ("instruction", "input")  # the columns that the course's template joins into a prompt


def prepare(
    frames: Mapping[str, pd.DataFrame | None], columns: tuple[str, ...]
) -> tuple[str, pd.DataFrame, dict[str, pd.DataFrame]]:
    """Check the tables; turn their ids and labels into strings.

    If a later split has an id of an earlier one, the ids of the later split get its name in front, as in "test/5".

    Args:
        frames: the rows of each split, the training rows first; None if a split is not given.
        columns: the columns that each table needs besides id.

    Returns:
        The name of the first table, its rows, and the rows of each other split.

    Raises:
        BadInput: a table has no rows or lacks a column, an id is missing or occurs twice, a text is not a string, or
            the first table has a single row.
    """
    prepared: dict[str, pd.DataFrame] = {}
    names = []
    taken: set[str] = set()
    for split, frame in frames.items():
        if frame is None:
            continue
        origin = frame.attrs.get("provenance")
        name = origin.name if isinstance(origin, sources.Provenance) else f"the {split} table"
        if lacking := [column for column in ("id", *columns) if column not in frame.columns]:
            raise BadInput(
                f"{name} lacks the columns {', '.join(lacking)}; it has {', '.join(map(visible, frame.columns))}"
            )
        if frame.empty:
            raise BadInput(f"{name} has no rows; expected at least one")
        rows = frame.reset_index(drop=True)
        again = rows["id"].isna() | rows["id"].duplicated()
        if again.any():
            place = int(again.to_numpy().argmax())
            raise BadInput(
                f"{name}: the id {rows['id'][place]!r} of row {place} is missing or occurs twice; ids must be unique"
            )
        ids = rows["id"].astype(str)
        rows["id"] = [f"{split}/{each}" for each in ids] if ids.isin(taken).any() else ids
        taken |= {*rows["id"]}
        if "label" in columns:
            rows = with_label_names(rows)
        for column in (column for column in columns if column != "label"):
            odd = rows[column].notna() & ~rows[column].map(_is_text)
            if odd.any():
                first = rows[odd].iloc[0]
                said = f"the {column} of row {first['id']} is {quoted(first[column])}"
                raise BadInput(f"{name}: {said}; expected a string that UTF-8 can encode (no lone surrogates)")
        prepared[split] = rows
        names.append(name)
    training, *others = prepared
    if len(prepared[training]) < 2:
        raise BadInput(f"{names[0]} has one row; an audit compares rows, so give it at least two")
    if "label" in columns:
        known = prepared[training]["label"].dropna().unique().tolist()
        prepared |= {split: sources.with_decimals(prepared[split], known) for split in others}
    return names[0], prepared[training], {split: prepared[split] for split in others}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and (value.isascii() or is_whole(value))


@dataclass
class Table:
    """Training rows, and the validation and test rows that belong to them, if any.

    `frame` has the training rows, with their text in `columns`: one column, or prompt and completion for instruction
    data. `texts` has the rows of all splits that have a text, with columns id, text (the columns joined), label and
    split. The arrays below have one entry for each row of `texts`.
    """

    frame: pd.DataFrame
    others: dict[str, pd.DataFrame]
    progress: tqdm
    columns: tuple[str, ...] = ("text",)
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def cached(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the cached result for `key`; the first time, call `compute` to get it."""
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    @property
    def pairs(self) -> bool:
        """Whether this is instruction data."""
        return self.columns != ("text",)

    @property
    def templated(self) -> bool:
        """Whether this is instruction data with an instruction (and perhaps an input) for the course's template."""
        return self.pairs and "instruction" in self.frame

    @property
    def conversations(self) -> bool:
        """Whether the rows are conversations: `messages` has the turns of each, or None of one that cannot be read."""
        return "messages" in self.frame

    @property
    def readable(self) -> pd.DataFrame:
        """The training rows without conversations that cannot be read."""
        return self.frame[self.frame["messages"].notna()] if self.conversations else self.frame

    @property
    def prompt_columns(self) -> tuple[str, ...]:
        """The columns that make up a prompt."""
        return tuple(name for name in PARTS if name in self.frame) if self.templated else self.columns[:-1]

    @cached_property
    def texts(self) -> pd.DataFrame:
        """The rows of all splits that have a text, the training rows first."""
        parts = [self.frame.assign(split=TRAIN)]
        parts += [frame.assign(split=split) for split, frame in self.others.items()]
        rows = pd.concat(parts, ignore_index=True)
        if self.pairs:
            rows["text"] = rows[[*self.columns]].fillna("").agg("\n".join, axis=1)
            rows["label"] = None
        rows = rows[[*dict.fromkeys(["id", "text", "label", "split", *self.columns])]]
        return rows[~sources.blank(rows["text"])].reset_index(drop=True)

    @cached_property
    def train(self) -> np.ndarray:
        """Which rows are training rows."""
        return (self.texts["split"] == TRAIN).to_numpy()

    @cached_property
    def labelled(self) -> np.ndarray:
        """Which rows are training rows with a label: a model would be trained on these."""
        return self.train & ~sources.blank(self.texts["label"]).to_numpy()

    @cached_property
    def split_order(self) -> np.ndarray:
        """The position of each row's split: 0 for training, then those of validation and test that were given."""
        order = {split: place for place, split in enumerate([TRAIN, *self.others])}
        return self.texts["split"].map(order).to_numpy(dtype=np.int64)

    @cached_property
    def said(self) -> list[str]:
        """Each text; for instruction data without lines that many rows share, which tell no rows apart."""
        texts = self.texts["text"]
        if self.pairs and (lines := shared_lines(texts)):
            texts = texts.map(lambda text: without_lines(text, lines))
        return texts.tolist()

    @cached_property
    def words(self) -> Words:
        """The words of each text in `said`, as they are written but for case and punctuation."""
        self.progress.set_description("reading words")
        return Words.of(self.said, self.progress.update)

    @cached_property
    def compared(self) -> Words:
        """The words by which texts are compared: without disguises, and without what many texts begin or end with."""
        return duplicates.compared(self.said, self.words)

    @cached_property
    def forms(self) -> Forms:
        """The forms of each text by which copies are found."""
        self.progress.set_description("searching for copies")
        return duplicates.forms(self.texts["text"])

    @property
    def groups(self) -> np.ndarray:
        """A number for each text; two texts have the same one if they are equal after normalising."""
        return self.forms.same

    @property
    def copies(self) -> np.ndarray:
        """A number for each text; two texts have the same one if they are copies, however they are disguised."""
        return self.forms.skeletons

    @cached_property
    def input_groups(self) -> np.ndarray:
        """Like `copies`, by what a model gets as input: for instruction data by the prompt alone."""
        return duplicates.copies(self.texts["prompt"].fillna("")) if self.pairs else self.copies

    @cached_property
    def whole_dialogues(self) -> np.ndarray:
        """A number for each text; two conversations have the same one if they are of one dialogue.

        As `tasks.load` keeps them on one side (`dialogues.clusters`). Of pairs, each text has a number of its own.
        """
        numbers = np.arange(len(self.texts))
        if not self.conversations:
            return numbers
        parts = [frame for frame in (self.frame, *self.others.values()) if "messages" in frame]
        turns = pd.concat([frame.set_index("id")["messages"] for frame in parts]).reindex(self.texts["id"])
        there = np.flatnonzero(turns.notna().to_numpy())
        if len(there):
            numbers[there] = len(numbers) + dialogues.clusters(turns.iloc[there].tolist())
        return numbers

    @cached_property
    def near(self) -> NearPairs:
        """The near-duplicates among the first rows of all copies."""
        words, firsts = self.compared, self.forms.firsts
        self.progress.set_description("comparing texts")
        return duplicates.near(words, firsts, self.progress.update, texts=self.said)

    @cached_property
    def contained(self) -> Contained:
        """The texts that are a part of another one, among the first rows of all copies."""
        return contained(self.compared, self.forms.firsts)

    @cached_property
    def templates(self) -> np.ndarray:
        """The number of the template that each text was filled into; -1 if there is none."""
        return duplicates.of_templates(self.forms, self.words.sizes)

    @cached_property
    def clusters(self) -> np.ndarray:
        """A number for each text; two texts have the same one if they must not be on two sides of a split.

        They are copies or near-duplicates, one is a part of the other, both were filled into one template, or a chain
        of such links connects them (`duplicates.together`).
        """
        return self._clusters(np.ones(len(self.copies), dtype=bool), self.templates)

    @cached_property
    def train_templates(self) -> np.ndarray:
        """Like `templates`, of the training rows alone."""
        return duplicates.of_templates(self.forms, self.words.sizes, self.train)

    @cached_property
    def train_clusters(self) -> np.ndarray:
        """Like `clusters`, by the links among training rows alone."""
        return self._clusters(self.train, self.train_templates)

    @cached_property
    def near_clusters(self) -> np.ndarray:
        """Like `train_clusters`, by copies and near-duplicates alone, but not by two rows of one dialogue."""
        first, second = _inside(self.train, self.near.first, self.near.second)
        apart = self.dialogues[first] != self.dialogues[second]
        return duplicates.joined(self.copies, (first[apart], second[apart]))

    @cached_property
    def goes_on_with(self) -> np.ndarray:
        """For pairs, the position of the text whose dialogue the prompt goes on with; -1 if there is none."""
        if not self.pairs:
            return np.full(len(self.texts), -1)
        return histories.goes_on_with(*(self.texts[column].fillna("").tolist() for column in ("prompt", "completion")))

    @cached_property
    def dialogues(self) -> np.ndarray:
        """A number for each text; two texts have the same one if they are copies, or pairs of one growing dialogue."""
        later = np.flatnonzero(self.goes_on_with >= 0)
        return duplicates.joined(self.copies, (later, self.goes_on_with[later])) if len(later) else self.copies

    def _clusters(self, wanted: np.ndarray, templates: np.ndarray) -> np.ndarray:
        links = duplicates.split_links(templates, self.near, self.contained, self.compared)
        links = [_inside(wanted, *pairs) for pairs in links]
        return duplicates.joined(self.copies, *links)

    @cached_property
    def counts(self) -> csr_matrix:
        """How often each word occurs in each text: (texts, words)."""
        return self.words.counts()

    @cached_property
    def codes(self) -> np.ndarray:
        """The label of each row as its position in `label_names`; -1 if it has none."""
        numbers = {name: number for number, name in enumerate(self.label_names)}
        return self.texts["label"].map(numbers).fillna(-1).to_numpy(dtype=np.int64)

    @cached_property
    def label_names(self) -> list[str]:
        """The labels of the training rows, sorted."""
        return sorted(self.texts.loc[self.labelled, "label"].unique())

    @property
    def answers(self) -> pd.Series:
        """The training texts, of copies the first; for instruction data their completions."""
        rows = self.texts[self.train]
        rows = rows[~pd.Series(self.copies[self.train], index=rows.index).duplicated()]
        return rows[self.columns[-1]].dropna()

    def copies_in_training(self, ids: tuple[str, ...], *, near: bool) -> set[str]:
        """Return the ids of the training rows that are copies of one of the rows `ids`.

        Copies have the same input, however it is disguised, or are conversations of one dialogue; with `near`, they are
        in the same of the `clusters`.
        """
        listed = self.texts["id"].isin(ids).to_numpy()
        copied = np.zeros(len(listed), dtype=bool)
        for groups in [self.clusters] if near else [self.input_groups, self.whole_dialogues]:
            copied |= np.isin(groups, groups[listed])
        return set(self.texts["id"][self.train & copied])


def _inside(wanted: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of which both are `wanted`."""
    both = wanted[first] & wanted[second]
    return first[both], second[both]
