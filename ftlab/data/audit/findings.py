"""What a finding is, what the audit can find, and what an audit found."""

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
    """One thing that the audit found: how many rows, which, why it matters for fine-tuning, and what to do.

    `evidence` says more about each row where there is more to say: its copy, the label that a model expected, the
    words that gave it away. It has a column id and a line for each row, or is empty.
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
    """What the audit can find: severity, why and todo of each finding id, from findings.toml."""
    return tomllib.loads((Path(__file__).parent / "findings.toml").read_text(encoding="utf-8"))


def finding(
    finding_id: str, what: str, rows: Iterable[str] = (), *, count: int | None = None, evidence: Any = None
) -> Finding:
    """A finding of the catalogue on the rows of its evidence, or on `rows`, or on a `count` of rows that are not named.

    `what` may use {count}, as in "3 rows".
    """
    ids = tuple(rows if evidence is None else evidence["id"])
    number = len(ids) if count is None else count
    kind = catalogue()[finding_id]
    severity: Severity = next(severity for severity in SEVERITIES if severity == kind["severity"])
    table = pd.DataFrame() if evidence is None else evidence.reset_index(drop=True)
    said = what.replace("{count}", "1 row" if number == 1 else f"{number:,} rows")
    return Finding(finding_id, severity, number, said, kind["why"], kind["todo"], ids, table)


def share(count: int, of: int) -> str:
    """A share in percent; a small one is never shown as none."""
    return f"{count / of:.1%}" if count >= 0.0005 * of else "under 0.1%"


@dataclass(frozen=True, repr=False)
class AuditResult:
    """What an audit found, and the figures that any data set has.

    `findings` come with the worst first. `classes` has a line for each label, `lengths` one for each training row (id,
    label, characters, and tokens where a tokenizer was given), `budgets` one for each max_length that could be chosen,
    and `shortcuts` one for each simple way to predict the label, with its accuracy on rows that it was not fitted to.
    `skipped` says which checks were not made, and why, and `notes` how something was counted. `table` holds the rows
    themselves, to show, price and repair them.
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
        """The findings that are as bad as `severity` ("error", "warning" or "info") or worse."""
        if severity not in SEVERITIES:
            raise BadInput(f"there is no severity {severity!r}; expected one of {', '.join(SEVERITIES)}")
        reach = SEVERITIES[: [*SEVERITIES].index(severity) + 1]
        return [found for found in self.findings if found.severity in reach]
