"""Repairs: rows dropped or rewritten for the findings that were named, and a log of each change."""

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

REWRITES: dict[str, Callable[[str], str]] = {
    "mojibake": text_noise.fix_encoding,
    "entities": text_noise.decode_entities,
    "markup": text_noise.strip_markup,
    "control_characters": text_noise.strip_unseen,
    "email_addresses": text_noise.mask("email_addresses"),
    "phone_numbers": text_noise.mask("phone_numbers"),
    "card_numbers": text_noise.mask("card_numbers"),
    "boilerplate": str,  # its lines are known when the rows are: see `rewriting`
}
DROPS = (  # the rows that the finding lists, which for duplicates are all but the first
    "missing_text", "missing_label", "missing_prompt", "tiny_class", "exact_duplicates", "normalised_duplicates",
    "near_duplicates",
    "conflicting_labels", "conflicting_near_labels", "likely_label_errors", "empty_completion", "copied_completion",
    "duplicate_prompts", "completion_cut", "all_masked", "eos_lost", "unknown_tokens", "refused",
)  # fmt: skip
COPIES_IN_TRAINING = ("leakage", "near_leakage")
# Lines go before the tags that end them, and tags before entities, which may spell a tag that is meant to be read.
ORDER = ("mojibake", "boilerplate", "markup", "entities", "control_characters", "card_numbers")


@dataclass(frozen=True)
class Repaired:
    """The rows after repair, in their order, and the log: id, finding, action ("dropped" or "changed"), from and to."""

    rows: pd.DataFrame
    log: pd.DataFrame

    def __repr__(self) -> str:
        counts = Counter(zip(self.log["finding"], self.log["action"], strict=True))
        lines = [f"{finding}: {count:,} {action}" for (finding, action), count in counts.items()]
        return "\n".join([f"{len(self.rows):,} rows after repair", *lines])


def repair(report: AuditResult, finding_ids: Sequence[str], *, seed: int = 0) -> Repaired:
    """Repair the training rows of a report for the named findings. The frame that was audited stays as it was.

    Texts are rewritten first and rows dropped after, so that a row to drop is never lost sight of. What a repair makes
    equal, or new, another audit of the result will find. Raises BadInput for a finding that rows cannot be repaired of.
    """
    found = [report[finding_id] for finding_id in dict.fromkeys(finding_ids)]
    for each in found:
        if not repairable(each):
            raise BadInput(f"{each.id} cannot be repaired row by row; what to do instead: {each.todo}")
    rows = report.table.frame.copy()
    rows.attrs = dict(rows.attrs)
    log: list[dict[str, object]] = []
    for each in sorted(found, key=lambda each: ORDER.index(each.id) if each.id in ORDER else len(ORDER)):
        if each.id in REWRITES:
            # A line that prompts share is the instruction itself.
            of_prompt = () if each.id == "boilerplate" else report.table.prompt_columns
            columns = (*of_prompt, report.table.columns[-1])
            _rewrite(rows, each, rewriting(report, each.id), columns, log)
        elif each.id == "label_slip":
            _respell(rows, each, log)
    if report.table.templated:  # a prompt is made of its parts
        touched = rows["id"].isin([entry["id"] for entry in log])
        parts = [rows.loc[touched, column].fillna("") for column in report.table.prompt_columns]
        rows.loc[touched, "prompt"] = sources.joined(parts, rows.index[touched])
    for each in found:
        rows = _drop(rows, each, _to_drop(report, rows, each), log)
    if any(each.id == "sorted_by_label" for each in found):
        rows = rows.sample(frac=1, random_state=seed)
        log.append({"id": "(all)", "finding": "sorted_by_label", "action": "changed", "to": f"shuffled, seed {seed}"})
    entries = pd.DataFrame(log, columns=["id", "finding", "action", "from", "to"])
    return Repaired(rows.reset_index(drop=True), entries.fillna(""))


def repairable(found: Finding) -> bool:
    """Whether `repair` can do something about this finding."""
    return found.id in (*REWRITES, *DROPS, *COPIES_IN_TRAINING, "label_slip", "sorted_by_label")


def rewriting(report: AuditResult, finding_id: str) -> Callable[[str], str]:
    """The function that repairs a text of this defect."""
    if finding_id == "boilerplate":
        return partial(without_lines, lines=shared_lines(report.table.answers))
    return REWRITES[finding_id]


def _rewrite(
    rows: pd.DataFrame, each: Finding, repair: Callable[[str], str], columns: tuple[str, ...], log: list
) -> None:
    wanted = rows["id"].isin(each.rows)
    for column in columns:
        _change(rows, each, column, {row: repair(text) for row, text in rows.loc[wanted, column].dropna().items()}, log)


def _respell(rows: pd.DataFrame, each: Finding, log: list) -> None:
    usual = rows["id"].map(each.evidence.set_index("id")["usual"]).dropna()
    _change(rows, each, "label", dict(usual), log)
    # Labels of two types that read the same became one when the audit read them all as text.
    for row, (label, kind) in rows.attrs.pop("mixed_labels", {}).items():
        entry = {"id": row, "finding": each.id, "action": "changed"}
        log.append({**entry, "from": f"{label} ({kind})", "to": label})


def _change(rows: pd.DataFrame, each: Finding, column: str, new: dict[Any, Any], log: list) -> None:
    """Put the new values, by index of the row, into a column, and log those that differ."""
    after = pd.Series(new, dtype=object)
    before = rows.loc[after.index, column]
    after = after[after != before]
    for row, value in after.items():
        entry = {"id": rows["id"][row], "finding": each.id, "action": "changed"}
        log.append({**entry, "from": before[row], "to": value})
    rows.loc[after.index, column] = after


def _to_drop(report: AuditResult, rows: pd.DataFrame, each: Finding) -> set[str]:
    if each.id in COPIES_IN_TRAINING:
        copies = report.table.copies_in_training(each.rows, near=each.id == "near_leakage")
        if not copies:
            raise BadInput(f"{each.id} is not between training and another split; repair the earlier split instead")
        return copies
    if each.id == "tiny_class":  # a class that was respelt may no longer be tiny
        counts = rows["label"].map(rows["label"].value_counts())
        return set(each.rows) & set(rows["id"][counts < basics.SMALLEST_CLASS])
    return set(each.rows) if each.id in DROPS else set()


def _drop(rows: pd.DataFrame, each: Finding, ids: set[str], log: list) -> pd.DataFrame:
    gone = rows["id"].isin(ids)
    log += [{"id": row, "finding": each.id, "action": "dropped"} for row in rows.loc[gone, "id"]]
    return rows[~gone]
