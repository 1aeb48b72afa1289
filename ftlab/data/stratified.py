"""Stratified draws of splits: no cluster of near-duplicates in two splits.

There are two ways to draw, and one set of rules for both:

- Of rows with equal texts at most one is drawn, and none if their labels contradict each other
  (`duplicates.distinct`).
- A cluster (near-duplicates, or the rows of a group) has rows in one split at most.
- Splits are drawn from the last to the first, so that the number of training rows does not change the test rows.
- Sizes may be upper bounds, which shrink to three, one and one fifth of the rows.

`draw` is for labels: clusters stay whole where possible, and each class is in each split or the draw is refused.
`draw_kinds` is for the rows of a task, whose clusters (the modules of a library, say) may be larger than a split: a
part of a cluster may be drawn, and the rest is left out of the other splits. A kind may be absent from a split.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset

SHORT = 0.1  # of the rows of a class in a split, which whole clusters may leave unfilled
MOST_OF_A_CLUSTER = 0.1  # of the rows of a split of a task: a test on one module alone would say little of others


def draw(
    pool: Dataset,
    clusters: np.ndarray,
    sizes: list[int | None],
    seed: int,
    at_most: bool = False,
    *,
    grouped: bool = False,
) -> list[Dataset]:
    """Draw disjoint splits with each class in its share, and at least once, and no cluster in two of them.

    A cluster is drawn whole or left out. But if a class would be absent from a split, clusters are first assigned so
    that each split has every class; of a cluster larger than the share of its class only a part is then drawn. If the
    clusters are `grouped`, a part of a cluster is also drawn where whole ones leave a split short.

    Args:
        pool: rows with a column label.
        clusters: (n,) the cluster of each row.
        sizes: rows of each split, the training split first, which may be None: all that the others leave.
        seed: of the draw.
        at_most: whether the sizes are upper bounds.
        grouped: whether the clusters hold groups of rows, which may be larger than a split.

    Returns:
        The splits in the order of `sizes`, each with its rows shuffled. Of each class a split may lack up to a tenth
        (SHORT), since clusters stay whole.

    Raises:
        BadInput: there are too few rows or clusters of a class, or too few rows for a split.
    """
    names = pool.features["label"].names
    if at_most:
        sizes = _bounded(sizes, len(pool), len(names))
    labels = np.asarray(pool["label"])
    by_class = [np.flatnonzero(labels == label) for label in range(len(names))]
    _require_enough([len(indices) for indices in by_class], names, sizes)
    rng = np.random.default_rng(seed)
    by_class = [rng.permutation(indices) for indices in by_class]
    rows = Rows(labels, clusters, members_of(clusters), names, grouped)
    gone = np.zeros(len(labels), dtype=bool)
    drawn: list[Dataset] = []
    # From the last to the first: the test rows stay the same whatever number of training rows is asked for.
    for place in reversed(range(len(sizes))):
        by_class = [indices[~gone[indices]] for indices in by_class]
        left = np.array([len(indices) for indices in by_class])
        size = sizes[place]
        if grouped and at_most and size is not None:  # of groups drawn in part the other rows are gone
            size = max(len(names), min(size, int(left.sum()) - place * len(names)))
        take = left if size is None else shares(left, size, keep=place)
        chosen, room = _fill(by_class, take, rows)
        if grouped:
            chosen, room = _filled_with_parts(by_class, take, rows, chosen, room)
        short = _is_short(room, take)
        if (
            short
            or len(np.unique(labels[chosen])) < len(names)
            or not rows.can_cover(gone | rows.with_copies(chosen), place)
        ):
            covers = rows.covers(~gone, place + 1, rng)
            if covers is None and not short:
                raise BadInput(rows.too_few_clusters(~gone, place + 1))
            if covers is not None:
                # This split gets the cover nearest to its shares; the others are for the splits that come later.
                distance = [int(np.abs(rows.counts(cover) - take).sum()) for cover in covers]
                first = covers.pop(int(np.argmin(distance)))
                barred = {each for cover in covers for each in cover}
                chosen, room = _fill(by_class, take, rows, first, barred)
                if grouped:
                    chosen, room = _filled_with_parts(by_class, take, rows, chosen, room, barred)
            if _is_short(room, take):
                raise BadInput(_could_not_be_filled(room, names, grouped))
        gone |= rows.with_copies(chosen)
        drawn.append(pool.select(rng.permutation(chosen)))
    return drawn[::-1]


def draw_kinds(
    kinds: np.ndarray,
    clusters: np.ndarray,
    sizes: Mapping[str, int | None],
    *,
    usable: np.ndarray,
    seed: int,
    at_most: bool,
    what: str,
) -> list[np.ndarray]:
    """Draw disjoint splits with each kind in its share, and no cluster in two of them.

    Unlike `draw`, it may take a part of a cluster; the rest is then left out of the other splits. A split takes more
    than MOST_OF_A_CLUSTER of its rows from one cluster only if the kind has no others.

    Args:
        kinds: (n,) the kind of each row.
        clusters: (n,) the cluster of each row.
        sizes: rows of each split by the name of its argument, the training split first; None for all that are left.
        usable: (n,) whether a row may be drawn; what is drawn of the others does not depend on it.
        seed: of the draw.
        at_most: whether the sizes are upper bounds.
        what: the name of the source, for messages.

    Returns:
        The positions of the rows of each split, in the order of `sizes`.

    Raises:
        BadInput: there are too few rows for a split.
    """
    there = int(usable.sum())
    wanted = _bounded([*sizes.values()], there, 1) if at_most else [*sizes.values()]
    for name, size in zip(sizes, wanted, strict=True):
        if size is not None and size < 1:
            raise BadInput(f"{what} has {there:,} rows, and {name} would be {size}; each split needs at least one")
    if (total := _wanted(wanted, 1)) > there:
        raise BadInput(f"{what} has {there:,} rows, and {total:,} are asked for in all; ask for fewer")
    rng = np.random.default_rng(seed)
    free = np.ones(len(kinds), dtype=bool)
    drawn: list[np.ndarray] = []
    # From the last to the first: the test rows stay the same whatever number of training rows is asked for.
    for place, (name, size) in reversed([*enumerate(zip(sizes, wanted, strict=True))]):
        places = _draw_split(kinds, clusters, free, usable, size, rng, training=place == 0)
        least = 1 if size is None or at_most else size
        if len(places) < least:
            raise BadInput(
                f"{what} leaves {len(places):,} rows for {name}, which needs {least:,}: groups and near-duplicates "
                "stay in one split; ask for fewer rows"
            )
        drawn.append(places)
        free &= ~np.isin(clusters, clusters[places])
    return drawn[::-1]


def _draw_split(
    kinds: np.ndarray,
    clusters: np.ndarray,
    free: np.ndarray,
    usable: np.ndarray,
    size: int | None,
    rng: np.random.Generator,
    *,
    training: bool,
) -> np.ndarray:
    """The positions of `size` free rows (None: all), each kind in its share and no cluster with too many of them.

    Rows that are not `usable` are left out after the shuffle: the draw of the others does not change. Unless this is
    the `training` split, a cluster of each kind is left for training, if the other rows are enough.
    """
    if size is None:
        places = rng.permutation(np.flatnonzero(free))
        return places[usable[places]]
    names, of = np.unique(kinds, return_inverse=True)
    there = free & usable
    if not training and 1 < len(names) <= size:
        others = there & ~np.isin(clusters, _last_of_each_kind(of, clusters, there, size))
        there = others if others.sum() >= size else there
    of_each = np.bincount(of[there], minlength=len(names))
    quota = _kind_shares(np.bincount(of), of_each, size, rng)
    while (absent := (quota == 0) & (of_each > 0)).any() and quota.max() > 1:  # a row of each kind, if there is room
        quota[quota.argmax()] -= 1
        quota[absent.argmax()] += 1
    most = max(1, int(MOST_OF_A_CLUSTER * size))
    chosen: list[int] = []
    by_kind = np.flatnonzero(free)[np.argsort(of[free], kind="stable")]
    of_kind = np.split(by_kind, np.cumsum(np.bincount(of[free], minlength=len(names)))[:-1])
    for places, wanted in zip(of_kind, quota, strict=True):
        places = rng.permutation(places)  # also where none is wanted: the other kinds draw the same rows
        if not wanted:
            continue
        places = places[there[places]]
        rank = pd.Series(clusters[places]).groupby(clusters[places]).cumcount().to_numpy()
        few = np.concatenate([places[rank < most], places[rank >= most]])  # more of a cluster only where it must be
        chosen.extend(few[:wanted])
    return rng.permutation(np.array(chosen, dtype=int))


def _last_of_each_kind(of: np.ndarray, clusters: np.ndarray, there: np.ndarray, size: int) -> list[int]:
    """The cluster with the most rows of a kind, for each kind of which a draw of `size` could take all clusters."""
    share = np.bincount(of) * (size / len(of))
    last = []
    for kind in np.unique(of[there]):
        some, rows = np.unique(clusters[there & (of == kind)], return_counts=True)
        if len(some) <= np.ceil(share[kind]):
            last.append(int(some[rows.argmax()]))
    return last


def _kind_shares(counts: np.ndarray, there: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """How many rows of each kind make `size`: in the proportion of `counts`, and no more than are `there`.

    Unlike `shares`, a kind may get no row, and ties are broken at random: there may be more kinds than rows.
    """
    exact = counts * (size / counts.sum())
    quota = np.minimum(np.floor(exact).astype(int), there)
    tie_break = 1e-9 * rng.spawn(1)[0].random(len(counts))  # else the first names of equally large kinds always win
    for _ in range(min(size, int(there.sum())) - int(quota.sum())):
        quota[np.where(quota < there, exact - quota + tie_break, -np.inf).argmax()] += 1
    return quota


@dataclass(frozen=True)
class Rows:
    """The rows to draw from: the label and the cluster of each, and the members of each cluster of two or more."""

    labels: np.ndarray
    clusters: np.ndarray
    members: dict[int, np.ndarray]
    names: list[str]
    grouped: bool = False

    def of(self, cluster: int) -> np.ndarray:
        """Return the rows of `cluster`."""
        together = self.members.get(cluster)
        return np.flatnonzero(self.clusters == cluster) if together is None else together

    def counts(self, clusters: Sequence[int]) -> np.ndarray:
        """Return the number of rows of each class in these `clusters`."""
        rows = np.concatenate([self.of(cluster) for cluster in clusters])
        return np.bincount(self.labels[rows], minlength=len(self.names))

    def with_copies(self, rows: np.ndarray) -> np.ndarray:
        """Return a mask of the rows that are in a cluster of one of these `rows`."""
        return np.isin(self.clusters, self.clusters[rows])

    def can_cover(self, gone: np.ndarray, count: int) -> bool:
        """Return whether the rows that are not `gone` could give every class to each of `count` splits."""
        _, holds = self._holds(~gone)
        alone = holds[holds.sum(axis=1) == 1].sum(axis=0)  # if clusters of a single class are enough, no search is due
        return bool((alone >= count).all()) or self.covers(~gone, count, np.random.default_rng(0)) is not None

    def covers(self, free: np.ndarray, count: int, rng: np.random.Generator) -> list[list[int]] | None:
        """Return `count` disjoint sets of clusters that each hold every class, or None if there are none.

        This is the problem of disjoint set covers, solved by integer programming: each cluster goes to one set at most,
        each set has every class, and the sets are as small as possible.

        Args:
            free: (n,) which rows may be taken.
            count: how many sets.
            rng: breaks ties between clusters of one size.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_matrix, identity, kron

        if not count:
            return []
        there, holds = self._holds(free)
        if (holds.sum(axis=0) < count).any():  # as where a group has all rows of a class, or no row is left
            return None
        # A set needs at most one cluster for each class, so the smallest clusters of each class are enough.
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
        """The clusters of the free rows, and the classes of each: (clusters, classes) booleans."""
        there, place = np.unique(self.clusters[free], return_inverse=True)
        holds = np.zeros((len(there), len(self.names)), dtype=bool)
        holds[place, self.labels[free]] = True
        return there, holds

    def too_few_clusters(self, free: np.ndarray, splits: int) -> str:
        """Return the message on the class that cannot be in each of the `splits`, with the rows that are `free`."""
        _, holds = self._holds(free)
        clusters = holds.sum(axis=0)
        # If each class has enough clusters, the one with the fewest clusters of its own.
        label = int(
            clusters.argmin() if clusters.min() < splits else holds[holds.sum(axis=1) == 1].sum(axis=0).argmin()
        )
        count, rows = int(clusters[label]), int((self.labels[free] == label).sum())
        shared = "" if count < splits else ", which hold rows of other classes too"
        linked = "groups and near-duplicates" if self.grouped else "near-duplicates of each other"
        more = "collect rows of more groups" if self.grouped else "collect more that differ"
        return (
            f"the class {self.names[label]!r} has {rows} distinct rows, and {linked} make them "
            f"{count} cluster{'' if count == 1 else 's'}{shared}: too few for {splits} splits, since a cluster stands "
            f"in one split and each split needs every class; {more}, or leave the class out"
        )


def members_of(clusters: np.ndarray) -> dict[int, np.ndarray]:
    """Return the rows of each cluster of two or more, by their `clusters`."""
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
    """Rows in the order of `by_class` until each class has `take`, and how many rows of each class are missing.

    A cluster is taken whole or not at all, and not if it is `barred`. The clusters `first` come before all others: one
    row of each class, then as many more as fit.
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


def _filled_with_parts(
    by_class: list[np.ndarray],
    take: np.ndarray,
    rows: Rows,
    chosen: np.ndarray,
    room: np.ndarray,
    barred: Collection[int] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """The rows `chosen`, and if they leave the split short, parts of the smallest clusters that do not fit whole.

    The smallest come first, since what is left of a cluster goes into no other split.
    """
    if not _is_short(room, take):
        return chosen, room
    room = room.copy()
    free = np.concatenate(by_class)
    rank = np.empty(len(rows.labels), dtype=np.int64)
    rank[free] = np.arange(len(free))  # a part is drawn in the order of the shuffle
    there, count = np.unique(rows.clusters[free], return_counts=True)
    usable = ~np.isin(there, [*barred, *rows.clusters[chosen]])
    there = there[usable][np.argsort(count[usable], kind="stable")]
    parts = list(chosen)
    for cluster in there:
        if not _is_short(room, take):
            break
        members = rows.of(int(cluster))
        for index in members[np.argsort(rank[members])]:
            if room[rows.labels[index]] > 0:
                parts.append(index)
                room[rows.labels[index]] -= 1
    return np.array(parts, dtype=int), room


def _is_short(room: np.ndarray, take: np.ndarray) -> bool:
    """Whether a class lacks more than a tenth of its rows."""
    return bool((room > np.ceil(SHORT * take)).any())


def _could_not_be_filled(room: np.ndarray, names: Sequence[str], grouped: bool = False) -> str:
    classes = " and ".join(repr(name) for name, rows in zip(names, room, strict=True) if rows > 0)
    return f"{int(room.sum()):,} rows of a split could not be filled with {classes}: " + (
        "the other groups are in other splits already, and a group stays in one; ask for fewer rows"
        if grouped
        else "the rows that are left are near-duplicates of each other, and a cluster of them stays in one split; "
        "ask for fewer rows, or drop near-duplicates first"
    )


def shares(left: np.ndarray, size: int, keep: int) -> np.ndarray:
    """Return how many rows of each class make `size`, in the proportion of what is left (largest remainders).

    >>> shares(np.array([60, 30, 10]), 9, keep=0).tolist()  # of 5.4, 2.7 and 0.9
    [5, 3, 1]

    Args:
        left: (classes,) the rows of each class.
        size: of the split; each class gives at least one row.
        keep: how many rows of each class must stay for later draws.
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


def _wanted(sizes: list[int | None], least: int) -> int:
    """How many rows the sizes ask for at least; None, all that the others leave, counts as `least`."""
    return sum(least if size is None else size for size in sizes)


def _bounded(sizes: list[int | None], there: int, least: int) -> list[int | None]:
    """The sizes, as upper bounds: where fewer rows are there than they ask for, none above its part of the rows."""
    if _wanted(sizes, least) <= there:
        return sizes
    fitting = _fitting(there, len(sizes))
    return [None if size is None else min(size, most) for size, most in zip(sizes, fitting, strict=True)]


def _fitting(there: int, splits: int) -> list[int]:
    """Sizes that fit into so many rows; of two or three splits the first, for training, gets the most."""
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
