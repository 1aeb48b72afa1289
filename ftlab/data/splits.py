"""Train, validation and test: stratified, no text or near-copy of it in two of them, and the test split sealed.

Validation is for choosing and may be looked at as often as you like. The test split judges once: each look at it
that changes what you do next makes its score a little less true. So it has to be opened by name, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ftlab.data import duplicates, stratified
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset, DatasetDict


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
    (`duplicates.near`) stay together: a cluster stands in one split, or is left out where it fits into none. Where a
    class would otherwise be absent from a split, clusters of it are dealt out first, one to each split, and of a
    cluster larger than the share of its class the rest is left out. So a split may be short by a tenth of the rows of a
    class, and by no more. When the source brings a test split of its own, the test rows come from there, and training
    rows that are near-duplicates of them are left out. With `at_most` the sizes are upper bounds: where there are fewer
    rows than they ask for, no split gets more than its part of what there is: three, one and one fifth. Raises BadInput
    when there are too few rows, or too few that are not near-duplicates of each other.
    """
    from datasets import concatenate_datasets

    everything = concatenate_datasets([part for name, part in dataset.items() if name != "test"])
    if "test" not in dataset:
        if test_rows is None:
            raise BadInput("test_rows is 0 (all), and this data set has no test split of its own; give a number")
        clusters, kept = duplicates.together(list(everything["text"])), _distinct(everything)
        sizes = [rows, validation_rows, test_rows]
        train, validation, test = stratified.draw(everything.select(kept), clusters[kept], sizes, seed, at_most)
        return Splits(train, validation, test, len(everything) - len(kept))
    judging, size = dataset["test"], len(everything)
    clusters = duplicates.together([*everything["text"], *judging["text"]])
    candidates = _distinct(judging)
    # The judges are drawn from rows that are given; whether two of them are alike is for their makers to say.
    (test,) = stratified.draw(judging.select(candidates), np.arange(len(candidates)), [test_rows], seed, at_most)
    drawn = clusters[size:][np.isin(list(judging["id"]), list(test["id"]))]
    unseen = np.flatnonzero(~np.isin(clusters[:size], drawn))
    kept = unseen[_distinct(everything.select(unseen))]
    _require_left(everything, everything.select(kept))
    train, validation = stratified.draw(everything.select(kept), clusters[kept], [rows, validation_rows], seed, at_most)
    return Splits(train, validation, test, len(judging) - len(candidates) + size - len(kept))


def part(dataset: Dataset, rows: int) -> Dataset:
    """The first rows of a split that make `rows`, with its classes in their proportion and each at least once.

    Raises BadInput for more rows than the split has, and for fewer than it has classes.
    """
    labels = np.asarray(dataset["label"])
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if not len(by_class) <= rows <= len(dataset):
        raise BadInput(
            f"a part of {rows:,} rows is asked for; expected from {len(by_class)}, one of each class, to "
            f"{len(dataset):,}, the rows that there are"
        )
    take = stratified.shares(np.array([len(indices) for indices in by_class]), rows, keep=0)
    chosen = [indices[:count] for indices, count in zip(by_class, take, strict=True)]
    return dataset.select(np.sort(np.concatenate(chosen)))


def disjoint(dataset: Dataset, sizes: Sequence[int], *, seed: int = 0) -> list[Dataset]:
    """Parts of a split with no row and no near-copy of it in two, each stratified and with each class at least once.

    So that several trainings, say one a seed, have nothing in common. Raises BadInput as `split` does.
    """
    return stratified.draw(dataset, duplicates.together(list(dataset["text"])), list(sizes), seed)


def _distinct(dataset: Dataset) -> np.ndarray:
    """The place of the first row of each text, in order; none where equal texts have different labels."""
    labels = np.asarray(dataset["label"])
    _, firsts, of = np.unique(duplicates.same(dataset["text"]), return_index=True, return_inverse=True)
    contradicted = np.zeros(len(firsts), dtype=bool)
    contradicted[of[labels != labels[firsts][of]]] = True
    return np.sort(firsts[~contradicted])


def _require_left(before: Dataset, after: Dataset) -> None:
    """Raise BadInput where near-duplicates of test rows were all that a class had to train on."""
    there, left = (np.bincount(rows["label"], minlength=len(rows.features["label"].names)) for rows in (before, after))
    for name, had, has in zip(after.features["label"].names, there, left, strict=True):
        if has < 2 <= had:
            raise BadInput(
                f"of the {had:,} training rows of the class {name!r}, {has} are left without copies and near-copies of "
                "each other and of test rows; training and validation need one each: collect more that differ, or "
                "leave the class out"
            )
