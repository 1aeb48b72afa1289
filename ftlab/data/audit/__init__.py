"""Audit of a data set before fine-tuning: duplicates, label errors, leakage, markup, personal data and text lengths.

Each finding lists its rows, why it matters and what to do. A report can also price a defect and repair it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pandas as pd

from ftlab.data import sources
from ftlab.data.audit import (
    basics,
    groups,
    lengths,
    model_checks,
    personal_data,
    placeholders,
    repeats,
    text_noise,
    tokens,
)
from ftlab.data.audit.basics import first_rows
from ftlab.data.audit.findings import SEVERITIES, Finding
from ftlab.data.audit.instructions import audit_instructions
from ftlab.data.audit.report import AuditReport
from ftlab.data.audit.table import Table, prepare
from ftlab.errors import BadInput
from ftlab.progress import bar
from ftlab.wording import visible

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["AuditReport", "Finding", "audit", "audit_instructions", "first_rows"]


def audit(
    frame: pd.DataFrame,
    *,
    validation: pd.DataFrame | None = None,
    test: pd.DataFrame | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    hidden_size: int = lengths.HIDDEN_SIZE,
) -> AuditReport:
    """Audit rows for text classification, and report the defects that would harm a fine-tuning run.

    Args:
        frame: the training rows, with columns id, text and label, in the order of their file. A column group, if all
            tables have it, says which rows belong together (an author, a patient); None is a group of its own.
        validation: rows of the validation split, with the same columns. They are checked for leakage.
        test: rows of the test split, likewise.
        tokenizer: the one to train with. Lengths are counted in its tokens, including those that it adds around a
            text. A special token in a text counts as text.
        max_length: in tokens; the report says what truncation to it cuts.
        hidden_size: of the model; the relative training time of each max_length depends on it.

    Returns:
        The report. Its ids and labels are strings. If an id is in two splits, the ids of the later split begin with
        the name of that split.

    Raises:
        BadInput: a table lacks a column, has fewer than two rows, or has an id twice; a text is not a string; no row
            has a text, or none has a label; most labels are different; a split has a label that no training row has;
            or `max_length` is below 1.
    """
    frames = {"training": frame, "validation": validation, "test": test}
    name, frame, others = prepare(frames, ("text", "label"))
    _require_usable(name, frame, others)
    groups.require(name, frame, others)
    lengths.require(max_length)
    size = len(frame) + sum(map(len, others.values()))
    with (
        bar("auditing", total=size * (3 if tokenizer else 2), unit="rows") as progress,
        ThreadPoolExecutor(1) as beside,
    ):
        table = Table(frame, others, progress)
        if not table.labelled.any():
            raise BadInput(f"{name}: no row has both a text and a label; expected some of each class")
        # A fast tokenizer releases Python's global lock, so it can count while the other checks run.
        counting = beside.submit(lengths.measure, table, tokenizer, progress.update)
        findings = [*basics.check(table), *text_noise.check(table), *personal_data.check(table)]
        findings += [*placeholders.check(table), *repeats.check(table)]
        judged = model_checks.check(table)
        findings += groups.check(table)
        measured = counting.result()
        findings += [*judged.findings, *lengths.check(measured, max_length), *tokens.special(table, tokenizer)]
    if tokenizer is not None:
        around = tokenizer.num_special_tokens_to_add()
        findings += tokens.unknown(measured.assign(tokens=measured["tokens"] - around))
    skipped = [judged.skipped] if judged.skipped else []
    if tokenizer is None:
        skipped.append("lengths in tokens: name the tokenizer that you will train with")
    if not others:
        skipped.append("leakage between splits: give the validation or the test rows too")
    findings.sort(key=lambda found: SEVERITIES.index(found.severity))
    return AuditReport(
        findings=tuple(findings),
        classes=lengths.by_class(measured, max_length),
        lengths=measured,
        budgets=lengths.budgets(
            measured.get("tokens", pd.Series(dtype=int)),
            max_length,
            hidden_size,
            tokenizer and tokenizer.model_max_length,
        ),
        shortcuts=judged.shortcuts,
        skipped=tuple(skipped),
        table=table,
        max_length=max_length if tokenizer else None,
        tokenizer=tokenizer,
    )


def _require_usable(name: str, frame: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> None:
    for column in ("text", "label"):
        if sources.blank(frame[column]).all():
            raise BadInput(f"{name}: none of the {len(frame):,} rows has a {column}; is it the right column?")
    labels = frame.loc[~sources.blank(frame["label"]), "label"]
    if labels.nunique() > max(10, len(labels) / 2):
        raise BadInput(
            f"{name}: there are {labels.nunique():,} different labels in {len(labels):,} rows, too many for "
            "classes; is it the right column?"
        )
    for split, part in others.items():
        unknown = part[~sources.blank(part["label"]) & ~part["label"].isin(labels)]
        if len(unknown):
            first = unknown.iloc[0]
            known = personal_data.without_private(", ".join(map(visible, sorted(labels.unique(), key=str)[:10])))
            label = personal_data.without_private(repr(first["label"]))
            raise BadInput(
                f"the {split} row {first['id']} has the label {label}, which no training row has; they have {known}"
            )
