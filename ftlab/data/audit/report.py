"""The report of an audit: what was found, and what can be done with it: show it, price it, repair the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftlab.data.audit import pricing, rendering, repairs
from ftlab.data.audit.findings import AuditResult
from ftlab.data.audit.pricing import Price
from ftlab.data.audit.repairs import Repaired


class AuditReport(AuditResult):
    """An audit's result that shows itself in a notebook, prices its findings and repairs the rows (see AuditResult)."""

    @property
    def priceable(self) -> tuple[str, ...]:
        """The ids of the findings that `price` has an answer for."""
        return pricing.priceable(self)

    @property
    def repairable(self) -> tuple[str, ...]:
        """The ids of the findings that `repair` can deal with."""
        return tuple(found.id for found in self.findings if repairs.repairable(found))

    def price(self, finding_id: str, *, seed: int = 0) -> Price:
        """What a defect costs: the score of a cheap model with it and without it, and the interval of the change."""
        return pricing.price(self, finding_id, seed=seed)

    def repair(self, finding_ids: str | Sequence[str], *, seed: int = 0) -> Repaired:
        """The training rows with these findings repaired, and a log of what was dropped or changed."""
        return repairs.repair(self, [finding_ids] if isinstance(finding_ids, str) else list(finding_ids), seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it, with the ids of all rows."""

        return rendering.as_dict(self)

    def html(self, title: str = "Audit") -> str:
        """The report as a web page that needs nothing else."""

        return rendering.page(self, title)

    def __str__(self) -> str:

        return rendering.text(self)

    __repr__ = __str__  # a notebook stores it beside the HTML, and the lengths of all rows would be megabytes

    def _repr_html_(self) -> str:

        return rendering.fragment(self)
