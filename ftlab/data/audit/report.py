"""Findings, and the report that holds them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftlab.data.audit.mending import Mended
    from ftlab.data.audit.pricing import Price
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
class AuditReport:
    """What an audit found, and the figures that any data set has.

    `findings` come with the worst first. `classes` has a line for each label, `lengths` one for each training row (id,
    label, characters, and tokens where a tokenizer was given), `budgets` one for each max_length that could be chosen,
    and `shortcuts` one for each simple way to predict the label, with its accuracy on rows that it was not fitted to.
    `skipped` says which checks were not made, and why, and `notes` how something was counted. `table` holds the rows
    themselves, to show, price and mend them.
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

    @property
    def priceable(self) -> tuple[str, ...]:
        """The ids of the findings that `price` has an answer for."""
        from ftlab.data.audit.pricing import priceable

        return priceable(self)

    @property
    def mendable(self) -> tuple[str, ...]:
        """The ids of the findings that `mend` can repair."""
        from ftlab.data.audit.mending import mendable

        return tuple(found.id for found in self.findings if mendable(found))

    def price(self, finding_id: str, *, seed: int = 0) -> Price:
        """What a defect costs: the score of a cheap model with it and without it, and the interval of the change."""
        from ftlab.data.audit.pricing import price

        return price(self, finding_id, seed=seed)

    def mend(self, finding_ids: str | Sequence[str], *, seed: int = 0) -> Mended:
        """The training rows with these findings repaired, and a log of what was dropped or changed."""
        from ftlab.data.audit.mending import mend

        return mend(self, [finding_ids] if isinstance(finding_ids, str) else list(finding_ids), seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it, with the ids of all rows."""
        from ftlab.data.audit import faces

        return faces.as_dict(self)

    def html(self, title: str = "Audit") -> str:
        """The report as a web page that needs nothing else."""
        from ftlab.data.audit import faces

        return faces.page(self, title)

    def __str__(self) -> str:
        from ftlab.data.audit import faces

        return faces.text(self)

    __repr__ = __str__  # a notebook stores it beside the HTML, and the lengths of all rows would be megabytes

    def _repr_html_(self) -> str:
        from ftlab.data.audit import faces

        return faces.fragment(self)
