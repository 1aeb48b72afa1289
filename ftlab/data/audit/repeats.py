"""Rows that repeat: copies, near-copies, copies that contradict each other, and copies in the judging splits."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ftlab.data.audit.report import Finding, finding
from ftlab.data.audit.table import TRAIN, Table


def check(table: Table) -> list[Finding]:
    """Duplicates, conflicts and leakage, exact and near."""
    return [*_duplicates(table), *_conflicts(table), *_leakage(table)]


def _duplicates(table: Table) -> list[Finding]:
    rows = table.texts[table.train]
    found = []
    exact = rows["text"].duplicated()
    if exact.any():
        firsts = rows.groupby("text")["id"].transform("first")
        evidence = pd.DataFrame({"id": rows["id"][exact], "copy_of": firsts[exact]})
        what = "the text of an earlier row again in {count}"
        found.append(finding("exact_duplicates", what, evidence["id"], evidence=evidence))
    groups = pd.Series(table.groups[table.train], index=rows.index)
    again = groups.duplicated() & ~exact
    if again.any():
        firsts = rows["id"].groupby(groups).transform("first")
        evidence = pd.DataFrame({"id": rows["id"][again], "copy_of": firsts[again]})
        what = "an earlier text again, but for case, white space or punctuation, in {count}"
        found.append(finding("normalised_duplicates", what, evidence["id"], evidence=evidence))
    return found + _near_duplicates(table)


def _near_duplicates(table: Table) -> list[Finding]:
    """Of each cluster of near-duplicates among the training rows, all rows but the first."""
    pairs = _near_pairs(table)
    pairs = pairs[(pairs["split"] == TRAIN) & (pairs["of_split"] == TRAIN)]
    if pairs.empty:
        return []
    ids = table.texts["id"].to_numpy()
    cluster = pd.Series(table.clusters)
    members = cluster[table.train & cluster.isin(cluster[pairs["row"]]).to_numpy()]
    # One line for each text of a cluster; its exact copies are findings of their own.
    members = members[~pd.Series(table.groups[members.index], index=members.index).duplicated()]
    later = members[members.duplicated()]
    firsts = {number: row for row, number in members[~members.duplicated()].items()}
    closest = pairs.groupby("row")["similarity"].max()
    backwards = pairs.groupby("of")["similarity"].max()
    evidence = pd.DataFrame(
        {
            "id": ids[later.index],
            "near": ids[later.map(firsts).to_numpy()],
            "similarity": np.fmax(
                closest.reindex(later.index).to_numpy(), backwards.reindex(later.index).to_numpy()
            ).round(2),
        }
    )
    what = f"nearly the text of an earlier row in {{count}}; clusters: {later.nunique():,}"
    return [finding("near_duplicates", what, evidence["id"], evidence=evidence)]


def _conflicts(table: Table) -> list[Finding]:
    rows = table.texts[table.labelled]
    groups = pd.Series(table.groups[table.labelled], index=rows.index)
    conflict = rows["label"].groupby(groups).transform("nunique") > 1
    found = []
    if conflict.any():
        evidence = pd.DataFrame({"id": rows["id"], "text_number": groups, "label": rows["label"]})[conflict]
        evidence = evidence.sort_values("text_number", kind="stable")
        what = f"the same text with different labels in {{count}}; texts: {groups[conflict].nunique():,}"
        found.append(finding("conflicting_labels", what, rows["id"][conflict], evidence=evidence))
    pairs = _near_pairs(table)
    pairs = pairs[(pairs["split"] == TRAIN) & (pairs["of_split"] == TRAIN) & (pairs["label"] != pairs["of_label"])]
    pairs = pairs.dropna(subset=["label", "of_label"])
    if len(pairs):
        evidence = pairs[["id", "label", "of_id", "of_label", "similarity"]]
        evidence = evidence.rename(columns={"of_id": "near", "of_label": "near_label"})
        ids = dict.fromkeys([*pairs["id"], *pairs["of_id"]])
        what = f"nearly the same text with different labels in {{count}}; pairs: {len(pairs):,}"
        found.append(finding("conflicting_near_labels", what, ids, evidence=evidence))
    return found


def _leakage(table: Table) -> list[Finding]:
    """Rows of a judging split whose text, or nearly, stands in an earlier split: test in validation, both in train."""
    if not table.others:
        return []
    rows = table.texts
    order = {split: place for place, split in enumerate([TRAIN, *table.others])}
    place = rows["split"].map(order)
    groups = pd.Series(table.groups)
    first = place.groupby(groups).idxmin()[groups].to_numpy()  # the earliest split that has this text
    leaked = place > place.to_numpy()[first]
    found = []
    if leaked.any():
        evidence = pd.DataFrame(
            {"id": rows["id"][leaked], "split": rows["split"][leaked], "copy_of": rows["id"].to_numpy()[first[leaked]]}
        )
        what = f"a text of an earlier split again in {{count}} of {_names(evidence['split'])}"
        found.append(finding("leakage", what, evidence["id"], evidence=evidence))
    pairs = _near_pairs(table)
    pairs = pairs[(pairs["split"] != pairs["of_split"]) & ~pairs["id"].isin(rows["id"][leaked])]
    if len(pairs):
        evidence = pairs.sort_values("similarity", ascending=False).drop_duplicates("id").sort_values("row")
        evidence = evidence[["id", "split", "of_id", "similarity"]].rename(columns={"of_id": "near"})
        what = f"nearly a text of an earlier split in {{count}} of {_names(evidence['split'])}"
        found.append(finding("near_leakage", what, evidence["id"], evidence=evidence))
    return found


def _near_pairs(table: Table) -> pd.DataFrame:
    """Near-duplicates as a table, the later row first; copies of either text are not repeated here."""
    rows, pairs = table.texts, table.near
    earlier, later = rows.iloc[pairs.first], rows.iloc[pairs.second]
    return pd.DataFrame(
        {
            "row": pairs.second, "id": later["id"].to_numpy(), "label": later["label"].to_numpy(),
            "split": later["split"].to_numpy(), "of": pairs.first, "of_id": earlier["id"].to_numpy(),
            "of_label": earlier["label"].to_numpy(), "of_split": earlier["split"].to_numpy(),
            "similarity": pairs.similarity.round(3),
        }
    )  # fmt: skip


def _names(splits: pd.Series) -> str:
    return " and ".join(dict.fromkeys(splits))
