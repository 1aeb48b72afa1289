"""What is wrong with these rows? Findings, each with its rows, why it matters, what it costs and how to repair it.

Good data beats a good model, and looking costs seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pandas as pd

from ftlab.data import sources
from ftlab.data.audit import basics, lengths, model_checks, placeholders, repeats, text_noise, tokens
from ftlab.data.audit.basics import first_rows
from ftlab.data.audit.findings import SEVERITIES, Finding
from ftlab.data.audit.instructions import audit_instructions
from ftlab.data.audit.report import AuditReport
from ftlab.data.audit.table import Table, prepare
from ftlab.errors import BadInput
from ftlab.progress import bar

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
    """Look for what spoils a fine-tuning run in a table of columns id, text and label, in the order of its file.

    With `validation` and `test` rows, it also looks for texts that stand in two splits. With the tokenizer that will be
    used, lengths are counted in its tokens (those that it puts around a text included; special tokens in a text are
    text), `max_length` says what truncation will cut, and `hidden_size` (the model's width) what that length costs.

    Raises BadInput when a table lacks a column, has fewer than two rows or an id twice, when a text is no string, when
    no row has a text or none has a label, when the labels are all different, or when a split has labels that the
    training rows lack. In the report ids and labels are strings; where ids of two splits are equal, those of the later
    one begin with the split's name.
    """
    frames = {"training": frame, "validation": validation, "test": test}
    name, frame, others = prepare(frames, ("text", "label"))
    _require_usable(name, frame, others)
    lengths.require(max_length)
    size = len(frame) + sum(map(len, others.values()))
    with (
        bar("auditing", total=size * (3 if tokenizer else 2), unit="rows") as progress,
        ThreadPoolExecutor(1) as beside,
    ):
        table = Table(frame, others, progress)
        if not table.labelled.any():
            raise BadInput(f"{name}: no row has both a text and a label; expected some of each class")
        # The tokenizer is not Python and needs no lock, so it counts beside the rest.
        counting = beside.submit(lengths.measure, table, tokenizer, progress.update)
        findings = [*basics.check(table), *text_noise.check(table), *placeholders.check(table), *repeats.check(table)]
        opinion = model_checks.check(table)
        measured = counting.result()
        findings += [*opinion.findings, *lengths.check(measured, max_length), *tokens.special(table, tokenizer)]
    if tokenizer is not None:
        around = tokenizer.num_special_tokens_to_add()
        findings += tokens.unknown(measured.assign(tokens=measured["tokens"] - around))
    skipped = [opinion.skipped] if opinion.skipped else []
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
        shortcuts=opinion.shortcuts,
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
            f"{name}: there are {labels.nunique():,} different labels in {len(labels):,} rows, so they name rows "
            "and not classes; is it the right column?"
        )
    for split, part in others.items():
        strange = part[~sources.blank(part["label"]) & ~part["label"].isin(labels)]
        if len(strange):
            first = strange.iloc[0]
            known = ", ".join(map(str, sorted(labels.unique(), key=str)[:10]))
            raise BadInput(
                f"the {split} row {first['id']} has the label {first['label']!r}, which no training row has; they have "
                f"{known}"
            )
