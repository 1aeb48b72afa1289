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


def split(dataset: DatasetDict, *, rows: int | None, validation_rows: int, test_rows: int, seed: int = 0) -> Splits:
    """Draw `rows` training rows (None: all that are left), and validation and test rows, without overlap.

    Each split has the classes in the proportion of the whole. Of texts that are equal after `normalise` the first is
    kept, so none can stand in two splits; where their labels contradict each other, none is kept. When the source
    brings a test split of its own, the test rows come from there. Raises BadInput when there are too few rows.
    """
    from datasets import concatenate_datasets

    pool = concatenate_datasets([part for name, part in dataset.items() if name != "test"])
    own_test = dataset.get("test")
    total = len(pool) + (len(own_test) if own_test else 0)
    pool = _distinct(pool)
    if own_test is None:
        train, validation, test = _draw(pool, [rows, validation_rows, test_rows], seed)
    else:
        test = _draw(_distinct(own_test), [test_rows], seed)[0]
        pool = _without(pool, test["text"])
        train, validation = _draw(pool, [rows, validation_rows], seed)
    return Splits(train, validation, test, dropped=total - len(pool) - (len(test) if own_test else 0))


def _suggestion(rows: int) -> str:
    return f"rows {rows * 3 // 5}, validation_rows {rows // 5} and test_rows {rows // 5}"


def _distinct(dataset: Dataset) -> Dataset:
    """The rows whose text is the first of its kind; none where equal texts have different labels."""
    first: dict[str, int] = {}
    labels: dict[str, set[int]] = {}
    for index, (text, label) in enumerate(zip(dataset["text"], dataset["label"], strict=True)):
        key = normalise(text) or text  # "!!!" and "???" are not the same text
        first.setdefault(key, index)
        labels.setdefault(key, set()).add(label)
    return dataset.select([index for key, index in first.items() if len(labels[key]) == 1])


def _without(dataset: Dataset, texts: Iterable[str]) -> Dataset:
    known = {normalise(text) for text in texts}
    return dataset.select([index for index, text in enumerate(dataset["text"]) if normalise(text) not in known])


def _draw(pool: Dataset, sizes: list[int | None], seed: int) -> list[Dataset]:
    """Stratified, disjoint draws from `pool`; the first size may be None, for all that the others leave."""
    from sklearn.model_selection import train_test_split

    labels = np.asarray(pool["label"])
    names = pool.features["label"].names
    counts = np.bincount(labels, minlength=len(names))
    wanted = sum(size or 0 for size in sizes)
    if wanted > len(pool) or (None in sizes and wanted >= len(pool)):
        raise BadInput(
            f"{wanted:,} rows are asked for over the splits, and there are {len(pool):,} distinct ones; ask for fewer: "
            f"{_suggestion(len(pool))} would do"
        )
    for size in sizes:
        if size is not None and size < len(names):
            raise BadInput(f"a split of {size} rows cannot hold {len(names)} classes; ask for at least {len(names)}")
    if (small := counts < len(sizes) + 1).any():
        name, count = names[int(small.argmax())], int(counts[small.argmax()])
        raise BadInput(
            f"the class {name!r} has {count} distinct rows, too few for {len(sizes)} splits; expected at least "
            f"{len(sizes) + 1}; collect more or leave the class out"
        )
    rest = np.arange(len(pool))
    drawn: dict[int, Dataset] = {}
    # From the last to the first: the test rows stay the same whatever number of training rows is asked for.
    for place in reversed(range(len(sizes))):
        size = sizes[place]
        if size is None or size == len(rest):
            chosen, rest = rest, rest[:0]
        else:
            rest, chosen = train_test_split(rest, test_size=size, stratify=labels[rest], random_state=seed)
        drawn[place] = pool.select(chosen)
    return [drawn[place] for place in range(len(sizes))]
