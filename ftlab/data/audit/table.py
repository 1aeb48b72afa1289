"""The rows under audit, and what several checks ask of them, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ftlab.data import duplicates, sources
from ftlab.data.duplicates import NearPairs
from ftlab.data.words import Words
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

TRAIN = "train"


def require_columns(frames: Mapping[str, pd.DataFrame], columns: Sequence[str]) -> str:
    """The name of the first table, where each has the columns and it has two rows or more; BadInput where not."""
    names = []
    for split, frame in frames.items():
        origin = frame.attrs.get("provenance")
        names.append(origin.name if origin else f"the {split} table")
        if lacking := [column for column in columns if column not in frame.columns]:
            there = ", ".join(map(str, frame.columns))
            raise BadInput(f"{names[-1]} lacks the columns {', '.join(lacking)}; it has {there}")
        if frame.empty:
            raise BadInput(f"{names[-1]} has no rows; expected at least one")
    if len(next(iter(frames.values()))) < 2:
        raise BadInput(f"{names[0]} has one row; an audit compares rows, so give it at least two")
    return names[0]


@dataclass
class Table:
    """Training rows, and the validation and test rows that belong to them, if any.

    `frame` is the training rows as they were given, with their text in `columns`: one, or the prompt and completion of
    instruction data. Everything else speaks of `texts`: the rows of all splits that have a text, with columns id, text
    (the columns joined), label and split. Arrays here have one entry for each of these rows.
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

    @cached_property
    def texts(self) -> pd.DataFrame:
        """The rows of all splits that have a text, the training rows first."""
        parts = [self.frame.assign(split=TRAIN)]
        parts += [frame.assign(split=split) for split, frame in self.others.items()]
        rows = pd.concat(parts, ignore_index=True)
        if self.columns != ("text",):
            rows["text"] = rows[[*self.columns]].fillna("").agg("\n".join, axis=1)
            rows["label"] = None
        rows = rows[["id", "text", "label", "split"]]
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
    def words(self) -> Words:
        """The words of each text."""
        self.progress.set_description("reading words")
        return Words.of(self.texts["text"].tolist(), self.progress.update)

    @cached_property
    def groups(self) -> np.ndarray:
        """A number for each text, equal where texts are equal after normalising."""
        return duplicates.same(self.texts["text"].tolist(), self.words)

    @cached_property
    def near(self) -> NearPairs:
        """The near-duplicates among the first rows of each group."""
        words, firsts = self.words, np.unique(self.groups, return_index=True)[1]
        self.progress.set_description("comparing texts")
        return duplicates.near(words, firsts, self.progress.update)

    @cached_property
    def clusters(self) -> np.ndarray:
        """A number for each text, equal where a chain of near-duplicates leads from one to the other."""
        pairs = self.near
        size = int(self.groups.max()) + 1 if len(self.groups) else 0
        return duplicates.clusters(size, self.groups[pairs.first], self.groups[pairs.second])[self.groups]

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
    def distinct_texts(self) -> pd.Series:
        """The training texts, of equal ones the first."""
        texts = self.texts["text"][self.train]
        return texts[~pd.Series(self.groups[self.train], index=texts.index).duplicated()]

    def copies_in_training(self, ids: tuple[str, ...], *, near: bool) -> set[str]:
        """The ids of the training rows that are equal to one of the rows `ids`, or in its cluster with `near`."""
        groups = self.clusters if near else self.groups
        wanted = groups[self.texts["id"].isin(ids).to_numpy()]
        return set(self.texts["id"][self.train & pd.Series(groups).isin(wanted).to_numpy()])
