"""Train, validation and test: stratified, no text in two of them, and the test split sealed.

Validation is for choosing and may be looked at as often as you like. The test split judges once: each look at it
that changes what you do next makes its score a little less true. So it has to be opened by name, and says so.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def normalise(text: str) -> str:
    """The text as two copies of it compare: NFKC, case folded, white space and punctuation reduced.

    >>> normalise("A GREAT film!") == normalise("a great  film")
    True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(char if char.isalnum() else " " for char in folded).split())


@dataclass
class Splits:
    """A training, a validation and a sealed test split, each a Dataset of columns id, text and label.

    `dropped` counts the rows that were left out because an equal text (after `normalise`) was kept; `openings` holds
    the reason given each time that the test split was opened.
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
    dataset: DatasetDict, *, rows: int | None, validation_rows: int, test_rows: int | None, seed: int = 0
) -> Splits:
    """Draw training, validation and test rows without overlap; None takes all that the others leave.

    Each split has the classes in the proportion of the whole, and each class at least once. Of texts that are equal
    after `normalise` the first is kept, so none can stand in two splits; where their labels contradict each other,
    none is kept. When the source brings a test split of its own, the test rows come from there. Raises BadInput when
    there are too few rows.
    """
    from datasets import concatenate_datasets

    everything = concatenate_datasets([part for name, part in dataset.items() if name != "test"])
    pool = _distinct(everything)
    dropped = len(everything) - len(pool)
    if "test" not in dataset:
        if test_rows is None:
            raise BadInput("test_rows is 0 (all), and this data set has no test split of its own; give a number")
        train, validation, test = _draw(pool, [rows, validation_rows, test_rows], seed)
        return Splits(train, validation, test, dropped)
    candidates = _distinct(dataset["test"])
    (test,) = _draw(candidates, [test_rows], seed)
    unseen = _without(pool, test["text"])
    dropped += len(dataset["test"]) - len(candidates) + len(pool) - len(unseen)
    train, validation = _draw(unseen, [rows, validation_rows], seed)
    return Splits(train, validation, test, dropped)


def _key(text: str) -> str:
    return normalise(text) or text  # "!!!" and "???" are not the same text


def _distinct(dataset: Dataset) -> Dataset:
    """The rows whose text is the first of its kind; none where equal texts have different labels."""
    first: dict[str, int] = {}
    labels: dict[str, set[int]] = {}
    for index, (text, label) in enumerate(zip(dataset["text"], dataset["label"], strict=True)):
        first.setdefault(_key(text), index)
        labels.setdefault(_key(text), set()).add(label)
    return dataset.select([index for key, index in first.items() if len(labels[key]) == 1])


def _without(dataset: Dataset, texts: Iterable[str]) -> Dataset:
    known = {_key(text) for text in texts}
    return dataset.select([index for index, text in enumerate(dataset["text"]) if _key(text) not in known])


def _draw(pool: Dataset, sizes: list[int | None], seed: int) -> list[Dataset]:
    """Stratified, disjoint draws from `pool`; the first size may be None, for all that the others leave."""
    names = pool.features["label"].names
    labels = np.asarray(pool["label"])
    by_class = [np.flatnonzero(labels == label) for label in range(len(names))]
    _require_enough([len(indices) for indices in by_class], names, sizes)
    rng = np.random.default_rng(seed)
    by_class = [rng.permutation(indices) for indices in by_class]
    drawn: list[Dataset] = []
    # From the last to the first: the test rows stay the same whatever number of training rows is asked for.
    for place in reversed(range(len(sizes))):
        left = np.array([len(indices) for indices in by_class])
        size = sizes[place]
        take = left if size is None else _shares(left, size, keep=place)
        chosen = np.concatenate([indices[:count] for indices, count in zip(by_class, take, strict=True)])
        by_class = [indices[count:] for indices, count in zip(by_class, take, strict=True)]
        drawn.append(pool.select(rng.permutation(chosen)))
    return drawn[::-1]


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


def _require_enough(counts: list[int], names: list[str], sizes: list[int | None]) -> None:
    there, splits = sum(counts), len(sizes)
    smallest = int(np.argmin(counts))
    if counts[smallest] < splits:
        raise BadInput(
            f"the class {names[smallest]!r} has {counts[smallest]} distinct rows, too few for {splits} splits; "
            f"expected at least {splits}; collect more or leave the class out"
        )
    wanted = sum(len(names) if size is None else size for size in sizes)
    if wanted > there:
        fits = {
            1: f"test_rows {there}",
            2: f"rows {there * 4 // 5} and validation_rows {there // 5}",
            3: f"rows {there * 3 // 5}, validation_rows {there // 5} and test_rows {there // 5}",
        }[splits]
        raise BadInput(
            f"{wanted:,} rows are asked for over the splits, and there are {there:,} distinct ones; ask for fewer: "
            f"{fits} would do"
        )
    for size in sizes:
        if size is not None and size < len(names):
            raise BadInput(f"a split of {size} rows cannot hold {len(names)} classes; ask for at least {len(names)}")
