"""The rows under audit, with what several checks need (words, groups of copies, label codes), computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ftlab.data import duplicates, sources
from ftlab.data.duplicates import NearPairs
from ftlab.data.values import is_whole, with_label_names
from ftlab.data.words import Words, shared_lines, without_lines
from ftlab.errors import BadInput

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
                f"{name} lacks the columns {', '.join(lacking)}; it has {', '.join(map(str, frame.columns))}"
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
                said = f"the {column} of row {first['id']} is {first[column]!a:.60}"
                raise BadInput(f"{name}: {said}; expected a string that UTF-8 can encode (no lone surrogates)")
        prepared[split] = rows
        names.append(name)
    training, *others = prepared
    if len(prepared[training]) < 2:
        raise BadInput(f"{names[0]} has one row; an audit compares rows, so give it at least two")
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
    def words(self) -> Words:
        """The words of each text; for instruction data without lines that many rows share, which tell no rows apart."""
        self.progress.set_description("reading words")
        texts = self.texts["text"]
        if self.pairs and (lines := shared_lines(texts)):
            texts = texts.map(lambda text: without_lines(text, lines))
        return Words.of(texts.tolist(), self.progress.update)

    @cached_property
    def groups(self) -> np.ndarray:
        """A number for each text; two texts have the same one if they are equal after normalising."""
        return duplicates.same(self.texts["text"])

    @cached_property
    def input_groups(self) -> np.ndarray:
        """Like `groups`, by what a model gets as input: for instruction data by the prompt alone."""
        return duplicates.same(self.texts["prompt"].fillna("")) if self.pairs else self.groups

    @cached_property
    def near(self) -> NearPairs:
        """The near-duplicates among the first rows of all groups."""
        words, firsts = self.words, np.unique(self.groups, return_index=True)[1]
        self.progress.set_description("comparing texts")
        return duplicates.near(words, firsts, self.progress.update)

    @cached_property
    def clusters(self) -> np.ndarray:
        """A number for each text; two texts have the same one if a chain of near-duplicates connects them."""
        return self._clusters(np.ones(len(self.near), dtype=bool))

    @cached_property
    def train_clusters(self) -> np.ndarray:
        """Like `clusters`, by the near-duplicates among training rows alone."""
        return self._clusters(self.train[self.near.first] & self.train[self.near.second])

    def _clusters(self, wanted: np.ndarray) -> np.ndarray:
        first, second = self.near.first[wanted], self.near.second[wanted]
        size = int(self.groups.max()) + 1 if len(self.groups) else 0
        return duplicates.clusters(size, self.groups[first], self.groups[second])[self.groups]

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
        """The training texts, of equal ones (after normalising) the first; for instruction data their completions."""
        rows = self.texts[self.train]
        rows = rows[~pd.Series(self.groups[self.train], index=rows.index).duplicated()]
        return rows[self.columns[-1]].dropna()

    def copies_in_training(self, ids: tuple[str, ...], *, near: bool) -> set[str]:
        """Return the ids of the training rows that are copies of one of the rows `ids`.

        Copies have the same input after normalising; with `near`, they are in the same cluster of near-duplicates.
        """
        groups = self.clusters if near else self.input_groups
        wanted = groups[self.texts["id"].isin(ids).to_numpy()]
        return set(self.texts["id"][self.train & np.isin(groups, wanted)])
