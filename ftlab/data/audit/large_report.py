"""The report on a file larger than memory: it shows itself like any other, and cannot price or repair its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from ftlab.data.audit.report import AuditReport
from ftlab.data.audit.table import Table
from ftlab.errors import BadInput


@dataclass
class LargeTable(Table):
    """The few rows of a large file that a report shows, and the labels of all.

    `all_codes` has for each row with a text the position of its label in `all_labels`, and `all_rows` counts the rows.
    """

    all_codes: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    all_labels: list[str] = field(default_factory=list)
    all_rows: int = 0

    @property
    def codes(self) -> np.ndarray:
        """The label of each row as its position in `label_names`; -1 if it has none."""
        return self.all_codes

    @property
    def labelled(self) -> np.ndarray:
        """Which rows have a label."""
        return self.all_codes >= 0

    @property
    def label_names(self) -> list[str]:
        """The labels, sorted."""
        return self.all_labels


class LargeReport(AuditReport):
    """The result of `audit_file`."""

    @property
    def rows(self) -> int:
        """The number of training rows."""
        return self.table.all_rows if isinstance(self.table, LargeTable) else len(self.table.frame)

    @property
    def priceable(self) -> tuple[str, ...]:
        """None: a price needs all rows in memory."""
        return ()

    @property
    def repairable(self) -> tuple[str, ...]:
        """None: a repair needs all rows in memory."""
        return ()

    def price(self, finding_id: str, *, seed: int = 0) -> NoReturn:
        """Raise BadInput: a price of `finding_id`, whatever the `seed`, needs all rows in memory."""
        raise BadInput(f"{finding_id} has no price here: {self._part('a price')}")

    def repair(self, finding_ids: str | Sequence[str], *, seed: int = 0) -> NoReturn:
        """Raise BadInput: a repair of `finding_ids`, whatever the `seed`, needs all rows in memory."""
        raise BadInput(f"the rows cannot be repaired here: {self._part('a repair')}")

    def _part(self, what: str) -> str:
        return (
            f"{what} needs all {self.rows:,} rows in memory, and the file is too large for that; write a part of it to "
            "a file of its own, and audit that"
        )
