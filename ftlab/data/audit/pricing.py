"""What a defect costs: a simple model's score with the defect and without it (see `ablations`), with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ftlab.data.audit import groups, linear_model, repairs
from ftlab.data.audit.ablations import EXPERIMENTS, select_rows
from ftlab.data.audit.table import Table
from ftlab.errors import BadInput
from ftlab.intervals import Interval, mean_interval, paired
from ftlab.progress import bar

if TYPE_CHECKING:
    from ftlab.data.audit.findings import AuditResult, Finding

LEVEL = 0.95
OF_GROUPS = ("group_leakage", "group_column")
_INFLATING = (
    "exact_duplicates",
    "normalised_duplicates",
    "near_duplicates",
    "leakage",
    "near_leakage",
    "group_leakage",
    "group_column",
    "token_shortcut",
    "length_shortcut",
    "shape_shortcut",
)


@dataclass(frozen=True, repr=False)
class Price:
    """The score of a simple model with a defect and without it, and the change with its interval.

    Attributes:
        finding: the id of the finding.
        score: the name of the score, "accuracy" or "macro recall".
        with_defect: the score with the defect.
        without: the score without it.
        change: `with_defect` minus `without`, with its 95 % confidence interval (a bootstrap over clusters of
            near-copies). If it is positive the defect inflates the score, if it is negative the defect lowers it.
        clear: whether the change is larger than chance explains: the interval excludes zero, and the test over
            clusters is significant after Bonferroni's correction for all findings that can be priced here, whether or
            not you price them.
        priceable: how many those are.
        rows: how many rows were judged.
        what: the two ways to train or judge that were compared.
        affected: how many judged rows have the defect, and the two scores on these rows alone; None if no judged row
            has it or the experiment does not tell.
    """

    finding: str
    score: str
    with_defect: float
    without: float
    change: Interval
    clear: bool
    rows: int
    what: str
    affected: tuple[int, float, float] | None = None
    priceable: int = 1

    def __str__(self) -> str:
        if not self.clear:
            verdict = "no clear change" + self._although
        elif self.change.value < 0:
            verdict = "the defect lowers the score"
        else:
            verdict = "the defect inflates the score" if self.finding in _INFLATING else "the repair makes it worse"
        lines = [
            f"{self.finding}: {self.what}",
            f"    {self.score} {self.with_defect:.3f} with it and {self.without:.3f} without, on {self.rows:,} rows",
            f"    change {self.change.value:+.3f} [{self.change.low:+.3f}, {self.change.high:+.3f}]: {verdict}",
        ]
        if self.affected:
            count, with_defect, without = self.affected
            lines += [f"    on the {count:,} affected rows alone: {with_defect:.3f} with, {without:.3f} without"]
        return "\n".join(lines)

    __repr__ = __str__

    @property
    def _although(self) -> str:
        """Why a change is not clear although its interval excludes zero."""
        if self.change.low <= 0 <= self.change.high:
            return ""
        if self.priceable == 1:
            return " (the interval excludes 0, but too few rows changed for a test to agree)"
        return f" (the interval excludes 0, but one of {self.priceable:,} prices may do so by chance)"


def price(report: AuditResult, finding_id: str, *, seed: int = 0) -> Price:
    """Train and judge a simple model with a defect and without it.

    Args:
        report: the audit that found the defect.
        finding_id: the finding to price.
        seed: of the folds, the bootstrap and, from a large set, the drawn rows.

    Returns:
        The two scores, and the interval of their difference.

    Raises:
        BadInput: the audit did not find this, or its cost cannot be measured on these rows.
    """
    found = report[finding_id]
    if finding_id not in priceable(report):
        there = ", ".join(priceable(report)) or "none of what was found"
        raise BadInput(f"{finding_id} has no price: {_no_price(report.table, finding_id)}; those with one: {there}")
    what, experiment = EXPERIMENTS[finding_id]
    rows = report.table.cached(("price", seed), lambda: select_rows(report.table, seed))
    with bar(f"pricing {finding_id}", total=None):
        judged = experiment(report, rows, found)
    weight = np.ones(len(judged.before)) if judged.weight is None else judged.weight
    alpha = (1 - LEVEL) / len(priceable(report))  # Bonferroni
    if judged.weight is None:
        comparison = paired(judged.before, judged.after, groups=judged.clusters, seed=seed)
        change, clear = comparison.difference, comparison.clear and comparison.p_value < alpha
    else:
        gaps = (judged.before - judged.after) * weight
        change, corrected = (
            mean_interval(gaps, groups=judged.clusters, seed=seed, level=level) for level in (LEVEL, 1 - alpha)
        )
        clear = corrected.low > 0 or corrected.high < 0
    affected = None
    if judged.affected is not None and judged.affected.any():
        touched = judged.affected
        affected = (int(touched.sum()), float(judged.before[touched].mean()), float(judged.after[touched].mean()))
    return Price(
        finding=finding_id,
        score="accuracy" if judged.weight is None else "macro recall",
        with_defect=float((judged.before * weight).mean()),
        without=float((judged.after * weight).mean()),
        change=change,
        clear=clear,
        rows=len(judged.before),
        what=what,
        affected=affected,
        priceable=len(priceable(report)),
    )


def priceable(report: AuditResult) -> tuple[str, ...]:
    """Return the ids of the findings in `report` whose cost can be measured: with an experiment and enough rows."""
    return report.table.cached("priceable", lambda: _priceable(report))


def _priceable(report: AuditResult) -> tuple[str, ...]:
    table = report.table
    if table.pairs or linear_model.reason_to_skip(table, linear_model.FOLDS):
        return ()
    return tuple(found.id for found in report.findings if found.id in EXPERIMENTS and _has_rows_for(table, found))


def _no_price(table: Table, finding_id: str) -> str:
    """Why a finding of this table has no price."""
    asked = not table.pairs and not linear_model.reason_to_skip(table, linear_model.FOLDS)
    of_groups = groups.no_claim(table) if asked and finding_id in OF_GROUPS else ""
    return of_groups or "its cost cannot be measured on these rows"


def _has_rows_for(table: Table, found: Finding) -> bool:
    """Whether there are labelled rows to judge a leak on, and two classes to train on without the defect."""
    without: set[str] = set()
    if found.id in OF_GROUPS and groups.no_claim(table):
        return False
    if found.id in repairs.COPIES_IN_TRAINING:
        without = table.copies_in_training(found.rows, near=found.id == "near_leakage")
        if not without or not (~table.train & (table.codes >= 0)).any():
            return False
    elif found.id in ("conflicting_labels", "conflicting_near_labels"):
        without = set(found.rows)
    labels = table.codes[table.labelled & ~table.texts["id"].isin(without).to_numpy()]
    counts = np.bincount(labels, minlength=len(table.label_names))
    return bool((counts > 0).sum() > 1 and np.sort(counts)[-2] >= linear_model.FOLDS)
