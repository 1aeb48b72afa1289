"""Repairs: drop or rewrite the rows of chosen findings, with a log of each change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab.data import sources
from ftlab.data.audit import basics, groups, model_checks, personal_data, repeated_prompts, text_noise
from ftlab.data.audit.masking import Masking
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from ftlab.data.audit.findings import AuditResult, Finding
    from ftlab.data.audit.table import Table

REWRITES: dict[str, Callable[[str], str]] = {
    "mojibake": text_noise.fix_encoding,
    "entities": text_noise.decode_entities,
    "markup": text_noise.strip_markup,
    "control_characters": text_noise.strip_invisible,
    **{kind: personal_data.mask(kind) for kind in personal_data.KINDS},
    "boilerplate": str,  # its lines depend on the rows: see `rewriting`
}
DROPS = (  # drop the rows that the finding lists; for duplicates, these are all but the first
    "missing_text", "missing_label", "missing_prompt", "tiny_class", "exact_duplicates", "normalised_duplicates",
    "near_duplicates", "disguised_duplicates", "contained_texts",
    "conflicting_labels", "conflicting_near_labels", "likely_label_errors", "empty_completion", "copied_completion",
    "duplicate_prompts", "refusal", "cut_off_answer", "repetition_loop", "empty_like_answer", "broken_format",
    "broken_conversation", "completion_cut", "all_masked", "eos_lost",
    "unknown_tokens", "refused",
)  # fmt: skip
# Copies are dropped late, the exact ones first: a copy stays if what it is a copy of was dropped for another reason.
OF_COPIES = (
    "exact_duplicates", "normalised_duplicates", "disguised_duplicates", "near_duplicates", "contained_texts"
)  # fmt: skip
# Repeated prompts are dropped last: of each prompt the first row that is left stays.
LATE = (*OF_COPIES, "duplicate_prompts")
COPIES_IN_TRAINING = ("leakage", "near_leakage")  # drop the copies in the training rows
GROUPS_IN_TRAINING = "group_leakage"  # drop the training rows of the groups
# Shared lines go before the tags at their ends. Tags go before entities: "&lt;b&gt;" stands for the text "<b>", not for
# a tag.
ORDER = ("mojibake", "boilerplate", "markup", "entities", "control_characters")


@dataclass(frozen=True)
class Repaired:
    """The repaired rows in their order, and the log: id, finding, action ("dropped" or "changed"), from and to."""

    rows: pd.DataFrame
    log: pd.DataFrame

    def __repr__(self) -> str:
        counts = Counter(zip(self.log["finding"], self.log["action"], strict=True))
        lines = [f"{finding}: {count:,} {action}" for (finding, action), count in counts.items()]
        return "\n".join([f"{len(self.rows):,} rows after repair", *lines])


def repair(report: AuditResult, finding_ids: Sequence[str], *, seed: int = 0) -> Repaired:
    """Repair the training rows; the audited frame itself does not change.

    Texts are rewritten first, then rows are dropped. A repair can make rows equal, or cause another finding: audit the
    result again.

    Args:
        report: the audit that found the defects.
        finding_ids: the findings to repair.
        seed: of the shuffle of rows that were sorted by label.

    Returns:
        The repaired rows, and the log of what was dropped or changed.

    Raises:
        BadInput: the audit did not find one of these, or it cannot be repaired row by row.
    """
    findings = [report[finding_id] for finding_id in dict.fromkeys(finding_ids)]
    for found in findings:
        if not repairable(found, report.table):
            raise BadInput(f"{found.id} cannot be repaired row by row; what to do instead: {found.todo}")
    rows = report.table.frame.copy()
    rows.attrs = dict(rows.attrs)
    log: list[dict[str, object]] = []
    for found in sorted(findings, key=lambda found: ORDER.index(found.id) if found.id in ORDER else len(ORDER)):
        if found.id in REWRITES:
            # A line that many prompts share is the instruction itself, so it stays.
            of_prompt = () if found.id == "boilerplate" else report.table.prompt_columns
            columns = (*of_prompt, report.table.columns[-1])
            _rewrite(rows, found, rewriting(report, found.id), columns, log)
        elif found.id == "label_slip":
            _respell(rows, found, log)
    if report.table.templated:  # join the prompt anew from its repaired parts
        touched = rows["id"].isin([entry["id"] for entry in log])
        parts = [rows.loc[touched, column].fillna("") for column in report.table.prompt_columns]
        rows.loc[touched, "prompt"] = sources.joined(parts, rows.index[touched])
    respelt = None
    if any(found.id == "label_slip" for found in findings):
        respelt = _with_labels(report.table, rows["label"])
    for found in sorted(findings, key=lambda found: LATE.index(found.id) + 1 if found.id in LATE else 0):
        rows = _drop(rows, found, _to_drop(report.table, rows, found, respelt), log)
    if rows.empty:
        ids = " and ".join(found.id for found in findings)
        raise BadInput(
            f"a repair of {ids} would drop all {len(report.table.frame):,} training rows; repair less, or collect "
            "training rows without this"
        )
    if any(found.id == "sorted_by_label" for found in findings):
        rows = rows.sample(frac=1, random_state=seed)
        log.append({"id": "(all)", "finding": "sorted_by_label", "action": "changed", "to": f"shuffled, seed {seed}"})
    entries = pd.DataFrame(log, columns=["id", "finding", "action", "from", "to"], dtype=object).fillna("")
    shown = Masking(report.table, report.findings).columns(entries)
    alike = (shown["action"] == "changed") & (shown["from"] == shown["to"])  # two spellings of one that is masked
    shown.loc[alike, "to"] += " in its usual spelling"
    return Repaired(rows.reset_index(drop=True), shown)


def repairable(found: Finding, table: Table) -> bool:
    """Return whether `repair` can correct the finding `found` in `table`: it rewrites no conversations."""
    if found.id in REWRITES:
        # Private data are searched in all splits, and only training rows are repaired.
        return not table.conversations and bool(table.frame["id"].isin(found.rows).any())
    return found.id in (*DROPS, *COPIES_IN_TRAINING, GROUPS_IN_TRAINING, "label_slip", "sorted_by_label")


def rewriting(report: AuditResult, finding_id: str) -> Callable[[str], str]:
    """Return the function that removes the defect `finding_id` from a text, for the rows of `report`."""
    if finding_id == "boilerplate":
        return text_noise.shared_parts(report.table).removed_from
    return REWRITES[finding_id]


def _rewrite(
    rows: pd.DataFrame, found: Finding, rewrite: Callable[[str], str], columns: tuple[str, ...], log: list
) -> None:
    wanted = rows["id"].isin(found.rows)
    for column in columns:
        new = {row: rewrite(text) for row, text in rows.loc[wanted, column].dropna().items()}
        _change(rows, found, column, new, log)


def _respell(rows: pd.DataFrame, found: Finding, log: list) -> None:
    # Not from the evidence, where a label that is a secret is masked.
    usual = basics.usual_spellings(rows.loc[~sources.blank(rows["label"]), "label"])
    labels = rows.loc[rows["id"].isin(found.rows), "label"]
    _change(rows, found, "label", {row: usual[label] for row, label in labels.items() if label in usual}, log)
    # Labels of two types, such as 1 and "1", became one when the audit turned all labels into strings.
    for row, (label, kind) in rows.attrs.pop("mixed_labels", {}).items():
        log.append(_changed(row, found, f"{label} ({kind})", label))


def _change(rows: pd.DataFrame, found: Finding, column: str, new: dict[Any, Any], log: list) -> None:
    """Put the new values (by row index) into a column, and log those that differ."""
    after = pd.Series(new, dtype=object)
    before = rows.loc[after.index, column]
    after = after[after != before]
    for row, value in after.items():
        log.append(_changed(rows["id"][row], found, before[row], value))
    rows.loc[after.index, column] = after


def _changed(row: str, found: Finding, before: Any, after: Any) -> dict[str, Any]:
    return {"id": row, "finding": found.id, "action": "changed", "from": before, "to": after}


def _with_labels(table: Table, labels: pd.Series) -> Table:
    """Return `table` with other labels of its training rows, and all that was computed of the texts alone."""
    respelt = replace(table, frame=table.frame.assign(label=labels), _cache={})
    known = {name: value for name, value in vars(table).items() if name not in ("texts", "label_names", "codes")}
    vars(respelt).update({name: value for name, value in known.items() if name not in vars(respelt)})
    return respelt


def _to_drop(table: Table, rows: pd.DataFrame, found: Finding, respelt: Table | None) -> set[str]:
    """Return the ids of the `rows` to drop for `found`.

    Args:
        table: the rows that were audited.
        rows: those that are left, rewritten.
        found: the finding to repair.
        respelt: `table` with its labels in their usual spelling, if these are repaired too.
    """
    if found.id in COPIES_IN_TRAINING:
        copies = table.copies_in_training(found.rows, near=found.id == "near_leakage")
        if not copies:
            raise BadInput(
                f"{found.id} is not between training and another split; drop its copies in the validation rows"
            )
        return copies
    if found.id == GROUPS_IN_TRAINING:
        if not (of_groups := groups.in_training(table, found.rows)):
            raise BadInput(f"{found.id} is not between training and another split; drop the groups in validation")
        return of_groups
    if found.id == "tiny_class":  # after `_respell` the class may be larger; rows without a text do not count
        counts = rows["label"].map(rows["label"][~sources.blank(rows["text"])].value_counts())
        return set(found.rows) & set(rows["id"][counts < basics.SMALLEST_CLASS])
    if found.id == "likely_label_errors" and respelt is not None:  # the model may have doubted the spelling alone
        return set(found.rows) & _listed(found.id, model_checks.check(respelt).findings)
    if found.id == "duplicate_prompts":  # the first row of a prompt may be gone
        if sources.blank(rows["prompt"]).all():
            return set()
        left = replace(table, frame=rows, _cache={})
        return set(found.rows) & _listed(found.id, repeated_prompts.check(left))
    if found.id in OF_COPIES:
        return _copies_to_drop(table, set(rows["id"]), found)
    return set(found.rows) if found.id in DROPS else set()


def _listed(finding_id: str, findings: Sequence[Finding]) -> set[str]:
    """Return the ids of the rows that the `findings` list as `finding_id`."""
    return {row for found in findings if found.id == finding_id for row in found.rows}


def _copies_to_drop(table: Table, there: set[str], found: Finding) -> set[str]:
    """Return those rows of `found` of which a copy, or the text that they are a part of, is left among `there`."""
    numbers = table.copies
    if found.id == "exact_duplicates":
        numbers = pd.factorize(table.texts["text"])[0]
    elif found.id == "normalised_duplicates":
        numbers = table.groups
    elif found.id == "near_duplicates":
        numbers = table.near_clusters
    number_of = dict(zip(table.texts["id"], numbers, strict=True))
    left = [row for row in table.texts["id"] if row in there]  # in order; ids of other splits are not among them
    if found.id == "contained_texts":
        whole_of = dict(zip(found.evidence["id"], found.evidence["part_of"], strict=True))
        kept = {number_of[row] for row in left}

        def stays(part: str | None) -> bool:
            whole = whole_of.get(part)  # a whole that is gone may have been a part itself
            return whole is not None and (number_of[whole] in kept or stays(whole))

        return {row for row in found.rows if stays(row)}
    listed = set(found.rows)
    others = {number_of[row] for row in left if row not in listed}
    drop = set()
    for row in left:
        if row in listed:
            if number_of[row] in others:
                drop.add(row)
            others.add(number_of[row])  # the first copy that is left stays
    return drop


def _drop(rows: pd.DataFrame, found: Finding, ids: set[str], log: list) -> pd.DataFrame:
    gone = rows["id"].isin(ids)
    log += [{"id": row, "finding": found.id, "action": "dropped"} for row in rows.loc[gone, "id"]]
    return rows[~gone]
