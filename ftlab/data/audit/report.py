"""The report of an audit: it shows the findings, prices them and repairs the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftlab.data.audit import pricing, rendering, repairs
from ftlab.data.audit.findings import AuditResult
from ftlab.data.audit.masking import Masking
from ftlab.data.audit.pricing import Price
from ftlab.data.audit.repairs import Repaired


@dataclass(frozen=True, repr=False)
class AuditReport(AuditResult):
    """The result of an audit (see AuditResult) that shows itself in a notebook, prices findings and repairs rows."""

    def __post_init__(self) -> None:
        """Mask secrets and personal data in all that the report shows."""
        masking = Masking(self.table, self.findings)
        shown = {
            "findings": tuple(map(masking.finding, self.findings)),
            "classes": self.classes.set_axis(masking.names(self.classes.index)),
            "lengths": masking.columns(self.lengths),
            "shortcuts": masking.columns(self.shortcuts),
            "skipped": tuple(map(masking.text, self.skipped)),
            "notes": tuple(map(masking.text, self.notes)),
        }
        for name, value in shown.items():
            object.__setattr__(self, name, value)  # the class is frozen

    @property
    def priceable(self) -> tuple[str, ...]:
        """The ids of the findings that `price` can measure."""
        return pricing.priceable(self)

    @property
    def repairable(self) -> tuple[str, ...]:
        """The ids of the findings that `repair` can correct."""
        return tuple(found.id for found in self.findings if repairs.repairable(found, self.table))

    def price(self, finding_id: str, *, seed: int = 0) -> Price:
        """Return what the defect `finding_id` costs: a simple model's score with and without it, and their difference.

        `seed` draws the folds, the bootstrap and, from a large set, the rows.
        """
        return pricing.price(self, finding_id, seed=seed)

    def repair(self, finding_ids: str | Sequence[str], *, seed: int = 0) -> Repaired:
        """Return the training rows without the defects `finding_ids` (one id or several), and a log of each change.

        `seed` shuffles rows that were sorted by label.
        """
        return repairs.repair(self, [finding_ids] if isinstance(finding_ids, str) else list(finding_ids), seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as values for JSON, with the ids of all rows."""
        return rendering.as_dict(self)

    def html(self, title: str = "Audit") -> str:
        """Return the report as a self-contained web page with this `title`."""
        return rendering.page(self, title)

    def __str__(self) -> str:
        return rendering.text(self)

    # A notebook stores the repr as well as the HTML; the dataclass's repr would be megabytes of lengths.
    __repr__ = __str__

    def _repr_html_(self) -> str:
        return rendering.fragment(self)
