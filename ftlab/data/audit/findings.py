"""Findings: what the audit can find (findings.toml), one finding, and the result of an audit."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftlab.data.audit.table import Table

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")  # the worst first


@dataclass(frozen=True)
class Finding:
    """One defect that the audit found.

    Attributes:
        id: its id in findings.toml.
        severity: "error", "warning" or "info".
        count: how many rows have the defect.
        what: what was found, in words.
        why: why it matters for fine-tuning.
        todo: what to do about it.
        rows: the ids of the rows; empty if the finding concerns the whole table.
        evidence: the reason for each row (its copy, the label that a model expected, the matched text), with a column
            id and one line for each row; or empty.
    """

    id: str
    severity: Severity
    count: int
    what: str
    why: str
    todo: str
    rows: tuple[str, ...] = ()
    evidence: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False, repr=False)


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Return severity, why and todo of each finding id, as findings.toml has them."""
    return tomllib.loads((Path(__file__).parent / "findings.toml").read_text(encoding="utf-8"))


def finding(
    finding_id: str, what: str, rows: Iterable[str] = (), *, count: int | None = None, evidence: Any = None
) -> Finding:
    """Make a finding, with its severity, why and todo from the catalogue.

    Args:
        finding_id: its id in findings.toml.
        what: what was found; "{count}" in it becomes "1 row" or, for example, "1,200 rows".
        rows: the ids of the rows, if there is no evidence.
        count: how many rows have the defect, if their ids are not given.
        evidence: a table with a column id and one line for each row; it replaces `rows`.

    Returns:
        The finding.
    """
    ids = tuple(rows if evidence is None else evidence["id"])
    number = len(ids) if count is None else count
    kind = catalogue()[finding_id]
    severity: Severity = next(severity for severity in SEVERITIES if severity == kind["severity"])
    table = pd.DataFrame() if evidence is None else evidence.reset_index(drop=True)
    said = what.replace("{count}", "1 row" if number == 1 else f"{number:,} rows")
    return Finding(finding_id, severity, number, said, kind["why"], kind["todo"], ids, table)


def share(count: int, of: int) -> str:
    """Return `count` over `of` in percent; a share too small for one decimal is "under 0.1%".

    >>> share(1, 8), share(1, 5000)
    ('12.5%', 'under 0.1%')
    """
    return f"{count / of:.1%}" if count >= 0.0005 * of else "under 0.1%"


@dataclass(frozen=True, repr=False)
class AuditResult:
    """What an audit found, with statistics of the rows.

    Attributes:
        findings: the worst first.
        classes: one line for each label (for instruction data, one for each part of a row).
        lengths: one line for each training row: id, label, characters, and tokens if a tokenizer was given.
        budgets: one line for each max_length to choose from.
        shortcuts: one line for each simple way to predict the label, with its accuracy on held-out rows.
        skipped: the checks that were not made, each with the reason.
        table: the rows themselves, to show, price and repair them.
        max_length: the max_length that was checked, if any.
        tokenizer: the tokenizer that counted the tokens, if any.
        notes: how something was counted.
    """

    findings: tuple[Finding, ...]
    classes: pd.DataFrame
    lengths: pd.DataFrame
    budgets: pd.DataFrame
    shortcuts: pd.DataFrame
    skipped: tuple[str, ...]
    table: Table
    max_length: int | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """The number of training rows."""
        return len(self.table.frame)

    def __getitem__(self, finding_id: str) -> Finding:
        for found in self.findings:
            if found.id == finding_id:
                return found
        there = ", ".join(found.id for found in self.findings) or "nothing"
        raise BadInput(f"the audit found no {finding_id!r}; it found {there}")

    def __contains__(self, finding_id: str) -> bool:
        return any(found.id == finding_id for found in self.findings)

    def at_least(self, severity: str) -> list[Finding]:
        """Return the findings of this `severity` ("error", "warning" or "info") or a worse one.

        Raises:
            BadInput: there is no such severity.
        """
        if severity not in SEVERITIES:
            raise BadInput(f"there is no severity {severity!r}; expected one of {', '.join(SEVERITIES)}")
        reach = SEVERITIES[: [*SEVERITIES].index(severity) + 1]
        return [found for found in self.findings if found.severity in reach]
