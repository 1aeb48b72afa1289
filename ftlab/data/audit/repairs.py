"""Repairs: drop or rewrite the rows of chosen findings, with a log of each change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab.data import sources
from ftlab.data.audit import basics, text_noise
from ftlab.data.words import shared_lines, without_lines
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from ftlab.data.audit.findings import AuditResult, Finding
    from ftlab.data.audit.table import Table

REWRITES: dict[str, Callable[[str], str]] = {
    "mojibake": text_noise.fix_encoding,
    "entities": text_noise.decode_entities,
    "markup": text_noise.strip_markup,
    "control_characters": text_noise.strip_invisible,
    "email_addresses": text_noise.mask("email_addresses"),
    "phone_numbers": text_noise.mask("phone_numbers"),
    "card_numbers": text_noise.mask("card_numbers"),
    "boilerplate": str,  # its lines depend on the rows: see `rewriting`
}
DROPS = (  # drop the rows that the finding lists; for duplicates, these are all but the first
    "missing_text", "missing_label", "missing_prompt", "tiny_class", "exact_duplicates", "normalised_duplicates",
    "near_duplicates",
    "conflicting_labels", "conflicting_near_labels", "likely_label_errors", "empty_completion", "copied_completion",
    "duplicate_prompts", "refusal", "cut_off_answer", "broken_conversation", "completion_cut", "all_masked", "eos_lost",
    "unknown_tokens", "refused",
)  # fmt: skip
COPIES_IN_TRAINING = ("leakage", "near_leakage")  # drop the copies in the training rows
# Shared lines go before the tags at their ends. Tags go before entities: "&lt;b&gt;" stands for the text "<b>", not for
# a tag.
ORDER = ("mojibake", "boilerplate", "markup", "entities", "control_characters", "card_numbers")


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
    for found in findings:
        rows = _drop(rows, found, _to_drop(report, rows, found), log)
    if any(found.id == "sorted_by_label" for found in findings):
        rows = rows.sample(frac=1, random_state=seed)
        log.append({"id": "(all)", "finding": "sorted_by_label", "action": "changed", "to": f"shuffled, seed {seed}"})
    entries = pd.DataFrame(log, columns=["id", "finding", "action", "from", "to"])
    return Repaired(rows.reset_index(drop=True), entries.fillna(""))


def repairable(found: Finding, table: Table) -> bool:
    """Return whether `repair` can correct the finding `found` in `table`: it rewrites no conversations."""
    rewrites = () if table.conversations else (*REWRITES,)
    return found.id in (*rewrites, *DROPS, *COPIES_IN_TRAINING, "label_slip", "sorted_by_label")


def rewriting(report: AuditResult, finding_id: str) -> Callable[[str], str]:
    """Return the function that removes the defect `finding_id` from a text, for the rows of `report`."""
    if finding_id == "boilerplate":
        return partial(without_lines, lines=shared_lines(report.table.answers))
    return REWRITES[finding_id]


def _rewrite(
    rows: pd.DataFrame, found: Finding, rewrite: Callable[[str], str], columns: tuple[str, ...], log: list
) -> None:
    wanted = rows["id"].isin(found.rows)
    for column in columns:
        new = {row: rewrite(text) for row, text in rows.loc[wanted, column].dropna().items()}
        _change(rows, found, column, new, log)


def _respell(rows: pd.DataFrame, found: Finding, log: list) -> None:
    usual = rows["id"].map(found.evidence.set_index("id")["usual"]).dropna()
    _change(rows, found, "label", dict(usual), log)
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


def _to_drop(report: AuditResult, rows: pd.DataFrame, found: Finding) -> set[str]:
    if found.id in COPIES_IN_TRAINING:
        copies = report.table.copies_in_training(found.rows, near=found.id == "near_leakage")
        if not copies:
            raise BadInput(
                f"{found.id} is not between training and another split; drop its copies in the validation rows"
            )
        return copies
    if found.id == "tiny_class":  # after `_respell` the class may be larger
        counts = rows["label"].map(rows["label"].value_counts())
        return set(found.rows) & set(rows["id"][counts < basics.SMALLEST_CLASS])
    return set(found.rows) if found.id in DROPS else set()


def _drop(rows: pd.DataFrame, found: Finding, ids: set[str], log: list) -> pd.DataFrame:
    gone = rows["id"].isin(ids)
    log += [{"id": row, "finding": found.id, "action": "dropped"} for row in rows.loc[gone, "id"]]
    return rows[~gone]
