"""Train, validation and test: stratified, no text or near-copy of it in two of them, and the test split sealed.

Validation is for choosing and may be looked at as often as you like. The test split judges once: each look at it
that changes what you do next makes its score a little less true. So it has to be opened by name, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ftlab.data import duplicates
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


SHORT = 0.1  # of the rows of a class in a split, which whole clusters may leave unfilled


@dataclass
class Splits:
    """A training, a validation and a sealed test split, each a Dataset of columns id, text and label.

    `dropped` counts the rows that were left out: equal texts (after `normalise`) but the first, equal texts whose
    labels contradict each other, and near-duplicates of test rows that the source brought; `openings` holds the reason
    given each time that the test split was opened.
    """

    train: Dataset
    validation: Dataset
    _test: Dataset = field(repr=False)
    dropped: int
    openings: list[str] = field(default_factory=list)

    @property
    def label_names(self) -> list[str]:
        """The names of the labels, in the order of their ids."""
        return list(self.train.features["label"].names)

    @property
    def sizes(self) -> dict[str, int]:
        """Rows in each split; counting does not open the test split."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self._test)}

    def open_test(self, why: str) -> Dataset:
        """The test split. `why` is kept in `openings`, for the record of the run."""
        if not why.strip():
            raise BadInput("the test split is opened with a reason; say what it is to judge")
        self.openings.append(why)
        return self._test


def split(
    dataset: DatasetDict,
    *,
    rows: int | None,
    validation_rows: int,
    test_rows: int | None,
    seed: int = 0,
    at_most: bool = False,
) -> Splits:
    """Draw training, validation and test rows without overlap; None takes all that the others leave.

    Each split has the classes in the proportion of the whole, and each class at least once. Of texts that are equal
    after `normalise` the first is kept; where their labels contradict each other, none is kept. Near-duplicates
    (`duplicates.near`) stay together: a cluster stands in one split, or is left out where it fits into none. When the
    source brings a test split of its own, the test rows come from there, and training rows that are near-duplicates of
    them are left out. With `at_most` the sizes are upper bounds: where there are fewer rows than they ask for, no split
    gets more than its part of what there is: three, one and one fifth. Raises BadInput when there are too few rows.
    """
    from datasets import concatenate_datasets

    everything = concatenate_datasets([part for name, part in dataset.items() if name != "test"])
    if "test" not in dataset:
        if test_rows is None:
            raise BadInput("test_rows is 0 (all), and this data set has no test split of its own; give a number")
        clusters, kept = duplicates.together(list(everything["text"])), _distinct(everything)
        sizes = [rows, validation_rows, test_rows]
        train, validation, test = _draw(everything.select(kept), clusters[kept], sizes, seed, at_most)
        return Splits(train, validation, test, len(everything) - len(kept))
    judging, size = dataset["test"], len(everything)
    clusters = duplicates.together([*everything["text"], *judging["text"]])
    candidates = _distinct(judging)
    # The judges are drawn from rows that are given; whether two of them are alike is for their makers to say.
    (test,) = _draw(judging.select(candidates), np.arange(len(candidates)), [test_rows], seed, at_most)
    drawn = clusters[size:][np.isin(list(judging["id"]), list(test["id"]))]
    unseen = np.flatnonzero(~np.isin(clusters[:size], drawn))
    kept = unseen[_distinct(everything.select(unseen))]
    train, validation = _draw(everything.select(kept), clusters[kept], [rows, validation_rows], seed, at_most)
    return Splits(train, validation, test, len(judging) - len(candidates) + size - len(kept))


def part(dataset: Dataset, rows: int) -> Dataset:
    """The first rows of a split that make `rows`, with its classes in their proportion and each at least once."""
    labels = np.asarray(dataset["label"])
    by_class = [np.flatnonzero(labels == label) for label in range(len(dataset.features["label"].names))]
    take = _shares(np.array([len(indices) for indices in by_class]), rows, keep=0)
    chosen = [indices[:count] for indices, count in zip(by_class, take, strict=True)]
    return dataset.select(np.sort(np.concatenate(chosen)))


def _distinct(dataset: Dataset) -> np.ndarray:
    """The place of the first row of each text, in order; none where equal texts have different labels."""
    labels = np.asarray(dataset["label"])
    _, firsts, of = np.unique(duplicates.same(dataset["text"]), return_index=True, return_inverse=True)
    contradicted = np.zeros(len(firsts), dtype=bool)
    contradicted[of[labels != labels[firsts][of]]] = True
    return np.sort(firsts[~contradicted])


def _draw(
    pool: Dataset, clusters: np.ndarray, sizes: list[int | None], seed: int, at_most: bool = False
) -> list[Dataset]:
    """Stratified, disjoint draws from `pool`; the first size may be None, for all that the others leave."""
    names = pool.features["label"].names
    if at_most and _wanted(sizes, len(names)) > len(pool):
        fitting = _fitting(len(pool), len(sizes))
        sizes = [None if size is None else min(size, most) for size, most in zip(sizes, fitting, strict=True)]
    labels = np.asarray(pool["label"])
    by_class = [np.flatnonzero(labels == label) for label in range(len(names))]
    _require_enough([len(indices) for indices in by_class], names, sizes)
    rng = np.random.default_rng(seed)
    by_class = [rng.permutation(indices) for indices in by_class]
    members = _members(clusters)
    gone = np.zeros(len(labels), dtype=bool)
    drawn: list[Dataset] = []
    # From the last to the first: the test rows stay the same whatever number of training rows is asked for.
    for place in reversed(range(len(sizes))):
        by_class = [indices[~gone[indices]] for indices in by_class]
        left = np.array([len(indices) for indices in by_class])
        size = sizes[place]
        take = left if size is None else _shares(left, size, keep=place)
        chosen = _fill(by_class, take, labels, clusters, members)
        gone[chosen] = True
        drawn.append(pool.select(rng.permutation(chosen)))
    return drawn[::-1]


def _members(clusters: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each cluster of two or more."""
    order = np.argsort(clusters, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    return {int(clusters[part[0]]): part for part in parts if len(part) > 1}


def _fill(
    by_class: list[np.ndarray],
    take: np.ndarray,
    labels: np.ndarray,
    clusters: np.ndarray,
    members: dict[int, np.ndarray],
) -> np.ndarray:
    """Rows in the order of `by_class` until each class has what it should; a cluster comes whole or not at all.

    Where nothing but clusters is left, a split may stay a little short; BadInput where it would by more than a tenth.
    """
    room = take.copy()
    chosen: dict[int, None] = {}
    for label, indices in enumerate(by_class):
        for index in map(int, indices):
            if not room[label]:
                break
            if index in chosen:
                continue
            cluster = members.get(clusters[index])
            together = np.array([index]) if cluster is None else cluster
            needed = np.bincount(labels[together], minlength=len(room))
            if (needed <= room).all():
                chosen.update(dict.fromkeys(map(int, together)))
                room -= needed
    if (room > np.ceil(SHORT * take)).any():
        raise BadInput(
            f"{int(room.sum()):,} rows of a split could not be filled: the rows that are left are near-duplicates of "
            "each other, and a cluster of them stays in one split; ask for fewer rows, or drop near-duplicates first"
        )
    return np.array(list(chosen))


def _shares(left: np.ndarray, size: int, keep: int) -> np.ndarray:
    """How many rows of each class make `size`, in the proportion of what is left (largest remainders).

    Each class gives at least one row, and keeps at least `keep` for the draws to come.
    """
    most = left - keep
    exact = left * (size / left.sum())
    take = np.clip(np.floor(exact).astype(int), 1, most)
    while (short := size - take.sum()) != 0:
        step = int(np.sign(short))
        open_classes = take < most if step > 0 else take > 1
        gap = np.where(open_classes, (exact - take) * step, -np.inf)
        take[int(gap.argmax())] += step
    return take


def _wanted(sizes: list[int | None], classes: int) -> int:
    """How many rows the sizes ask for at least: all that the others leave is one of each class."""
    return sum(classes if size is None else size for size in sizes)


def _fitting(there: int, splits: int) -> list[int]:
    """Sizes that fit into so many rows, for one split, two or three."""
    fifths = {1: (5,), 2: (4, 1), 3: (3, 1, 1)}[splits]
    return [there * part // 5 for part in fifths]


def _require_enough(counts: list[int], names: list[str], sizes: list[int | None]) -> None:
    there, splits = sum(counts), len(sizes)
    smallest = int(np.argmin(counts))
    if counts[smallest] < splits:
        raise BadInput(
            f"the class {names[smallest]!r} has {counts[smallest]} distinct rows, too few for {splits} splits; "
            f"expected at least {splits}; collect more or leave the class out"
        )
    if (wanted := _wanted(sizes, len(names))) > there:
        fitting = _fitting(there, splits)
        fits = {
            1: "test_rows {}", 2: "rows {} and validation_rows {}", 3: "rows {}, validation_rows {} and test_rows {}"
        }[splits].format(*fitting)  # fmt: skip
        raise BadInput(
            f"{wanted:,} rows are asked for over the splits, and there are {there:,} distinct ones; ask for fewer: "
            f"{fits} would do"
        )
    for size in sizes:
        if size is not None and size < len(names):
            raise BadInput(f"a split of {size} rows cannot hold {len(names)} classes; ask for at least {len(names)}")
