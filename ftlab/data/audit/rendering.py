"""Write an audit report as text for a terminal, as HTML for a notebook, as a web page, and as JSON values."""

from __future__ import annotations

import re
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ftlab.data.audit import personal_data, text_noise
from ftlab.data.audit.findings import SEVERITIES
from ftlab.data.audit.masking import Masking
from ftlab.wording import printable

if TYPE_CHECKING:
    from jinja2 import Template

    from ftlab.data.audit.findings import AuditResult, Finding

SHOWN = 5  # at most, of a finding's rows
EXCERPT = 160  # characters of a text
BINS = 40  # of the histogram of lengths
PARTS = 60  # of the file, in the plot of one label's share
CODE_POINT = re.compile(r"U\+([0-9A-F]{4,6})(?: |$)")


def text(report: AuditResult) -> str:
    """Return `report` as text for a terminal, in lines of at most 100 characters except in tables."""
    lines = [headline(report)]
    for found in report.findings:
        lines += ["", *_wrap(f"[{found.severity}] {found.id}: ", found.what)]
        lines += [*_wrap("    why   ", found.why), *_wrap("    do    ", found.todo)]
        if found.rows:
            more = f" and {found.count - SHOWN:,} more" if found.count > SHOWN else ""
            lines += _wrap("    rows  ", ", ".join(found.rows[:SHOWN]) + more)
    for title, table in _tables(report).items():
        lines += ["", title, *(f"    {line}" for line in table.to_string(index=False).splitlines())]
    if report.notes:
        lines += ["", *(line for each in report.notes for line in _wrap("counted  ", each))]
    if report.skipped:
        lines += ["", *(line for each in report.skipped for line in _wrap("not checked  ", each))]
    return printable("\n".join(lines))


def _tables(report: AuditResult) -> dict[str, pd.DataFrame]:
    """The tables of a report that are not empty, by title."""
    tables = {
        "classes" if "rows" in report.classes else "parts of a row": report.classes.reset_index(
            names="label" if "rows" in report.classes else "part"
        ),
        "truncation and cost by max_length": report.budgets.reset_index(),
        "baselines: accuracy of simple predictors": report.shortcuts,
    }
    return {title: table for title, table in tables.items() if len(table)}


def headline(report: AuditResult) -> str:
    """Return the number of rows and of findings of `report` in one line."""
    counts = {severity: sum(found.severity == severity for found in report.findings) for severity in SEVERITIES}
    said = [
        f"{count} {severity}{'s' if count > 1 and severity != 'info' else ''}"
        for severity, count in counts.items()
        if count
    ]
    number = "1 finding" if len(report.findings) == 1 else f"{len(report.findings)} findings"
    return f"{report.rows:,} rows, {number}" + (f": {', '.join(said)}" if said else "")


def as_dict(report: AuditResult) -> dict[str, Any]:
    """Return `report` as values for JSON: counts, findings with the ids of all their rows, and the tables."""
    return {
        "rows": report.rows,
        "findings": [
            {
                "id": found.id, "severity": found.severity, "count": found.count, "what": found.what, "why": found.why,
                "todo": found.todo, "rows": list(found.rows), "evidence": _records(found.evidence),
            }
            for found in report.findings
        ],
        "classes": _records(report.classes.reset_index(names="class")) if len(report.classes) else [],
        "lengths": _quantiles(report),
        "budgets": _records(report.budgets.reset_index()) if len(report.budgets) else [],
        "shortcuts": _records(report.shortcuts),
        "notes": list(report.notes),
        "skipped": list(report.skipped),
        "max_length": report.max_length,
    }  # fmt: skip


def fragment(report: AuditResult) -> str:
    """Return `report` as HTML for a notebook."""
    return _template().render(**_content(report), standalone=False)


def page(report: AuditResult, title: str) -> str:
    """Return `report` as a web page with `title`. It has no script and loads nothing."""
    return _template().render(**_content(report), standalone=True, title=title)


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("ftlab.data.audit", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: printable(value) if type(value) is str else value,
    ).get_template("report.html.j2")  # fmt: skip


def _content(report: AuditResult) -> dict[str, Any]:
    masking = Masking(report.table, report.findings)
    texts = _excerpts(report, masking)
    return {
        "headline": headline(report),
        "findings": [(found, _shown_rows(found, texts)) for found in report.findings],
        "shown": SHOWN,
        "notes": report.notes,
        "skipped": report.skipped,
        "tables": {title: _cells(table) for title, table in _tables(report).items()},
        "bars": _class_bars(report),
        "histogram": _histogram(report),
        "order": _order(report, masking),
        "max_length": report.max_length,
    }  # fmt: skip


def _excerpts(report: AuditResult, masking: Masking) -> dict[str, str]:
    """The texts of the rows that are shown, without secrets and personal data, by id."""
    shown: set[str] = set()
    for found in report.findings:
        shown |= {*found.rows[:SHOWN], *found.evidence.get("near", pd.Series(dtype=object)).head(SHOWN)}
    rows = report.table.texts[report.table.texts["id"].isin(shown)]
    return {row: masking.text(text) for row, text in zip(rows["id"], rows["text"], strict=True)}


def _shown_rows(found: Finding, texts: dict[str, str]) -> dict[str, Any] | None:
    """A table of the first rows of a finding: their evidence and their texts."""
    if not found.rows:
        return None
    table = found.evidence.head(SHOWN) if len(found.evidence) else pd.DataFrame({"id": found.rows[:SHOWN]})
    if found.id in personal_data.KINDS:
        marks = [personal_data.KINDS[found.id][1]] * len(table)
    else:
        marks = next((list(table[column]) for column in ("found", "line") if column in table), [""] * len(table))
    cells = table.assign(
        text=[_excerpt(texts.get(row, ""), mark) for row, mark in zip(table["id"], marks, strict=True)]
    )
    if "near" in table:
        cells["text of the other"] = [_excerpt(texts.get(row, "")) for row in table["near"]]
    return _cells(cells)


def _excerpt(text: str, mark: str = "") -> str:
    """The beginning of a text, or the part around `mark`, on one line."""
    if code := CODE_POINT.match(mark):  # as `text_noise.with_code_points` writes it
        mark = chr(int(code[1], 16))
    at = max(0, text.find(mark) - EXCERPT // 3) if mark else 0
    part = text_noise.with_code_points(" ".join(text[at : at + EXCERPT].split()))
    return ("… " if at else "") + part + (" …" if len(text) > at + EXCERPT else "")


def _cells(table: pd.DataFrame) -> dict[str, Any]:
    return {
        "columns": [str(column).replace("_", " ") for column in table.columns],
        "rows": table.astype(object).values.tolist(),
    }


def _class_bars(report: AuditResult) -> list[tuple[str, int, float]]:
    """Label, rows and length of the bar in percent, of the ten largest classes."""
    if "rows" not in report.classes:
        return []
    counts = report.classes["rows"].sort_values(ascending=False, kind="stable").head(10)
    return [(str(label), int(count), round(100 * count / counts.max(), 1)) for label, count in counts.items()]


def _histogram(report: AuditResult) -> dict[str, Any] | None:
    """A histogram of the lengths up to the 99th percentile; the height of each bar is in percent of the highest."""
    if report.lengths.empty:
        return None
    unit = "tokens" if "tokens" in report.lengths else "characters"
    values = report.lengths[unit].to_numpy()
    longest = max(1.0, float(np.quantile(values, 0.99)))
    counts, _ = np.histogram(values, bins=BINS, range=(0, longest))
    mark = report.max_length if unit == "tokens" else None
    return {
        "unit": unit,
        "bars": [round(100 * int(count) / max(1, int(counts.max())), 1) for count in counts],
        "longest": f"{longest:,.0f}",
        "median": f"{np.median(values):,.0f}",
        "mark": round(100 * mark / longest, 1) if mark and mark < longest else None,
    }


def _order(report: AuditResult, masking: Masking) -> tuple[str, list[float]] | None:
    """The first label and its share in each part of the file, in order; None for few rows or a single label."""
    codes = report.table.codes[report.table.labelled] if "rows" in report.classes else np.zeros(0)
    if len(codes) < PARTS or len(report.table.label_names) < 2:
        return None
    shares = [float((part == 0).mean()) for part in np.array_split(codes, PARTS)]
    return masking.text(report.table.label_names[0]), [round(share, 2) for share in shares]


def _quantiles(report: AuditResult) -> dict[str, dict[str, float]]:
    numbers = report.lengths.select_dtypes("number")
    if numbers.empty:
        return {}
    quantiles = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {
        str(column): {name: float(numbers[column].quantile(share)) for name, share in quantiles.items()}
        for column in numbers
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries of Python values; a missing value is None."""
    if table.empty:
        return []
    columns = [str(column) for column in table.columns]
    values = table.astype(object).where(table.notna(), None).to_numpy()
    return [dict(zip(columns, row, strict=True)) for row in values]


def _wrap(first: str, said: str) -> list[str]:
    return textwrap.wrap(said, width=100, initial_indent=first, subsequent_indent=" " * min(10, len(first)))
