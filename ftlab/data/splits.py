"""Train, validation and test: stratified, with near-duplicates and groups in one split, and the test split sealed.

Validation is for choosing; use it as often as you like. The test split is for one judgement: its score becomes too
good each time that you look at it and change something. So it must be opened with a reason, which is recorded.

How rows are drawn is in `stratified`; what happens to rows that contradict each other is in `duplicates.distinct`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ftlab.data import duplicates, group_columns, stratified
from ftlab.data.group_columns import GROUP
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from datasets import Dataset, DatasetDict


@dataclass
class Splits:
    """A training, a validation and a sealed test split: Datasets of columns id, text and label, or of a task's columns.

    `dropped` counts the rows that `duplicates.distinct` left out, and training rows that are near-duplicates of the
    source's own test rows or in a group of theirs. `openings` holds the reason for each opening of the test split.
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
        """The number of rows in each split; this does not open the test split."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self._test)}

    def open_test(self, why: str) -> Dataset:
        """Return the test split, and add the reason `why` to `openings`; raise BadInput if it is blank."""
        if not why.strip():
            raise BadInput("the test split is opened with a reason; say what it is to judge")
        self.openings.append(why)
        return self._test

    def check_test(self, check: Callable[[Dataset], object]) -> None:
        """Run `check` on the test split without opening it: the check may raise an error, and what it returns is lost.

        For a check whether some text holds test rows, before any work starts.
        """
        check(self._test)


def split(
    dataset: DatasetDict,
    *,
    rows: int | None,
    validation_rows: int,
    test_rows: int | None,
    seed: int = 0,
    at_most: bool = False,
) -> Splits:
    """Draw disjoint training, validation and test rows, with the classes in proportion (see `stratified.draw`).

    Of equal texts the first is kept, or none if their labels contradict each other (`duplicates.distinct`). A cluster
    of near-duplicates (`duplicates.near`) stays in one split, or is left out if it fits into none. If the rows have a
    column group, a group stays in one split too. Groups may be large: a part of one may be drawn, and its other rows
    are then left out.

    If the source has a test split of its own, the test rows come from there, and training rows that are near-duplicates
    of them, or in a group of theirs, are left out. Near-duplicates of each other within that test split may all be
    drawn.

    Args:
        dataset: as `sources.load` returns it.
        rows: of the training split; None takes all that the others leave.
        validation_rows: of the validation split.
        test_rows: of the test split; None takes all rows of the source's own test split.
        seed: of the draw.
        at_most: whether the sizes are upper bounds. If there are too few rows, the splits get at most three, one and
            one fifth of them.

    Returns:
        The splits. Each class has rows in each split, and lacks at most a tenth of its share.

    Raises:
        BadInput: there are too few rows or groups, or too many rows are near-duplicates of each other.
    """
    from datasets import concatenate_datasets

    everything = concatenate_datasets([part for name, part in dataset.items() if name != "test"])
    grouped = GROUP in everything.column_names
    if "test" not in dataset:
        if test_rows is None:
            raise BadInput("test_rows is 0 (all), and this data set has no test split of its own; give a number")
        clusters, kept = _clusters(everything), _distinct(everything)
        sizes = [rows, validation_rows, test_rows]
        train, validation, test = stratified.draw(
            everything.select(kept), clusters[kept], sizes, seed, at_most, grouped=grouped
        )
        return Splits(train, validation, test, len(everything) - len(kept))
    judging, size = dataset["test"], len(everything)
    clusters = _clusters(everything, judging)
    candidates = _distinct(judging)
    # Near-duplicates and groups within the source's own test split may all be drawn: each row is a cluster of its own.
    (test,) = stratified.draw(judging.select(candidates), np.arange(len(candidates)), [test_rows], seed, at_most)
    drawn = clusters[size:][np.isin(list(judging["id"]), list(test["id"]))]
    unseen = np.flatnonzero(~np.isin(clusters[:size], drawn))
    kept = unseen[_distinct(everything.select(unseen))]
    _require_left(everything, everything.select(kept))
    train, validation = stratified.draw(
        everything.select(kept), clusters[kept], [rows, validation_rows], seed, at_most, grouped=grouped
    )
    return Splits(train, validation, test, len(judging) - len(candidates) + size - len(kept))


def part(dataset: Dataset, rows: int) -> Dataset:
    """Return the first `rows` rows of a split, with its classes in their proportion and each at least once.

    Args:
        dataset: a split with a column label.
        rows: how many.

    Raises:
        BadInput: `rows` is more than the split has, or less than one for each class.
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
    """Return stratified parts of a split that share no row, near-duplicate or group, for example one for each seed.

    Args:
        dataset: a split with columns text, label and perhaps group.
        sizes: rows of each part.
        seed: of the draw.

    Raises:
        BadInput: there are too few rows, as for `split`.
    """
    grouped = GROUP in dataset.column_names
    return stratified.draw(dataset, _clusters(dataset), list(sizes), seed, grouped=grouped)


def _clusters(*parts: Dataset) -> np.ndarray:
    """A number for each row of the `parts`: equal for copies, for rows of one group, and for chains of such links."""
    alike = duplicates.together([text for part in parts for text in part["text"]])
    if not all(GROUP in part.column_names for part in parts):
        return alike
    return group_columns.chained(alike, group_columns.numbers(group for part in parts for group in part[GROUP]))


def _distinct(dataset: Dataset) -> np.ndarray:
    return duplicates.distinct(dataset["text"], dataset["label"])


def _require_left(before: Dataset, after: Dataset) -> None:
    """Raise BadInput if a class has too few training rows that are not near-duplicates of test rows, or grouped so."""
    there, left = (np.bincount(rows["label"], minlength=len(rows.features["label"].names)) for rows in (before, after))
    for name, had, has in zip(after.features["label"].names, there, left, strict=True):
        if has < 2 <= had:
            others, remedy = "of test rows", "collect more that differ"
            if GROUP in before.column_names:
                others, remedy = "of test rows, and without rows of their groups", "draw the test rows anew, by groups"
            raise BadInput(
                f"of the {had:,} training rows of the class {name!r}, {has} are left without near-duplicates of each "
                f"other and {others}; training and validation need one each: {remedy}, or leave the class out"
            )
