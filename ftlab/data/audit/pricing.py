"""What a defect costs: the change in score of a cheap model, with its interval (see `experiments`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ftlab.data.audit import linear_model, repairs
from ftlab.data.audit.ablations import EXPERIMENTS, rows_to_price
from ftlab.data.audit.table import Table
from ftlab.errors import BadInput
from ftlab.intervals import Interval, mean_interval, paired
from ftlab.progress import bar

if TYPE_CHECKING:
    from ftlab.data.audit.findings import AuditResult, Finding

LEVEL = 0.95
_INFLATE = ("exact_duplicates", "normalised_duplicates", "near_duplicates", "leakage", "near_leakage", "token_shortcut")


@dataclass(frozen=True, repr=False)
class Price:
    """The score of the cheap model with a defect and without it, and the change with its interval.

    `change` is `with_defect` less `without`: above zero the defect inflates the score, below zero it takes away. Its
    interval is the 95 % confidence interval of this change by itself, a bootstrap over clusters of near-copies. `clear`
    says whether the change is more than chance explains, among all findings that can be priced here, whichever are
    asked for: the interval excludes zero, and the test by clusters agrees after Bonferroni's correction. `affected`
    holds the number of judged rows that the defect touches, and the two scores on these rows alone, where that can be
    said.
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

    def __str__(self) -> str:
        if not self.clear:
            verdict = "no clear change"
        elif self.change.value < 0:
            verdict = "the defect takes score away"
        else:
            verdict = "the defect inflates the score" if self.finding in _INFLATE else "the repair makes it worse"
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


def price(report: AuditResult, finding_id: str, *, seed: int = 0) -> Price:
    """Train the cheap baseline with and without a finding's defect. Raises BadInput where that cannot be done."""
    found = report[finding_id]
    if finding_id not in priceable(report):
        there = ", ".join(priceable(report)) or "none of what was found"
        raise BadInput(f"{finding_id} has no price in score here; those that have one: {there}")
    what, experiment = EXPERIMENTS[finding_id]
    rows = report.table.kept(("price", seed), lambda: rows_to_price(report.table, seed))
    with bar(f"pricing {finding_id}", total=None):
        judged = experiment(report, rows, found)
    weight = np.ones(len(judged.before)) if judged.weight is None else judged.weight
    chance = (1 - LEVEL) / len(priceable(report))
    if judged.weight is None:
        comparison = paired(judged.before, judged.after, groups=judged.clusters, seed=seed)
        change, clear = comparison.difference, comparison.clear and comparison.p_value < chance
    else:
        gaps = (judged.before - judged.after) * weight
        change, among_all = (
            mean_interval(gaps, groups=judged.clusters, seed=seed, level=level) for level in (LEVEL, 1 - chance)
        )
        clear = among_all.low > 0 or among_all.high < 0
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
    )


def priceable(report: AuditResult) -> tuple[str, ...]:
    """The ids of the findings whose cost can be measured: there is an experiment, and rows enough."""
    return report.table.kept("priceable", lambda: _priceable(report))


def _priceable(report: AuditResult) -> tuple[str, ...]:
    table = report.table
    if table.pairs or linear_model.refusal(table, linear_model.FOLDS):
        return ()
    return tuple(found.id for found in report.findings if found.id in EXPERIMENTS and _judgeable(table, found))


def _judgeable(table: Table, found: Finding) -> bool:
    """Whether a leak has labelled rows to judge, and what a defect leaves has two classes to train on."""
    without: set[str] = set()
    if found.id in repairs.COPIES_IN_TRAINING:
        without = table.copies_in_training(found.rows, near=found.id == "near_leakage")
        if not without or not (~table.train & (table.codes >= 0)).any():
            return False
    elif found.id in ("conflicting_labels", "conflicting_near_labels"):
        without = set(found.rows)
    labels = table.codes[table.labelled & ~table.texts["id"].isin(without).to_numpy()]
    counts = np.bincount(labels, minlength=len(table.label_names))
    return bool((counts > 0).sum() > 1 and np.sort(counts)[-2] >= linear_model.FOLDS)
