"""Copies in the training rows (exact, disguised, edited, cut, from a template), conflicting labels, leakage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from ftlab.data import duplicates, normalisation, sources
from ftlab.data.audit import basics
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table

Allowed = Callable[[np.ndarray, int], np.ndarray]  # (others, row) -> a mask of the others to compare the row with
OTHER_TURNS = "other turns of the dialogue"
COMPARED = 10  # in a large cluster, a row is compared with at most so many others to find the nearest


def check(table: Table) -> list[Finding]:
    """Return the findings on copies of each kind, conflicting labels and leakage between splits in `table`.

    A copy is listed under the first of these kinds that it is of: exact, normalised, disguised, template, near, part.
    """
    return [
        *_copies(table),
        *_templates(table),
        *_near_duplicates(table),
        *_contained(table),
        *_dialogues(table),
        *_conflicts(table),
        *_near_conflicts(table),
        *_leakage(table),
    ]


def _copies(table: Table) -> list[Finding]:
    rows = table.texts[table.train]
    groups, copies = (pd.Series(each[table.train], index=rows.index) for each in (table.groups, table.copies))
    firsts = rows["text"].groupby(groups).transform("first")
    found = []
    for finding_id, what, again, by in (
        ("exact_duplicates", "an exact copy of an earlier text in {count}", rows["text"].duplicated(), rows["text"]),
        ("normalised_duplicates", "a copy with other case or white space in {count}", rows["text"] != firsts, groups),
    ):
        if again.any():
            first = rows["id"].groupby(by).transform("first")
            evidence = pd.DataFrame({"id": rows["id"][again], "copy_of": first[again]})
            found.append(finding(finding_id, what, evidence=evidence))
    several = copies[groups.groupby(copies).transform("nunique") > 1]
    if len(several):
        plainest = _plainest(rows["text"][several.index], several)
        plainest = plainest[groups[several.index] != groups[plainest].to_numpy()]
        texts = zip(rows["text"][plainest], rows["text"][plainest.index], strict=True)
        evidence = pd.DataFrame({"id": rows["id"][plainest.index], "copy_of": rows["id"][plainest].to_numpy()})
        evidence["disguise"] = [_disguise(one, two) for one, two in texts]
        kinds = ", ".join(evidence["disguise"].value_counts().index[:3])
        what = f"a disguised copy of another text in {{count}}; they differ in {kinds}"
        found.append(finding("disguised_duplicates", what, evidence=evidence))
    return found


def _plainest(texts: pd.Series, copies: pd.Series) -> pd.Series:
    """Return the index of the least disguised of the copies of each text, the first of equally plain ones."""
    best: dict[int, tuple[tuple[int, int], int]] = {}
    for index, number, text in zip(copies.index.tolist(), copies.tolist(), texts, strict=True):
        best[number] = min(
            best.get(number, (normalisation.disguised(text), index)), (normalisation.disguised(text), index)
        )
    return copies.map({number: index for number, (_, index) in best.items()})


def _disguise(text: str, other: str) -> str:
    return ", ".join(normalisation.disguises(text, other)) or "nothing"


def _templates(table: Table) -> list[Finding]:
    """Find training texts that were filled into a template, of copies the first."""
    first = np.zeros(len(table.copies), dtype=bool)
    first[table.forms.firsts] = True
    places = np.flatnonzero((table.train_templates >= 0) & first)
    if not len(places):
        return []
    numbers = pd.factorize(table.train_templates[places])[0]
    ids = table.texts["id"].to_numpy()[places]
    like = pd.Series(places).groupby(numbers).transform("first").to_numpy()
    # The first text of a template is like the second one.
    second = pd.Series(places).groupby(numbers).transform(lambda rows: rows.iloc[min(1, len(rows) - 1)]).to_numpy()
    like = np.where(like == places, second, like)
    evidence = pd.DataFrame({"id": ids, "cluster": numbers + 1, "like": table.texts["id"].to_numpy()[like]})
    evidence["differs_in"] = [_difference(table, *pair) for pair in zip(places.tolist(), like.tolist(), strict=True)]
    evidence = evidence.iloc[np.argsort(numbers, kind="stable")]
    what = f"texts that are equal but for numbers or names in {{count}}; clusters: {numbers.max() + 1:,}"
    return [finding("templates", what, evidence=evidence)]


def _later_of_templates(table: Table) -> np.ndarray:
    """Return which rows are listed as filled into a template, but are not the first of it."""
    places = np.flatnonzero(table.train_templates >= 0)
    later = np.zeros(len(table.copies), dtype=bool)
    later[places] = pd.Series(table.train_templates[places]).duplicated().to_numpy()
    return later


def _near_duplicates(table: Table) -> list[Finding]:
    """Find near-duplicates in the training rows.

    Those are all rows of a cluster but the first, copies of that, rows of its dialogue, and rows of templates.
    """
    clusters, copies, dialogues = (pd.Series(each) for each in (table.near_clusters, table.copies, table.dialogues))
    train = clusters[table.train]
    several = train[copies[train.index].groupby(train).transform("nunique") > 1]
    first = dialogues[several.index].groupby(several).transform("first")
    later = several[(dialogues[several.index] != first) & ~_later_of_templates(table)[several.index]]
    if later.empty:
        return []
    differ: Allowed = lambda rows, row: (table.dialogues[rows] != table.dialogues[row]) & table.train[rows]  # noqa: E731
    evidence = _nearest(table, later.index.to_numpy(), table.near_clusters, differ)
    what = "a near-duplicate of an earlier row in {count}" + f"; clusters: {later.nunique():,}" * (len(later) > 1)
    return [finding("near_duplicates", what, evidence=evidence[["id", "near", "similarity"]])]


def _contained(table: Table) -> list[Finding]:
    """Find training texts that are a part of another one, and no near-duplicates of it or answers to its prompt."""
    found = table.contained
    pairs = pd.DataFrame({"inner": found.inner, "outer": found.outer, "share": found.share, "part": found.part})
    both = table.train[pairs["inner"]] & table.train[pairs["outer"]]
    near = table.near_clusters[pairs["inner"]] == table.near_clusters[pairs["outer"]]
    template = table.train_templates[pairs["inner"]]
    filled = (template >= 0) & (template == table.train_templates[pairs["outer"]])
    asked = table.input_groups[pairs["inner"]] == table.input_groups[pairs["outer"]]  # another answer to one prompt
    goes_on = table.dialogues[pairs["inner"]] == table.dialogues[pairs["outer"]]
    pairs = pairs[both & ~near & ~filled & ~asked & ~goes_on].sort_values(
        ["inner", "share", "part"], ascending=[True, False, False]
    )
    pairs = pairs.drop_duplicates("inner")
    if pairs.empty:
        return []
    ids = table.texts["id"].to_numpy()
    evidence = pd.DataFrame(
        {
            "id": ids[pairs["inner"]], "part_of": ids[pairs["outer"]],
            "share": pairs["share"].to_numpy().round(3), "of_the_whole": pairs["part"].to_numpy().round(2),
        }
    )  # fmt: skip
    return [
        finding("contained_texts", "a text that is a part of another one, or nearly so, in {count}", evidence=evidence)
    ]


def _dialogues(table: Table) -> list[Finding]:
    """Find the training pairs that go on with the dialogue of another training pair."""
    before = table.goes_on_with
    places = np.flatnonzero((before >= 0) & table.train)
    places = places[table.train[before[places]]]
    if not len(places):
        return []
    ids = table.texts["id"].to_numpy()
    numbers = pd.factorize(table.dialogues[places])[0] + 1
    evidence = pd.DataFrame({"id": ids[places], "goes_on_with": ids[before[places]], "dialogue": numbers})
    what = f"a prompt that goes on with the dialogue of another row in {{count}}; dialogues: {numbers.max():,}"
    return [finding("growing_dialogues", what, evidence=evidence)]


def _conflicts(table: Table) -> list[Finding]:
    rows = table.texts[table.labelled]
    copies = pd.Series(table.forms.written[table.labelled], index=rows.index)
    conflict = _usual_labels(table).groupby(copies).transform("nunique") > 1
    if not conflict.any():
        return []
    evidence = pd.DataFrame({"id": rows["id"], "text_number": copies, "label": rows["label"]})[conflict]
    what = f"the same text with different labels in {{count}}; texts: {copies[conflict].nunique():,}"
    return [finding("conflicting_labels", what, evidence=evidence.sort_values("text_number", kind="stable"))]


def _usual_labels(table: Table) -> pd.Series:
    """Return the label of each `labelled` row in its usual spelling: two spellings of one label do not conflict."""
    labels = table.texts["label"][table.labelled]
    if table.pairs:
        return labels
    usual = basics.usual_spellings(table.frame.loc[~sources.blank(table.frame["label"]), "label"])
    return labels.map(lambda label: usual.get(label, label))


def _near_conflicts(table: Table) -> list[Finding]:
    """Find the rows of a cluster that do not have its most frequent label; on a tie, all rows of the cluster.

    Texts that were filled into one template do not conflict: the number or the name may be what the label depends on;
    so may a short text's punctuation. Nor is it sure that texts with and without accents are the same.
    """
    rows = table.texts[table.labelled].assign(label=_usual_labels(table))
    clusters = pd.Series(table.near_clusters[table.labelled], index=rows.index)
    written = pd.Series(table.forms.written[rows.index], index=rows.index)
    several = clusters[written.groupby(clusters).transform("nunique") > 1]
    if several.empty:
        return []
    counts = rows.loc[several.index].groupby([several, "label"]).size()
    most = counts.groupby(level=0).transform("max")
    tied = (counts == most).groupby(level=0).transform("sum") > 1
    odd = set(counts.index[((counts < most) | tied) & (counts.groupby(level=0).transform("size") > 1)])
    keys = zip(several, rows["label"][several.index], strict=True)
    places = np.array([row for row, key in zip(several.index, keys, strict=True) if key in odd], dtype=np.int64)
    codes = np.full(len(table.texts), -1)
    codes[rows.index] = pd.factorize(rows["label"])[0]

    def other_label(others: np.ndarray, row: int) -> np.ndarray:
        differs = (codes[others] != codes[row]) & table.labelled[others]
        filled = (table.train_templates[others] >= 0) & (table.train_templates[others] == table.train_templates[row])
        differs &= (table.forms.written[others] != table.forms.written[row]) & ~filled
        return differs & np.array([not _in_punctuation(table, row, int(other)) for other in others], dtype=bool)

    evidence = _nearest(table, places, table.near_clusters, other_label)
    evidence = evidence[evidence["similarity"] >= duplicates.NEAR]  # two ends of a chain of near-duplicates may differ
    if evidence.empty:
        return []
    what = "a near-duplicate of a row with another label in {count}"
    return [
        finding("conflicting_near_labels", what, evidence=evidence[["id", "label", "near", "near_label", "similarity"]])
    ]


def _in_punctuation(table: Table, row: int, other: int) -> bool:
    """Return whether two texts with the same words differ in punctuation that may be what the label depends on."""
    words = table.compared
    if table.copies[row] == table.copies[other] or not np.array_equal(words.row(row), words.row(other)):
        return False
    if words.size(words.starts[row], words.starts[row + 1]) < duplicates.SIGNS_TELL:
        return True
    return normalisation.signs(table.said[row]) != normalisation.signs(table.said[other])


def _leakage(table: Table) -> list[Finding]:
    """Find validation rows that repeat a training row, and test rows that repeat a row of either, exactly or nearly."""
    if not table.others:
        return []
    rows, order = table.texts, table.split_order
    copied, copy_of = _of_earlier_split(order, table.input_groups)
    goes_on, part_of = _of_earlier_split(order, table.whole_dialogues)
    leaked = copied | goes_on
    found = []
    if leaked.any():
        firsts = np.where(copied, copy_of, part_of)[leaked]
        said = "prompt" if table.pairs else "text"
        inputs = rows[said].fillna("").to_numpy()
        differs_in = [
            _disguise(*pair) if is_copy else OTHER_TURNS
            for is_copy, *pair in zip(copied[leaked], inputs[firsts], inputs[leaked], strict=True)
        ]
        evidence = pd.DataFrame(
            {
                "id": rows["id"][leaked], "split": rows["split"][leaked], "copy_of": rows["id"].to_numpy()[firsts],
                "differs_in": differs_in,
            }
        )  # fmt: skip
        kinds = [f"a copy of a {said}"] if copied.any() else []
        kinds += ["other turns of a dialogue"] if OTHER_TURNS in differs_in else []
        what = f"{' or '.join(kinds)} from an earlier split in {{count}} of {_names(evidence['split'])}"
        found.append(finding("leakage", what, evidence=evidence))
    earliest = pd.Series(order).groupby(table.clusters).transform("min").to_numpy()
    close = np.flatnonzero((order > earliest) & ~leaked)
    if len(close):
        evidence = _nearest(table, close, table.clusters, lambda others, row: order[others] < order[row])
        pairs = zip(evidence.pop("place"), evidence.pop("near_place"), strict=True)
        evidence["differs_in"] = [_difference(table, *pair) for pair in pairs]
        what = f"a near-copy of a text from an earlier split in {{count}} of {_names(evidence['split'])}"
        columns = ["id", "split", "near", "similarity", "differs_in"]
        found.append(finding("near_leakage", what, evidence=evidence[columns]))
    return found


def _of_earlier_split(order: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows have a row of their group in an earlier split (see `Table.split_order`), and the first one."""
    earliest = pd.Series(order).groupby(groups).transform("min").to_numpy()
    return order > earliest, pd.Series(np.arange(len(groups))).groupby(groups).transform("first").to_numpy()


def _difference(table: Table, row: int, other: int) -> str:
    """Say how the texts at two positions of one cluster differ."""
    if table.copies[row] == table.copies[other]:
        texts = table.texts["text"]
        return _disguise(texts.iloc[row], texts.iloc[other])
    numbers, names = table.forms.numbers, table.forms.names
    if numbers[row] >= 0 and numbers[row] == numbers[other] and table.templates[row] >= 0:
        return "numbers"
    if names[row] >= 0 and names[row] == names[other] and table.templates[row] >= 0:
        one, two = (
            normalisation.skeleton(normalisation.names_as_class(table.texts["text"].iloc[place]))
            for place in (row, other)
        )
        return "names" if one == two else "names and numbers"
    pairs = table.cached("parts of texts", lambda: _parts(table))
    firsts = table.cached("firsts of copies", lambda: table.forms.firsts[table.copies])
    pair = int(firsts[row]), int(firsts[other])
    if pair in pairs:
        return f"it is {pairs[pair]:.0%} of the other text"
    if pair[::-1] in pairs:
        return f"the other text is {pairs[pair[::-1]]:.0%} of it"
    return "words"


def _parts(table: Table) -> dict[tuple[int, int], float]:
    found = table.contained
    return dict(zip(zip(found.inner.tolist(), found.outer.tolist(), strict=True), found.part.tolist(), strict=True))


def _nearest(table: Table, places: np.ndarray, clusters: np.ndarray, allowed: Allowed) -> pd.DataFrame:
    """Return each of the rows at `places` with the nearest row of its cluster that is `allowed`, and their similarity.

    Rows that are linked directly are compared first. In a large cluster only some rows are compared.
    """
    inside = np.flatnonzero(np.isin(clusters, clusters[places]))
    members = {number: rows.to_numpy() for number, rows in pd.Series(inside).groupby(clusters[inside])}
    linked: dict[int, list[int]] = {}
    for pairs in ((table.near.first, table.near.second), (table.contained.inner, table.contained.outer)):
        for one, two in zip(*(side.tolist() for side in pairs), strict=True):
            linked.setdefault(one, []).append(two)
            linked.setdefault(two, []).append(one)
    firsts = table.forms.firsts[table.copies]
    lines = []
    for row in places.tolist():
        others = np.array(linked.get(int(firsts[row]), []), dtype=np.int64)
        others = others[allowed(others, row)][:COMPARED]
        if not len(others):
            others = members[clusters[row]]
            others = others[allowed(others, row)][:COMPARED]
        similarity = duplicates.jaccard(table.compared, np.full(len(others), row), others)
        best = int(similarity.argmax()) if len(others) else -1
        lines.append((row, int(others[best]) if len(others) else row, float(similarity[best]) if len(others) else 0.0))
    rows, near, similarity = (np.array(column) for column in zip(*lines, strict=True)) if lines else (places,) * 3
    texts = table.texts
    return pd.DataFrame(
        {
            "id": texts["id"].to_numpy()[rows], "label": texts["label"].to_numpy()[rows],
            "split": texts["split"].to_numpy()[rows], "near": texts["id"].to_numpy()[near],
            "near_label": texts["label"].to_numpy()[near], "similarity": similarity.round(3),
            "place": rows, "near_place": near,
        }
    )  # fmt: skip


def _names(splits: pd.Series) -> str:
    return " and ".join(dict.fromkeys(splits))
