"""The rows under audit, and what several checks ask of them, worked out once."""

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
PARTS = ("instruction", "input")  # of a prompt, where it is not whole


def prepare(
    frames: Mapping[str, pd.DataFrame | None], columns: tuple[str, ...]
) -> tuple[str, pd.DataFrame, dict[str, pd.DataFrame]]:
    """The name of the first table, the first table, and the others that are there; ids and labels become text.

    Where ids of two splits are the same, those of the later one get the split's name before them. Raises BadInput for a
    table that lacks a column or rows, has an id twice or a row without one, or holds a text that is none.
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
                f"{name}: the id {rows['id'][place]!r} of row {place} is missing or stands twice; ids name rows"
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
                raise BadInput(f"{name}: {said}; expected a string of whole characters")
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

    `frame` is the training rows, with their text in `columns`: one, or the prompt and completion of instruction data.
    Everything else speaks of `texts`: the rows of all splits that have a text, with columns id, text (the columns
    joined), label and split. Arrays here have one entry for each of these rows.
    """

    frame: pd.DataFrame
    others: dict[str, pd.DataFrame]
    progress: tqdm
    columns: tuple[str, ...] = ("text",)
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def kept(self, key: Hashable, work: Callable[[], Any]) -> Any:
        """What `work` returned for `key` the first time: for results that a later question asks for again."""
        if key not in self._kept:
            self._kept[key] = work()
        return self._kept[key]

    @property
    def pairs(self) -> bool:
        """Whether this is instruction data."""
        return self.columns != ("text",)

    @property
    def templated(self) -> bool:
        """Whether this is instruction data that the course's template goes around: an instruction, perhaps an input."""
        return self.pairs and "instruction" in self.frame

    @property
    def prompt_columns(self) -> tuple[str, ...]:
        """The columns that a prompt is made of."""
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
        """Which rows are training rows with a label: those that a model would be trained on."""
        return self.train & ~sources.blank(self.texts["label"]).to_numpy()

    @cached_property
    def split_order(self) -> np.ndarray:
        """The place of each row's split: 0 for training, then validation and test as they are there."""
        order = {split: place for place, split in enumerate([TRAIN, *self.others])}
        return self.texts["split"].map(order).to_numpy(dtype=np.int64)

    @cached_property
    def words(self) -> Words:
        """The words of each text; of instruction data without the lines that many rows share, which say nothing."""
        self.progress.set_description("reading words")
        texts = self.texts["text"]
        if self.pairs and (lines := shared_lines(texts)):
            texts = texts.map(lambda text: without_lines(text, lines))
        return Words.of(texts.tolist(), self.progress.update)

    @cached_property
    def groups(self) -> np.ndarray:
        """A number for each text, equal where texts are equal after normalising."""
        return duplicates.same(self.texts["text"])

    @cached_property
    def asked(self) -> np.ndarray:
        """As `groups`; for instruction data by the prompt alone, since a known prompt is a known question."""
        return duplicates.same(self.texts["prompt"].fillna("")) if self.pairs else self.groups

    @cached_property
    def near(self) -> NearPairs:
        """The near-duplicates among the first rows of each group."""
        words, firsts = self.words, np.unique(self.groups, return_index=True)[1]
        self.progress.set_description("comparing texts")
        return duplicates.near(words, firsts, self.progress.update)

    @cached_property
    def clusters(self) -> np.ndarray:
        """A number for each text, equal where a chain of near-duplicates leads from one to the other."""
        return self._clusters(np.ones(len(self.near), dtype=bool))

    @cached_property
    def train_clusters(self) -> np.ndarray:
        """As `clusters`, by the near-duplicates among training rows alone."""
        return self._clusters(self.train[self.near.first] & self.train[self.near.second])

    def _clusters(self, wanted: np.ndarray) -> np.ndarray:
        first, second = self.near.first[wanted], self.near.second[wanted]
        size = int(self.groups.max()) + 1 if len(self.groups) else 0
        return duplicates.clusters(size, self.groups[first], self.groups[second])[self.groups]

    @cached_property
    def counts(self) -> csr_matrix:
        """How often each text holds each word."""
        return self.words.counts()

    @cached_property
    def codes(self) -> np.ndarray:
        """The label of each row as a number, in the order of `label_names`; -1 where there is none."""
        numbers = {name: number for number, name in enumerate(self.label_names)}
        return self.texts["label"].map(numbers).fillna(-1).to_numpy(dtype=np.int64)

    @cached_property
    def label_names(self) -> list[str]:
        """The labels of the training rows, sorted."""
        return sorted(self.texts.loc[self.labelled, "label"].unique())

    @property
    def answers(self) -> pd.Series:
        """The training texts, equal ones once; of instruction data, their completions."""
        rows = self.texts[self.train]
        rows = rows[~pd.Series(self.groups[self.train], index=rows.index).duplicated()]
        return rows[self.columns[-1]].dropna()

    def copies_in_training(self, ids: tuple[str, ...], *, near: bool) -> set[str]:
        """The ids of the training rows that are equal to one of the rows `ids`, or in its cluster with `near`."""
        groups = self.clusters if near else self.asked
        wanted = groups[self.texts["id"].isin(ids).to_numpy()]
        return set(self.texts["id"][self.train & np.isin(groups, wanted)])
