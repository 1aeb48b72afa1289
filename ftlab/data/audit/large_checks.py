"""The findings on a file larger than memory: exact ones from hashes of all rows, and others from a random sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ftlab.data import group_columns
from ftlab.data.audit import basics, personal_data, placeholders
from ftlab.data.audit.findings import Finding, finding, share
from ftlab.data.audit.large_rows import KEPT
from ftlab.data.audit.large_scan import Scan
from ftlab.data.values import with_label_names
from ftlab.intervals import proportion

NOISE = {
    "markup": "HTML tags", "entities": "HTML entities", "mojibake": "wrongly decoded characters",
    "control_characters": "invisible characters",
}  # fmt: skip
SEARCHED = NOISE | {name: said for name, (said, _) in personal_data.KINDS.items()}
# Found in all rows, so that the sample has nothing to add.
EXACT = {
    "missing_text", "missing_label", "missing_prompt", "empty_completion", "label_slip", "similar_labels",
    "placeholder_labels", "one_class", "tiny_class", "imbalance", "few_rows", "sorted_by_label", "exact_duplicates",
    "normalised_duplicates", "disguised_duplicates", "conflicting_labels", "leakage", "duplicate_prompts",
    "group_leakage", "group_column",
}  # fmt: skip
# Two rows of a pair are hardly ever both in a sample, so its share says nothing about the file.
OF_PAIRS = {
    "near_duplicates": "near-duplicates", "near_leakage": "near-duplicates between splits", "templates": "templates",
    "contained_texts": "texts inside other texts", "conflicting_near_labels": "near-duplicates with other labels",
    "contradicting_answers": "answers that contradict each other",
}  # fmt: skip


def table_findings(scan: Scan, names: pd.Series) -> list[Finding]:
    """Return the findings on missing values, spelling and balance of the labels, and order of the rows of `scan`.

    Args:
        scan: of the training file.
        names: the label of each row as text; None where it is missing (see `label_names`).
    """
    blank_text, blank_label = scan.array("characters") < 0, names.isna().to_numpy()
    found = []
    for column, blank in (("text", blank_text), ("label", blank_label)):
        if blank.any():
            rows = np.flatnonzero(blank)
            found.append(_finding(scan, f"missing_{column}", f"no {column} in {{count}}", rows))
    frame = pd.DataFrame({"id": np.arange(len(scan)), "label": names})
    frame.attrs.update(names.attrs)
    complete = frame[~blank_text & ~blank_label]
    made = [*basics.slips(frame), *basics.classes(complete), *basics.order(complete), *placeholders.labels(frame)]
    return found + [_with_ids(scan, each) for each in made]


def label_names(scan: Scan) -> pd.Series:
    """Return the label of each row of `scan` as text, None where it is missing.

    Its `attrs["mixed_labels"]` are those of `values.with_label_names`, by the position of the row.
    """
    values = np.array([*scan.labels, None], dtype=object)
    labels = pd.Series(values[scan.codes], dtype=object)
    if all(isinstance(label, str) for label in scan.labels):
        return labels
    named = with_label_names(pd.DataFrame({"id": np.arange(len(labels)), "label": labels}))
    names = named["label"].astype(object).where(named["label"].notna(), None)
    names.attrs.update(named.attrs)
    return names


def copies(scan: Scan, codes: np.ndarray, label_list: Sequence[str], done: Callable[[int], object]) -> list[Finding]:
    """Return the findings on copies within `scan`, and on copies with different labels.

    Args:
        scan: of the training file.
        codes: (rows,) the label of each row as its position in `label_list`; -1 for none.
        label_list: the labels.
        done: called with 1 after each of COPY_STEPS steps.
    """
    exact, normal, skeleton = (scan.array(name) for name in ("exact", "normal", "skeleton"))
    # Few rows have a copy: only these are compared further.
    texts = np.flatnonzero((exact != 0) & (_are_twice(normal) | _are_twice(skeleton)))
    exact, normal, skeleton = exact[texts], normal[texts], skeleton[texts]
    found = []
    for finding_id, what, key, finer in (
        ("exact_duplicates", "an exact copy of an earlier text in {count}", exact, None),
        ("normalised_duplicates", "a copy with other case or white space in {count}", normal, exact),
        (
            "disguised_duplicates",
            "a copy written with other characters or spaces that reads the same in {count}",
            skeleton,
            normal,
        ),
    ):
        first = _first(key)
        again = first != np.arange(len(key)) if finer is None else finer != finer[first]
        if again.any():
            rows, originals = texts[again], texts[first[again]]
            found.append(_finding(scan, finding_id, what, rows, copy_of=scan.ids(originals[:KEPT].tolist())))
        done(1)
    labelled = codes[texts] >= 0
    found += _conflicts(scan, texts[labelled], skeleton[labelled], codes, label_list)
    done(1)
    return found


COPY_STEPS = 4


def _conflicts(
    scan: Scan, rows: np.ndarray, keys: np.ndarray, codes: np.ndarray, label_list: Sequence[str]
) -> list[Finding]:
    """Find the `rows` of one key with different labels; `codes` are those of all rows of the file."""
    own, first = codes[rows], _first(keys)
    if (own == own[first]).all():
        return []
    usual = _usual_codes(codes, label_list)[own]
    differs = usual != usual[first]
    if not differs.any():
        return []
    conflict = np.isin(keys, keys[differs])
    groups = first[conflict]
    order = np.argsort(groups, kind="stable")
    label = np.array(label_list, dtype=object)[own[conflict]][order]
    what = f"the same text with different labels in {{count}}; texts: {len(np.unique(groups)):,}"
    numbers = np.unique(groups, return_inverse=True)[1][order]
    evidence = {"text_number": numbers[:KEPT].tolist(), "label": label[:KEPT].tolist()}
    return [_finding(scan, "conflicting_labels", what, rows[conflict][order], **evidence)]


def _usual_codes(codes: np.ndarray, label_list: Sequence[str]) -> np.ndarray:
    """Return for each label the code of its usual spelling: two spellings of one label do not conflict."""
    names = np.array(label_list, dtype=object)
    usual = basics.usual_spellings(pd.Series(names[codes[codes >= 0]], dtype=object))
    code_of: dict[object, int] = {name: code for code, name in enumerate(label_list)}
    return np.array([code_of[usual.get(name, name)] for name in label_list])


def _are_twice(keys: np.ndarray) -> np.ndarray:
    """Return for each position whether another one has the same key."""
    order = np.sort(keys)
    return np.isin(keys, np.unique(order[1:][order[1:] == order[:-1]]))


def _first(keys: np.ndarray) -> np.ndarray:
    """Return for each position the first one with the same key."""
    _, firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return firsts[inverse]


def prompts(scan: Scan) -> list[Finding]:
    """Return the findings on missing prompts and answers, and on prompts of an earlier row of `scan`."""
    inputs, skeleton = scan.array("inputs"), scan.array("skeleton")
    found = []
    if (missing := np.flatnonzero(inputs == 0)).size:
        found.append(_finding(scan, "missing_prompt", "no prompt in {count}", missing))
    if scan.unanswered:
        rows = np.array(scan.unanswered)
        found.append(_finding(scan, "empty_completion", "an empty completion in {count}", rows))
    rows = np.flatnonzero(inputs)
    first = _first(inputs[rows])
    other = (first != np.arange(len(rows))) & (_first(skeleton[rows]) == np.arange(len(rows)))
    if other.any():
        what = "the prompt of an earlier row with another completion in {count}"
        originals = scan.ids(rows[first[other]][:KEPT].tolist())
        found.append(_finding(scan, "duplicate_prompts", what, rows[other], prompt_of=originals))
    return found


def leakage(scans: dict[str, Scan], pairs: bool, done: Callable[[int], object]) -> list[Finding]:
    """Return the finding on rows of a split whose input is in an earlier split.

    Args:
        scans: of the splits, in their order, the training rows first.
        pairs: whether they are instruction data, whose input is the prompt.
        done: called with 1 after each split but the first.
    """
    names = [*scans]
    lines: list[pd.DataFrame] = []
    count, of = 0, []
    for place, name in enumerate(names[1:], start=1):
        inputs = scans[name].array("inputs")
        left = inputs != 0
        here = 0
        for earlier in names[:place]:
            known = scans[earlier].array("inputs")
            rows = np.flatnonzero(left & np.isin(inputs, known))
            left[rows] = False
            here += len(rows)
            shown = rows[:KEPT]
            order = np.argsort(known, kind="stable")
            places = order[np.searchsorted(known, inputs[shown], sorter=order)] if len(shown) else shown
            copy_of = scans[earlier].ids(places.tolist())
            lines.append(pd.DataFrame({"id": scans[name].ids(shown.tolist()), "split": name, "copy_of": copy_of}))
        count += here
        of += [name] if here else []
        done(1)
    if not count:
        return []
    said = "prompt" if pairs else "text"
    what = f"a copy of a {said} from an earlier split in {{count}} of {' and '.join(of)}{_named(count)}"
    return [finding("leakage", what, count=count, evidence=pd.concat(lines, ignore_index=True).head(KEPT))]


def groups(scans: dict[str, Scan]) -> list[Finding]:
    """Return the finding on rows of the `scans`, by split, whose group is in an earlier split.

    Raises:
        BadInput: as `group_columns.require`.
    """
    train, *others = scans.values()
    known = train.groups
    named = pd.Series(known.astype(str), dtype=object).where(known != 0, None)
    group_columns.require(named, f"{train.name}, the column of groups")
    ids: list[str] = []
    count, shared, there, of = 0, 0, 0, []
    for name, other in zip([*scans][1:], others, strict=True):
        leaked = np.isin(other.groups, known[known != 0])
        ids += other.ids(np.flatnonzero(leaked)[:KEPT].tolist())
        count += int(leaked.sum())
        shared += len(np.unique(other.groups[leaked]))
        there += len(np.unique(other.groups[other.groups != 0]))
        of += [name] if leaked.any() else []
        known = np.append(known, other.groups)
    if not count:
        return []
    what = f"a group that an earlier split has too in {{count}} of {' and '.join(of)}; groups: {shared:,} of {there:,}"
    return [finding("group_leakage", what + _named(count), ids[:KEPT], count=count)]


def noise(scan: Scan) -> list[Finding]:
    """Return the findings of the searches in the texts of all rows of `scan`."""
    texts = int((scan.array("characters") >= 0).sum())
    found = []
    for finding_id, one in scan.found.items():
        said = SEARCHED[finding_id]
        what = f"{said} in {{count}} ({share(one.count, texts)})"
        found.append(_finding(scan, finding_id, what, np.array(one.rows), count=one.count, found=one.matches))
    return found


def from_sample(findings: Sequence[Finding], drawn: int, rows: int, found: set[str]) -> list[Finding]:
    """Return those of the `findings` of a sample that say something about the file, with their error.

    Args:
        findings: of an audit of the rows that were drawn.
        drawn: how many.
        rows: of the file.
        found: the ids of what all rows were searched for.
    """
    kept = []
    for one in findings:
        if one.id in EXACT | found or (one.id in OF_PAIRS and drawn < rows):
            continue
        said = f"{drawn:,} of {rows:,} rows drawn at random"
        if drawn == rows:
            kept.append(one)
        elif one.rows and one.count <= drawn:
            hit = np.zeros(drawn)
            hit[: one.count] = 1
            interval = proportion(hit)
            percent = f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
            kept.append(replace(one, what=f"{one.what}; in {said}: {percent}"))
        else:
            kept.append(replace(one, what=f"{one.what}; judged by {said}"))
    return kept


def _finding(
    scan: Scan, finding_id: str, what: str, rows: np.ndarray, *, count: int | None = None, **evidence: list[Any]
) -> Finding:
    """Make a finding on the rows at these positions; it names the first KEPT of them."""
    number = len(rows) if count is None else count
    ids = scan.ids(rows[:KEPT].tolist())
    table = (
        pd.DataFrame({"id": ids, **{name: values[:KEPT] for name, values in evidence.items()}}) if evidence else None
    )
    return finding(finding_id, what + _named(number), ids, count=number, evidence=table)


def _named(count: int) -> str:
    return f"; the first {KEPT:,} are named" if count > KEPT else ""


def _with_ids(scan: Scan, one: Finding) -> Finding:
    """Return the finding with ids for its positions, of the first KEPT rows."""
    rows = scan.ids(one.rows[:KEPT])  # type: ignore[arg-type]
    evidence = one.evidence.head(KEPT)
    if len(evidence):
        evidence = evidence.assign(id=scan.ids(evidence["id"]))
    return replace(one, rows=tuple(rows), evidence=evidence, what=one.what + _named(len(one.rows)))
