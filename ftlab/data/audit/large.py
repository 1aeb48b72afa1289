"""Audit a file larger than memory: exact where hashes of all rows suffice, and else by a random sample with its error.

The file is read once, in pieces. Of each row stay three hashes, its length and its label, and what a search for noise
and personal data finds in its text. Copies, contradicting labels, leakage and the counts of labels are exact.
Everything else is the ordinary audit of rows that are drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ftlab.data import group_columns, sources, tables, values
from ftlab.data.audit import audit, audit_instructions, large_checks, large_files, lengths
from ftlab.data.audit.findings import SEVERITIES, Finding
from ftlab.data.audit.large_report import LargeReport, LargeTable
from ftlab.data.audit.large_scan import SAMPLE, Columns, Scan, scan
from ftlab.data.audit.report import AuditReport
from ftlab.errors import BadInput
from ftlab.files import named_path
from ftlab.progress import bar
from ftlab.wording import visible

if TYPE_CHECKING:
    from tqdm.auto import tqdm


LARGE_ENOUGH = large_files.LARGE // 8  # bytes: a smaller file is read before a process has started


def is_large(paths: Sequence[str]) -> bool:
    """Return whether the files at these `paths` together are too large for an audit in memory."""
    named = [named_path(path, "the path of a file")[0] for path in paths if path not in sources.SOURCES]
    return sum(large_files.size(path) for path in named if path.is_file()) > large_files.LARGE


def audit_file(
    path: str,
    *,
    validation: str | None = None,
    test: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    prompt_columns: Sequence[str] = (),
    completion_column: str = "",
    group_column: str = "",
    advice: str = tables.COLUMNS_ADVICE,
    processes: int = 0,
    sample: int = SAMPLE,
    seed: int = 0,
    **options: Any,
) -> LargeReport:
    """Audit a CSV, TSV, JSONL or Parquet file of any size, and report the defects that would harm a fine-tuning run.

    Args:
        path: of the training rows.
        validation: of the rows of the validation split, likewise.
        test: of the rows of the test split, likewise.
        text_column: of all files (None: "text").
        label_column: of all files (None: "label").
        prompt_columns: of instruction data, instead of a text and a label, as for `sources.read_pairs`.
        completion_column: of instruction data.
        group_column: of all files: what no split should share with another (see `sources.read`). It is not priced.
        advice: the next step, for the message on a column that is missing.
        processes: that work beside this one. A script that asks for some needs `if __name__ == "__main__":`.
        sample: how many rows to draw for what all rows cannot tell; fewer if their texts are very long.
        seed: of the drawing.
        **options: of the audit of these rows: tokenizer, max_length and hidden_size.

    Returns:
        The report. It counts all rows and names the first thousand of a finding; `notes` say how it was made. It cannot
        price or repair.

    Raises:
        BadInput: as `sources.read` and `audit`; or a file changes while it is read.
    """
    columns = Columns(
        text_column or "text", label_column or "label", tuple(prompt_columns), completion_column, group_column
    )
    if not columns.prompt and columns.text == columns.label:
        raise BadInput(f"text_column and label_column are both {columns.text!r}; expected two columns of {path}")
    if group_column:
        group_columns.require_column(path, pd.DataFrame(columns=columns.names), group_column, columns.of_texts)
    lengths.require(options.get("max_length"))
    given = {"train": path, "validation": validation, "test": test}
    files = {split: _file(name) for split, name in given.items() if name}
    scans: dict[str, Scan] = {}
    with bar(
        f"reading {len(files)} files" if len(files) > 1 else f"reading {path}",
        total=sum(map(large_files.size, files.values())), unit="B", unit_scale=True,
    ) as progress:  # fmt: skip
        for split, file in files.items():
            known = [each.array("inputs") for each in scans.values()]
            scans[split] = scan(
                file, columns, processes=processes if large_files.size(file) > LARGE_ENOUGH else 0,
                advice=advice, done=progress.update, search=split == "train",
                known=np.concatenate(known) if known else None, sample=sample if split == "train" else 0, seed=seed,
            )  # fmt: skip
    train = scans["train"]
    if len(train) < 2:
        raise BadInput(f"{train.name} has one row; an audit compares rows, so give it at least two")
    names = large_checks.label_names(train)
    if not columns.prompt:
        _require_classes(path, train, names)
        for split, other in [*scans.items()][1:]:
            _require_known(split, other, large_checks.label_names(other), names)
    label_list = sorted(names.dropna().unique(), key=str)
    codes = names.map({name: code for code, name in enumerate(label_list)}).fillna(-1).to_numpy(dtype=np.int64)
    steps = large_checks.COPY_STEPS + len(scans) + 1
    with (
        bar(f"comparing {sum(map(len, scans.values())):,} rows", total=steps, unit="steps") as progress,
        ThreadPoolExecutor(1) as beside,
    ):
        # numpy releases Python's global lock while it sorts, so the rows drawn can be audited meanwhile.
        comparing = beside.submit(_exact, scans, columns, names, codes, label_list, progress)
        drawn = _audit_of_sample(train, columns, options)
        exact = comparing.result()
    found = exact + large_checks.from_sample(drawn.findings, len(train.sample), len(train), {*large_checks.SEARCHED})
    found.sort(key=lambda each: SEVERITIES.index(each.severity))
    characters = train.array("characters")
    measured = pd.DataFrame({"label": names, "characters": characters})[characters >= 0]
    return LargeReport(
        findings=tuple(found),
        classes=drawn.classes if columns.prompt else lengths.by_class(measured[measured["label"].notna()], None),
        lengths=measured[["characters"]],
        budgets=drawn.budgets,
        shortcuts=drawn.shortcuts,
        skipped=_skipped(train, drawn, columns, several=len(scans) > 1),
        table=_table(scans, found, drawn, codes[characters >= 0], label_list),
        max_length=None,
        tokenizer=drawn.tokenizer,
        notes=_notes(scans, columns, drawn, options.get("tokenizer") is not None),
    )


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.exists() and (name in sources.SOURCES or sources.comes_from_hub(name)):
        raise BadInput(
            f"{name} is no file, and beside a file larger than memory only files are read; give the path of a file"
        )
    return path


def _exact(
    scans: dict[str, Scan],
    columns: Columns,
    names: pd.Series,
    codes: np.ndarray,
    label_list: list[str],
    progress: tqdm[Any],
) -> list[Finding]:
    """The findings that are exact."""
    train = scans["train"]
    found = large_checks.prompts(train) if columns.prompt else large_checks.table_findings(train, names)
    progress.update(1)
    found += large_checks.noise(train)
    found += large_checks.copies(train, codes, label_list, progress.update)
    if columns.group:
        found += large_checks.groups(scans)
    progress.update(1)
    return found + large_checks.leakage(scans, bool(columns.prompt), progress.update)


def _audit_of_sample(train: Scan, columns: Columns, options: Mapping[str, Any]) -> AuditReport:
    rows = train.sample
    if columns.prompt:
        return audit_instructions(rows, **options)
    return audit(rows, **options)


def _require_classes(path: str, train: Scan, names: pd.Series) -> None:
    if (train.array("characters") < 0).all():
        raise BadInput(f"{path}: none of the {len(train):,} rows has a text; is it the right column?")
    if names.isna().all():
        raise BadInput(f"{path}: none of the {len(train):,} rows has a label; is it the right column?")
    if names.nunique() > max(10, names.notna().sum() / 2):
        raise BadInput(
            f"{path}: there are {names.nunique():,} different labels in {len(train):,} rows, too many for classes; is "
            "it the right column?"
        )


def _require_known(split: str, other: Scan, found: pd.Series, names: pd.Series) -> None:
    """Raise BadInput if a row of `other` has a label that no training row has."""
    unknown = np.flatnonzero(found.notna() & ~found.isin(names.dropna().unique()))
    if len(unknown):
        first = int(unknown[0])
        raise BadInput(
            f"the {split} row {other.ids([first])[0]} has the label {found[first]!r}, which no training row has; they "
            f"have {', '.join(map(visible, sorted(names.dropna().unique(), key=str)[:10]))}"
        )


def _table(
    scans: dict[str, Scan], found: list[Finding], drawn: AuditReport, codes: np.ndarray, names: list[str]
) -> LargeTable:
    """The texts of the rows that a report shows."""
    texts: dict[str, str] = {}
    for each in scans.values():
        kept = each.texts | {row: text for one in each.found.values() for row, text in one.texts.items()}
        texts |= dict(zip(each.ids(kept), kept.values(), strict=True))
    sampled = drawn.table.texts
    shown = {row for one in found for row in one.rows[:10]}
    shown |= {str(row) for one in found for row in one.evidence.get("near", pd.Series(dtype=object)).head(10)}
    some = sampled[sampled["id"].isin(shown)]
    texts = dict(zip(some["id"], some["text"], strict=True)) | texts
    frame = pd.DataFrame({"id": [*texts], "text": [*texts.values()], "label": None}, dtype=object)
    return LargeTable(frame, {}, drawn.table.progress, all_codes=codes, all_labels=names, all_rows=len(scans["train"]))


def _skipped(train: Scan, drawn: AuditReport, columns: Columns, *, several: bool) -> tuple[str, ...]:
    skipped = [each for each in drawn.skipped if not (several and each.startswith("leakage"))]
    if not columns.group:
        skipped.append("columns that look like groups: a large file is read for the named columns alone; name one")
    where = "labels and in the other splits" if several else "labels"
    skipped.append(f"secrets and personal data in {where}: of a large file the training texts alone are searched")
    if len(train.sample) < len(train):
        pairs = ", ".join(large_checks.OF_PAIRS.values())
        skipped.append(f"{pairs}: the file is larger than memory, and these need all rows; audit parts of it")
    return tuple(skipped)


def _notes(scans: dict[str, Scan], columns: Columns, drawn: AuditReport, tokens: bool) -> tuple[str, ...]:
    train = scans["train"]
    notes = [
        f"read in pieces: copies (by 64-bit hashes), leakage, labels, noise and personal data in all {len(train):,} "
        f"rows; the rest in {len(train.sample):,} rows drawn at random, with 95 % intervals"
    ]
    if tokens:
        notes.append("tokens, and what max_length cuts, in the rows drawn at random")
    for each in scans.values():
        where = f"{each.name}, column {columns.completion!r}"
        notes += filter(None, [values.structured_note(where, each.structured, len(each))])
    return (*notes, *drawn.notes)
