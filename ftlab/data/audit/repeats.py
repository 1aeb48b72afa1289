"""Rows that repeat: copies, near-copies, copies that contradict each other, and copies in the judging splits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from ftlab.data import duplicates
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table

Fits = Callable[[np.ndarray, int], np.ndarray]  # (others, row) -> which of the others may stand beside the row
COMPARED = 10  # of a large cluster, how many others a row is set beside to find the one that it is nearest to


def check(table: Table) -> list[Finding]:
    """Duplicates, conflicts and leakage, exact and near."""
    return [
        *_duplicates(table),
        *_near_duplicates(table),
        *_conflicts(table),
        *_near_conflicts(table),
        *_leakage(table),
    ]


def _duplicates(table: Table) -> list[Finding]:
    rows = table.texts[table.train]
    exact = rows["text"].duplicated()
    groups = pd.Series(table.groups[table.train], index=rows.index)
    written = rows["text"] != rows["text"].groupby(groups).transform("first")
    found = []
    for finding_id, what, again, by in (
        ("exact_duplicates", "the text of an earlier row again in {count}", exact, rows["text"]),
        ("normalised_duplicates", "an earlier text again, but for case or white space, in {count}", written, groups),
    ):
        if again.any():
            firsts = rows["id"].groupby(by).transform("first")
            evidence = pd.DataFrame({"id": rows["id"][again], "copy_of": firsts[again]})
            found.append(finding(finding_id, what, evidence=evidence))
    return found


def _near_duplicates(table: Table) -> list[Finding]:
    """Of each cluster of near-duplicates among the training rows, all but the first row and its copies."""
    clusters, groups = pd.Series(table.train_clusters), pd.Series(table.groups)
    train = clusters[table.train]
    several = train[groups[train.index].groupby(train).transform("nunique") > 1]
    if several.empty:
        return []
    first_group = groups[several.index].groupby(several).transform("first")
    later = several[groups[several.index] != first_group].index.to_numpy()
    evidence = _beside(table, later, table.train_clusters, lambda rows, row: table.groups[rows] != table.groups[row])
    what = f"nearly the text of an earlier row in {{count}}; clusters: {several.nunique():,}"
    return [finding("near_duplicates", what, evidence=evidence[["id", "near", "similarity"]])]


def _conflicts(table: Table) -> list[Finding]:
    rows = table.texts[table.labelled]
    groups = pd.Series(table.groups[table.labelled], index=rows.index)
    conflict = rows["label"].groupby(groups).transform("nunique") > 1
    if not conflict.any():
        return []
    evidence = pd.DataFrame({"id": rows["id"], "text_number": groups, "label": rows["label"]})[conflict]
    what = f"the same text with different labels in {{count}}; texts: {groups[conflict].nunique():,}"
    return [finding("conflicting_labels", what, evidence=evidence.sort_values("text_number", kind="stable"))]


def _near_conflicts(table: Table) -> list[Finding]:
    """The rows of a cluster whose label is not its most frequent one; of equally frequent labels, all rows."""
    rows = table.texts[table.labelled]
    clusters = pd.Series(table.train_clusters[table.labelled], index=rows.index)
    several = clusters[pd.Series(table.groups[rows.index], index=rows.index).groupby(clusters).transform("nunique") > 1]
    if several.empty:
        return []
    counts = rows.loc[several.index].groupby([several, "label"]).size()
    most = counts.groupby(level=0).transform("max")
    tied = (counts == most).groupby(level=0).transform("sum") > 1
    odd = set(counts.index[((counts < most) | tied) & (counts.groupby(level=0).transform("size") > 1)])
    keys = zip(several, rows["label"][several.index], strict=True)
    places = np.array([row for row, key in zip(several.index, keys, strict=True) if key in odd], dtype=np.int64)

    def other_label(others: np.ndarray, row: int) -> np.ndarray:
        differs = (table.codes[others] != table.codes[row]) & table.labelled[others]
        return differs & (table.groups[others] != table.groups[row])

    evidence = _beside(table, places, table.train_clusters, other_label)
    evidence = evidence[evidence["similarity"] >= duplicates.NEAR]  # the ends of a chain may have little in common
    if evidence.empty:
        return []
    what = "nearly the text of another row with another label in {count}"
    return [
        finding("conflicting_near_labels", what, evidence=evidence[["id", "label", "near", "near_label", "similarity"]])
    ]


def _leakage(table: Table) -> list[Finding]:
    """Rows of a judging split whose text, or nearly, stands in an earlier split: test in validation, both in train."""
    if not table.others:
        return []
    rows, order = table.texts, table.split_order
    earliest = pd.Series(order).groupby(table.asked).transform("min").to_numpy()
    leaked = order > earliest
    found = []
    if leaked.any():
        firsts = pd.Series(np.arange(len(rows))).groupby(table.asked).transform("first").to_numpy()
        evidence = pd.DataFrame(
            {"id": rows["id"][leaked], "split": rows["split"][leaked], "copy_of": rows["id"].to_numpy()[firsts[leaked]]}
        )
        said = "prompt" if table.pairs else "text"
        what = f"a {said} of an earlier split again in {{count}} of {_names(evidence['split'])}"
        found.append(finding("leakage", what, evidence=evidence))
    earliest = pd.Series(order).groupby(table.clusters).transform("min").to_numpy()
    close = np.flatnonzero((order > earliest) & ~leaked)
    if len(close):
        evidence = _beside(table, close, table.clusters, lambda others, row: order[others] < order[row])
        what = f"nearly a text of an earlier split in {{count}} of {_names(evidence['split'])}"
        found.append(finding("near_leakage", what, evidence=evidence[["id", "split", "near", "similarity"]]))
    return found


def _beside(table: Table, places: np.ndarray, clusters: np.ndarray, fits: Fits) -> pd.DataFrame:
    """Each of the rows at `places` beside the nearest row of its cluster that `fits(others, row)`, with similarity.

    Rows that are linked directly are compared first; of a large cluster, only some of the others.
    """
    inside = np.flatnonzero(np.isin(clusters, clusters[places]))
    members = {number: rows.to_numpy() for number, rows in pd.Series(inside).groupby(clusters[inside])}
    partners: dict[int, list[int]] = {}
    for one, two in zip(table.near.first.tolist(), table.near.second.tolist(), strict=True):
        partners.setdefault(one, []).append(two)
        partners.setdefault(two, []).append(one)
    firsts = pd.Series(np.arange(len(table.groups))).groupby(table.groups).transform("first").to_numpy()
    lines = []
    for row in places.tolist():
        others = np.array(partners.get(int(firsts[row]), []), dtype=np.int64)
        others = others[fits(others, row)][:COMPARED]
        if not len(others):
            others = members[clusters[row]]
            others = others[fits(others, row)][:COMPARED]
        similarity = duplicates.jaccard(table.words, np.full(len(others), row), others)
        best = int(similarity.argmax()) if len(others) else -1
        lines.append((row, int(others[best]) if len(others) else row, float(similarity[best]) if len(others) else 0.0))
    rows, near, similarity = (np.array(column) for column in zip(*lines, strict=True)) if lines else (places,) * 3
    texts = table.texts
    return pd.DataFrame(
        {
            "id": texts["id"].to_numpy()[rows], "label": texts["label"].to_numpy()[rows],
            "split": texts["split"].to_numpy()[rows], "near": texts["id"].to_numpy()[near],
            "near_label": texts["label"].to_numpy()[near], "similarity": similarity.round(3),
        }
    )  # fmt: skip


def _names(splits: pd.Series) -> str:
    return " and ".join(dict.fromkeys(splits))
