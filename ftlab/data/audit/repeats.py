"""Duplicates, near-duplicates, copies with different labels, and leakage between splits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from ftlab.data import duplicates
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table

Allowed = Callable[[np.ndarray, int], np.ndarray]  # (others, row) -> a mask of the others to compare the row with
COMPARED = 10  # in a large cluster, a row is compared with at most so many others to find the nearest


def check(table: Table) -> list[Finding]:
    """Return the findings on exact and near-duplicates, conflicting labels and leakage between splits in `table`."""
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
        ("exact_duplicates", "an exact copy of an earlier text in {count}", exact, rows["text"]),
        ("normalised_duplicates", "a copy with other case or white space in {count}", written, groups),
    ):
        if again.any():
            firsts = rows["id"].groupby(by).transform("first")
            evidence = pd.DataFrame({"id": rows["id"][again], "copy_of": firsts[again]})
            found.append(finding(finding_id, what, evidence=evidence))
    return found


def _near_duplicates(table: Table) -> list[Finding]:
    """Find near-duplicates in the training rows: all of a cluster but its first row and the copies of that."""
    clusters, groups = pd.Series(table.train_clusters), pd.Series(table.groups)
    train = clusters[table.train]
    several = train[groups[train.index].groupby(train).transform("nunique") > 1]
    if several.empty:
        return []
    first_group = groups[several.index].groupby(several).transform("first")
    later = several[groups[several.index] != first_group].index.to_numpy()
    evidence = _nearest(table, later, table.train_clusters, lambda rows, row: table.groups[rows] != table.groups[row])
    what = f"a near-duplicate of an earlier row in {{count}}; clusters: {several.nunique():,}"
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
    """Find the rows of a cluster that do not have its most frequent label; on a tie, all rows of the cluster."""
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

    evidence = _nearest(table, places, table.train_clusters, other_label)
    evidence = evidence[evidence["similarity"] >= duplicates.NEAR]  # two ends of a chain of near-duplicates may differ
    if evidence.empty:
        return []
    what = "a near-duplicate of a row with another label in {count}"
    return [
        finding("conflicting_near_labels", what, evidence=evidence[["id", "label", "near", "near_label", "similarity"]])
    ]


def _leakage(table: Table) -> list[Finding]:
    """Find validation rows that repeat a training row, and test rows that repeat a row of either, exactly or nearly."""
    if not table.others:
        return []
    rows, order = table.texts, table.split_order
    earliest = pd.Series(order).groupby(table.input_groups).transform("min").to_numpy()
    leaked = order > earliest
    found = []
    if leaked.any():
        firsts = pd.Series(np.arange(len(rows))).groupby(table.input_groups).transform("first").to_numpy()
        evidence = pd.DataFrame(
            {"id": rows["id"][leaked], "split": rows["split"][leaked], "copy_of": rows["id"].to_numpy()[firsts[leaked]]}
        )
        said = "prompt" if table.pairs else "text"
        what = f"a copy of a {said} from an earlier split in {{count}} of {_names(evidence['split'])}"
        found.append(finding("leakage", what, evidence=evidence))
    earliest = pd.Series(order).groupby(table.clusters).transform("min").to_numpy()
    close = np.flatnonzero((order > earliest) & ~leaked)
    if len(close):
        evidence = _nearest(table, close, table.clusters, lambda others, row: order[others] < order[row])
        what = f"a near-duplicate of a text from an earlier split in {{count}} of {_names(evidence['split'])}"
        found.append(finding("near_leakage", what, evidence=evidence[["id", "split", "near", "similarity"]]))
    return found


def _nearest(table: Table, places: np.ndarray, clusters: np.ndarray, allowed: Allowed) -> pd.DataFrame:
    """Return each of the rows at `places` with the nearest row of its cluster that is `allowed`, and their similarity.

    Rows that are linked directly are compared first. In a large cluster only some rows are compared.
    """
    inside = np.flatnonzero(np.isin(clusters, clusters[places]))
    members = {number: rows.to_numpy() for number, rows in pd.Series(inside).groupby(clusters[inside])}
    linked: dict[int, list[int]] = {}
    for one, two in zip(table.near.first.tolist(), table.near.second.tolist(), strict=True):
        linked.setdefault(one, []).append(two)
        linked.setdefault(two, []).append(one)
    firsts = pd.Series(np.arange(len(table.groups))).groupby(table.groups).transform("first").to_numpy()
    lines = []
    for row in places.tolist():
        others = np.array(linked.get(int(firsts[row]), []), dtype=np.int64)
        others = others[allowed(others, row)][:COMPARED]
        if not len(others):
            others = members[clusters[row]]
            others = others[allowed(others, row)][:COMPARED]
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
