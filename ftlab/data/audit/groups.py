"""Groups of rows (an author, a patient, a product): on two sides of a split, and what a split by rows claims too much.

The simple model is judged twice on the same rows. Split by rows, it has seen other rows of a row's group in training;
split by groups, it has not. Copies of a text stay on one side in both, so the difference is due to groups alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data import group_columns, values
from ftlab.data.audit import linear_model
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import TRAIN, Table
from ftlab.data.group_columns import GROUP, Candidates, Column
from ftlab.errors import BadInput
from ftlab.intervals import paired

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MOST_ROWS = 3000  # that the audit judges twice: whole groups, drawn at random
MANY_GROUPS = 500  # above this, folds are drawn as for clusters of copies, which is quicker
STANDARD_ERRORS = 2  # above the most frequent label, for a model that knows something
CLAIMED = 0.02  # accuracy that a split by rows adds, for a column whose name does not tell that it has groups
UNJUDGED = f"no two labels have several groups and {linear_model.FOLDS} rows each, so no split by groups can be judged"


@dataclass(frozen=True)
class Claim:
    """Which rows a simple model gets right if they are split by rows and by groups.

    Attributes:
        by_rows: (rows,) 1.0 where it is right if they are split one by one, else 0.0.
        by_groups: (rows,) the same if each group stays on one side.
        groups: (rows,) the number of each row's group.
        majority: the share of the most frequent label, which needs no model.
    """

    by_rows: np.ndarray
    by_groups: np.ndarray
    groups: np.ndarray
    majority: float

    @property
    def shared(self) -> np.ndarray:
        """Whether a row has others of its group."""
        return np.bincount(self.groups)[self.groups] > 1

    @property
    def knows(self) -> bool:
        """Whether the model, split by rows, is better than a guess of the most frequent label, beyond chance."""
        chance = (self.majority * (1 - self.majority) / len(self.by_rows)) ** 0.5
        return bool(self.by_rows.mean() - self.majority > STANDARD_ERRORS * chance)

    def is_clear(self, least: float = 0.0) -> bool:
        """Return whether a split by rows clearly claims more than a split by groups, and more than `least`."""
        gap = float((self.by_rows - self.by_groups).mean())
        return gap > least and paired(self.by_rows, self.by_groups, groups=self.groups).clear

    def __str__(self) -> str:
        said = f"a simple model is right in {self.by_rows.mean():.1%} of the rows if they are split one by one"
        if not (self.is_clear() or self.knows):
            frequent = f"the most frequent label ({self.majority:.1%})"
            return f"{said}, no better than by {frequent}: it cannot tell what a split by rows claims"
        verdict = "a split by rows claims too much" if self.is_clear() else "no clear difference"
        return f"{said}, and in {self.by_groups.mean():.1%} if each group stays on one side: {verdict}"


def require(name: str, frame: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> None:
    """Raise BadInput if the groups of `frame`, called `name`, cannot be used, or if one of `others` alone has some."""
    tables = {"training": frame, **others}
    having = [split for split, table in tables.items() if GROUP in table]
    lacking = [split for split in tables if split not in having]
    if having and lacking:
        raise BadInput(
            f"the {having[0]} rows have a column {GROUP!r}, and the {lacking[0]} rows have none; give both their "
            "groups, or leave them out"
        )
    if having:
        group_columns.read(frame, GROUP, name)


def check(table: Table) -> list[Finding]:
    """Return the findings on groups of `table` in two splits, and on the column that was named or looks like groups."""
    if GROUP not in table.frame:
        return _found(table)
    leaks = _leakage(table)
    return [*leaks, *_named(table, apart=bool(table.others) and not leaks)]


def of_texts(table: Table) -> np.ndarray:
    """Return the number of the group of each of `table.texts`, of the column that was named, or of the first one found.

    Where it was found, rows of other splits than training have -1.
    """
    if GROUP in table.frame:
        return group_columns.numbers(_rows(table)["group"].reindex(table.texts["id"]))
    return _numbers(table, _found_columns(table)[0][0])


def no_claim(table: Table) -> str:
    """Return why a split by rows and one by groups cannot be compared on the rows of `table`, which have groups, or "".

    The reason can follow a colon.
    """
    return _no_claim(table, of_texts(table))


def in_training(table: Table, ids: tuple[str, ...]) -> set[str]:
    """Return the ids of the training rows of `table` whose group has one of the rows `ids`."""
    rows = _rows(table)
    groups = group_columns.numbers(rows["group"])
    wanted = np.isin(groups, groups[rows.index.isin(ids)])
    return set(rows.index[wanted & (rows["split"] == TRAIN).to_numpy()])


def claim(table: Table, groups: np.ndarray, most: int, seed: int = 0) -> Claim | None:
    """Judge a simple model by rows and by groups.

    Args:
        table: the rows under audit.
        groups: of each of its texts; -1 for rows to leave out.
        most: about how many rows to judge.
        seed: of the draw and of the folds.

    Returns:
        None if there are not two labels that each have several groups, and a row for each fold. Rows of other labels
        are left out: split by groups, the model has never seen their label.
    """
    places = _to_judge(table, groups, most, seed)
    if places is None:
        return None
    labels, copies = table.codes[places], table.clusters[places]
    of = np.unique(groups[places], return_inverse=True)[1]
    apart = group_columns.chained(of, copies)  # copies of a text link two groups
    count = min(linear_model.FOLDS, int(apart.max()) + 1)
    features = linear_model.tfidf(table.counts[places])
    by_rows, by_groups = (_right(features, labels, _folds(labels, each, count, seed)) for each in (copies, apart))
    return Claim(by_rows, by_groups, of, float(np.bincount(labels).max() / len(labels)))


def _to_judge(table: Table, groups: np.ndarray, most: int, seed: int) -> np.ndarray | None:
    """The positions of the rows to judge, or None (see `claim`)."""
    places = np.flatnonzero((table.codes >= 0) & (groups >= 0))
    if not len(places):
        return None
    places = _part(places, groups[places], most, seed)
    apart = group_columns.chained(np.unique(groups[places], return_inverse=True)[1], table.clusters[places])
    of_labels = np.unique(np.stack([table.codes[places], apart]), axis=1)[0]  # the label of each pair with a group
    places = places[np.isin(table.codes[places], np.flatnonzero(np.bincount(of_labels) > 1))]
    enough = np.bincount(table.codes[places]) >= linear_model.FOLDS
    return places if enough.sum() > 1 else None


def _no_claim(table: Table, groups: np.ndarray) -> str:
    if _to_judge(table, groups, MOST_ROWS, seed=0) is not None:
        return ""
    return UNJUDGED


def _rows(table: Table) -> pd.DataFrame:
    """The split and the group of each row of a table with groups, by its id."""
    frames = {TRAIN: table.frame, **table.others}
    rows = pd.concat([frame[["id", GROUP]].assign(split=split) for split, frame in frames.items()])
    return rows.assign(group=rows[GROUP].map(values.text_of, na_action="ignore")).set_index("id")


def _numbers(table: Table, column: Column) -> np.ndarray:
    """The number of the group of each of the texts, and -1 for other rows than training rows."""
    return np.where(table.train, group_columns.numbers(column.groups.reindex(table.texts["id"])), -1)


def _candidates(table: Table) -> list[Column]:
    """The columns that look like groups, without those of too few rows of this table."""
    found = table.frame.attrs.get("group_candidates")
    if not isinstance(found, Candidates):  # as JSON has it, where a table was saved and read again
        return []
    ids = table.frame["id"]
    return [column for column in found.columns if column.groups.reindex(ids).dropna().duplicated().any()]


def _leakage(table: Table) -> list[Finding]:
    if not table.others:
        return []
    rows = _rows(table).reset_index()
    order = rows["split"].map({split: place for place, split in enumerate([TRAIN, *table.others])})
    groups = pd.Series(group_columns.numbers(rows["group"]))
    leaked = order > order.groupby(groups).transform("min")
    if not leaked.any():
        return []
    first = rows["id"].groupby(groups).transform("first")
    # A group is named by a row, not by its value: that may be a person's name.
    evidence = rows.loc[leaked, ["id", "split"]].assign(same_group_as=first[leaked])
    splits = " and ".join(dict.fromkeys(evidence["split"]))
    there = groups[order > 0].nunique()
    shared = f"{groups[leaked].nunique():,} of {there:,}"
    what = f"a group that an earlier split has too in {{count}} of {splits}; groups: {shared}"
    return [finding("group_leakage", what, evidence=evidence)]


def _named(table: Table, *, apart: bool) -> list[Finding]:
    said = _said(
        table.frame.attrs.get("group_column", GROUP), table.frame[GROUP].map(values.text_of, na_action="ignore")
    )
    said += ", and none is in two splits" * apart + _judged(table, of_texts(table), _claim(table, of_texts(table)))
    found = finding("group_column", said, count=len(table.frame))
    return [found if table.pairs else replace(found, todo=f"{found.todo}: group_column in a lesson does so")]


def _found(table: Table) -> list[Finding]:
    """Find the columns that look like groups: by their name, or because a split by rows claims too much."""
    said = [
        _said(column.name, column.groups.reindex(table.frame["id"])) + _judged(table, _numbers(table, column), claimed)
        for column, claimed in _found_columns(table)
    ]
    if not said:
        return []
    found = finding("group_column", "; ".join(said), count=len(table.frame))
    how = "--group in an audit shows which are in two splits"
    how = how if table.pairs else f"group_column in a lesson does so, and {how}"
    return [replace(found, todo=f"{found.todo}: {how}")]


def _judged(table: Table, groups: np.ndarray, claimed: Claim | None) -> str:
    """What the model says of a split by rows, or why it says nothing although it could be asked."""
    if claimed is None and not _cannot_ask(table):
        return f": {_no_claim(table, groups)}"
    return f": {claimed}" if claimed else ""


def _cannot_ask(table: Table) -> bool:
    """Whether the simple model cannot be used on these rows at all."""
    return table.pairs or bool(linear_model.reason_to_skip(table, linear_model.FOLDS))


def _found_columns(table: Table) -> list[tuple[Column, Claim | None]]:
    def found() -> list[tuple[Column, Claim | None]]:
        claims = [(column, _claim(table, _numbers(table, column))) for column in _candidates(table)]
        return [each for each in claims if each[0].telling or (each[1] and each[1].is_clear(CLAIMED))]

    return table.cached("group columns", found)


def _claim(table: Table, groups: np.ndarray) -> Claim | None:
    if _cannot_ask(table):
        return None
    table.progress.set_description("comparing splits by rows and by groups")
    return claim(table, groups, MOST_ROWS)


def _said(name: str, groups: pd.Series) -> str:
    there = groups[groups.map(group_columns.key) != ""]
    sizes = np.bincount(group_columns.numbers(there))
    alone = f", {len(groups) - len(there):,} rows have none" if len(there) < len(groups) else ""
    return (
        f"the column {name!r} has {len(sizes):,} groups of {sizes.mean():.1f} rows on average, the largest of "
        f"{sizes.max():,}{alone}"
    )


def _part(places: np.ndarray, groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """About `most` of the rows at `places`: whole groups in random order, and of a very large one a part."""
    if len(places) <= most:
        return places
    rng = np.random.default_rng(seed)
    names, of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    taken = order[: max(2, int(np.searchsorted(np.cumsum(sizes[order]), most)) + 1)]
    chosen = np.flatnonzero(np.isin(of, taken))
    return places[np.sort(rng.permutation(chosen)[: 2 * most])]


def _folds(labels: np.ndarray, clusters: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The fold of each row, stratified by label, with the rows of a cluster in one; few clusters may be large."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    _, firsts, of = np.unique(clusters, return_index=True, return_inverse=True)
    fold = np.empty(len(labels), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a class with fewer rows than folds: its score is not asked for
        if len(firsts) <= MANY_GROUPS:
            by_group = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
            for number, (_, held_out) in enumerate(by_group.split(labels, labels, of)):
                fold[held_out] = number
        else:
            by_first = StratifiedKFold(count, shuffle=True, random_state=seed)
            for number, (_, held_out) in enumerate(by_first.split(firsts, labels[firsts])):
                fold[np.isin(of, held_out)] = number
    return fold


def _right(features: csr_matrix, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """1.0 for each row that a model fitted to the other folds gets right, else 0.0."""
    from threadpoolctl import threadpool_limits

    right = np.empty(len(labels))
    for number in np.unique(fold):
        held_out = fold == number
        seen = labels[~held_out]
        if len(np.unique(seen)) < 2:  # as where each group has one label
            right[held_out] = labels[held_out] == seen[0]
            continue
        with threadpool_limits(1):
            model = linear_model.model_for(seen).fit(features[~held_out], seen)
            right[held_out] = model.predict(features[held_out]) == labels[held_out]
    return right
