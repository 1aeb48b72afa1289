"""Rows drawn into splits: stratified, clusters of near-copies whole, and each class in each split.

The rows are drawn split by split. Where a class would then be absent, from this split or from one to come, its clusters
are dealt out first; what cannot be dealt out is refused by the name of the class.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset

SHORT = 0.1  # of the rows of a class in a split, which whole clusters may leave unfilled


def draw(
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
    rows = Rows(labels, clusters, members_of(clusters), names)
    gone = np.zeros(len(labels), dtype=bool)
    drawn: list[Dataset] = []
    # From the last to the first: the test rows stay the same whatever number of training rows is asked for.
    for place in reversed(range(len(sizes))):
        by_class = [indices[~gone[indices]] for indices in by_class]
        left = np.array([len(indices) for indices in by_class])
        size = sizes[place]
        take = left if size is None else shares(left, size, keep=place)
        chosen, room = _fill(by_class, take, rows)
        short = _is_short(room, take)
        if (
            short
            or len(np.unique(labels[chosen])) < len(names)
            or not rows.cover(gone | rows.with_copies(chosen), place)
        ):
            covers = rows.covers(~gone, place + 1, rng)
            if covers is None and not short:
                raise BadInput(rows.too_few_clusters(~gone, place + 1))
            if covers is not None:
                # The cover that comes nearest to what this split should take; the others are for the splits to come.
                distance = [int(np.abs(rows.counts(cover) - take).sum()) for cover in covers]
                first = covers.pop(int(np.argmin(distance)))
                chosen, room = _fill(by_class, take, rows, first, {each for cover in covers for each in cover})
            if _is_short(room, take):
                raise BadInput(_could_not_be_filled(room, names))
        gone |= rows.with_copies(chosen)
        drawn.append(pool.select(rng.permutation(chosen)))
    return drawn[::-1]


@dataclass(frozen=True)
class Rows:
    """What a draw is made from: the label and the cluster of each row, the rows of each cluster of two or more."""

    labels: np.ndarray
    clusters: np.ndarray
    members: dict[int, np.ndarray]
    names: list[str]

    def of(self, cluster: int) -> np.ndarray:
        """The rows of a cluster."""
        together = self.members.get(cluster)
        return np.flatnonzero(self.clusters == cluster) if together is None else together

    def counts(self, clusters: Sequence[int]) -> np.ndarray:
        """How many rows of each class these clusters hold."""
        rows = np.concatenate([self.of(cluster) for cluster in clusters])
        return np.bincount(self.labels[rows], minlength=len(self.names))

    def with_copies(self, rows: np.ndarray) -> np.ndarray:
        """Which rows are among these or in a cluster of theirs."""
        return np.isin(self.clusters, self.clusters[rows])

    def cover(self, gone: np.ndarray, count: int) -> bool:
        """Whether what is not gone could give every class to each of `count` splits."""
        _, holds = self._holds(~gone)
        alone = holds[holds.sum(axis=1) == 1].sum(axis=0)  # clusters of one class are in nobody's way
        return bool((alone >= count).all()) or self.covers(~gone, count, np.random.default_rng(0)) is not None

    def covers(self, free: np.ndarray, count: int, rng: np.random.Generator) -> list[list[int]] | None:
        """`count` disjoint sets of clusters, each of which holds every class; None where there are none.

        Clusters of several classes make this a puzzle (disjoint set covers), which a solver for whole numbers answers:
        each cluster goes to one set at most, each class to every set, and small clusters come first.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_matrix, identity, kron

        if not count:
            return []
        there, holds = self._holds(free)
        # No set needs more than a cluster for each class, so the smallest of many are enough.
        enough = count * holds.shape[1]
        rows = (
            np.bincount(np.searchsorted(there, self.clusters[free]), minlength=len(there)) + rng.random(len(there)) / 2
        )
        order = np.argsort(rows)
        useful = np.unique(np.concatenate([order[holds[order, label]][:enough] for label in range(holds.shape[1])]))
        there, holds, rows = there[useful], holds[useful], rows[useful]
        once = kron(np.ones((1, count)), identity(len(there)))
        each = kron(identity(count), coo_matrix(holds.T.astype(float)))
        found = milp(
            np.tile(rows, count),
            constraints=[LinearConstraint(once, ub=1), LinearConstraint(each, lb=1)],
            integrality=np.ones(count * len(there)),
            bounds=Bounds(0, 1),
        )
        if found.x is None:
            return None
        return [there[part > 0.5].tolist() for part in np.split(found.x, count)]

    def _holds(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The clusters of the free rows, and which classes each of them holds."""
        there, place = np.unique(self.clusters[free], return_inverse=True)
        holds = np.zeros((len(there), len(self.names)), dtype=bool)
        holds[place, self.labels[free]] = True
        return there, holds

    def too_few_clusters(self, free: np.ndarray, splits: int) -> str:
        """A sentence on the class that cannot stand in each split."""
        _, holds = self._holds(free)
        clusters = holds.sum(axis=0)
        # Of classes with clusters enough, the one whose clusters are the least its own.
        label = int(
            clusters.argmin() if clusters.min() < splits else holds[holds.sum(axis=1) == 1].sum(axis=0).argmin()
        )
        count, rows = int(clusters[label]), int((self.labels[free] == label).sum())
        shared = "" if count < splits else ", which hold rows of other classes too"
        return (
            f"the class {self.names[label]!r} has {rows} distinct rows, and near-duplicates of each other make them "
            f"{count} cluster{'' if count == 1 else 's'}{shared}: too few for {splits} splits, since a cluster stands "
            "in one split and each split needs every class; collect more that differ, or leave the class out"
        )


def members_of(clusters: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each cluster of two or more."""
    order = np.argsort(clusters, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    return {int(clusters[part[0]]): part for part in parts if len(part) > 1}


def _fill(
    by_class: list[np.ndarray],
    take: np.ndarray,
    rows: Rows,
    first: Sequence[int] = (),
    barred: Collection[int] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the order of `by_class` until each class has what it should, and the rows that are wanting by class.

    A cluster comes whole or not at all, none that is `barred`. The clusters `first` come before all others: a row for
    each of their classes that is not there yet, then as many more as fit.
    """
    room = take.copy()
    chosen: dict[int, None] = {}

    def choose(together: Iterable[int]) -> None:
        for index in together:
            chosen[index] = None
            room[rows.labels[index]] -= 1

    begin = [[index for index in map(int, indices) if rows.clusters[index] in first] for indices in by_class if first]
    choose(indices[0] for indices in begin if indices)
    for index in (index for indices in begin for index in indices[1:]):
        if room[rows.labels[index]] > 0:
            choose([index])
    for label, indices in enumerate(by_class):
        for index in map(int, indices):
            if room[label] <= 0:
                break
            cluster = rows.clusters[index]
            if index in chosen or cluster in barred:
                continue
            together = rows.members.get(cluster, np.array([index]))
            needed = np.bincount(rows.labels[together], minlength=len(room))
            if (needed <= room).all():
                choose(map(int, together))
    return np.array(list(chosen), dtype=int), room


def _is_short(room: np.ndarray, take: np.ndarray) -> bool:
    """Whether some class lacks more than a tenth of its rows."""
    return bool((room > np.ceil(SHORT * take)).any())


def _could_not_be_filled(room: np.ndarray, names: Sequence[str]) -> str:
    classes = " and ".join(repr(name) for name, rows in zip(names, room, strict=True) if rows > 0)
    return (
        f"{int(room.sum()):,} rows of a split could not be filled with {classes}: the rows that are left are "
        "near-duplicates of each other, and a cluster of them stays in one split; ask for fewer rows, or drop "
        "near-duplicates first"
    )


def shares(left: np.ndarray, size: int, keep: int) -> np.ndarray:
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
    """Sizes that fit into so many rows, for one split, two or three (of which the first trains)."""
    fifths = {1: (5,), 2: (4, 1), 3: (3, 1, 1)}.get(splits, (1,) * splits)
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
        }.get(splits, f"{there // splits:,} for each").format(*fitting)  # fmt: skip
        raise BadInput(
            f"{wanted:,} rows are asked for over the splits, and there are {there:,} distinct ones; ask for fewer: "
            f"{fits} would do"
        )
    for size in sizes:
        if size is not None and size < len(names):
            raise BadInput(f"a split of {size} rows cannot hold {len(names)} classes; ask for at least {len(names)}")
