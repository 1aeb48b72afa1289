"""What is wrong with these rows? Findings, each with its rows, why it matters and what to do about it.

Good data beats a good model, and looking costs seconds.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from ftlab.data import sources
from ftlab.data.splits import normalise
from ftlab.errors import BadInput
from ftlab.progress import bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Severity = Literal["error", "warning", "info"]
IMBALANCE_WARNS_ABOVE = 5.0
TAGS = (
    "a b blockquote body br center code div em font form h1 h2 h3 h4 h5 h6 head hr html i iframe img input li link "
    "meta ol p pre s script small span strong style sub sup table tbody td th thead tr u ul"
)
MARKUP = re.compile(
    rf"</?(?:{TAGS.replace(' ', '|')})(?:\s[^<>]{{0,300}})?/?>|&(?:[a-z]{{2,8}}|#\d{{2,5}}|#x[0-9a-f]{{2,5}});",
    re.IGNORECASE,
)
SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing that the audit found: how many rows, which, why it matters for fine-tuning, and what to do."""

    id: str
    severity: Severity
    count: int
    what: str
    why: str
    todo: str
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class AuditReport:
    """The findings on a table of rows, and the figures that any data set has.

    `classes` has a line for each label (rows, share, median characters and, where a tokenizer was given, median
    tokens and the share of rows that max_length cuts); `lengths` has a line for each row (id, label, characters,
    tokens).
    """

    rows: int
    findings: tuple[Finding, ...]
    classes: pd.DataFrame
    lengths: pd.DataFrame
    max_length: int | None = None

    def __getitem__(self, finding_id: str) -> Finding:
        for finding in self.findings:
            if finding.id == finding_id:
                return finding
        raise KeyError(
            f"the audit found no {finding_id!r}; it found {', '.join(f.id for f in self.findings) or 'nothing'}"
        )

    def __contains__(self, finding_id: str) -> bool:
        return any(finding.id == finding_id for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"{self.rows:,} rows, {len(self.findings)} findings"]
        for finding in self.findings:
            lines += [f"[{finding.severity}] {finding.id}: {finding.what}", f"    why   {finding.why}"]
            lines += [f"    do    {finding.todo}"]
            if finding.rows:
                more = f" and {finding.count - SHOWN:,} more" if finding.count > SHOWN else ""
                lines += [f"    rows  {', '.join(finding.rows[:SHOWN])}{more}"]
        return "\n".join(lines)

    __repr__ = __str__  # a notebook stores it beside the HTML, and the lengths of all rows would be megabytes

    def _repr_html_(self) -> str:
        cell = "<td style='text-align:left;vertical-align:top'>{}</td>"
        body = ""
        for finding in self.findings:
            shown = ", ".join(finding.rows[:SHOWN]) + (" …" if finding.count > SHOWN and finding.rows else "")
            columns = (
                finding.severity,
                f"<b>{finding.id}</b>",
                *map(html.escape, (finding.what, finding.why, finding.todo, shown)),
            )
            body += "<tr>" + "".join(map(cell.format, columns)) + "</tr>"
        head = "".join(
            f"<th style='text-align:left'>{name}</th>" for name in ("", "finding", "what", "why", "do", "rows")
        )
        return f"<p>{self.rows:,} rows, {len(self.findings)} findings</p><table><tr>{head}</tr>{body}</table>"


def audit(
    frame: pd.DataFrame, *, tokenizer: PreTrainedTokenizerBase | None = None, max_length: int | None = None
) -> AuditReport:
    """Look for what spoils a fine-tuning run in a table of columns id, text and label, in the order of its file.

    With the tokenizer that will be used, lengths are counted in its tokens (special tokens included), and `max_length`
    says what truncation will cut. Raises BadInput when the columns are not there or there are no rows.
    """
    if missing := {"id", "text", "label"} - set(frame.columns):
        raise BadInput(f"the table lacks the columns {', '.join(sorted(missing))}; it has {', '.join(frame.columns)}")
    if frame.empty:
        raise BadInput("the table has no rows; expected at least one")
    complete = sources.complete(frame)
    lengths = _lengths(complete, tokenizer)
    findings = [
        *_missing(frame),
        *_classes(complete),
        *_order(complete),
        *_duplicates(complete),
        *_markup(complete),
        *_truncation(lengths, max_length),
    ]
    rank = {"error": 0, "warning": 1, "info": 2}
    findings.sort(key=lambda finding: rank[finding.severity])
    return AuditReport(len(frame), tuple(findings), _class_table(lengths, max_length), lengths, max_length)


def first_rows(frame: pd.DataFrame, sizes: Sequence[int]) -> pd.DataFrame:
    """How many rows of each label stand in the first n rows of the file, for each n: what `select(range(n))` takes."""
    labels = sorted(frame["label"].dropna().unique())
    counts = [frame["label"].iloc[:size].value_counts().reindex(labels, fill_value=0) for size in sizes]
    return pd.DataFrame(counts, index=pd.Index(sizes, name="first n rows"))


def _finding(
    frame: pd.DataFrame, mask: pd.Series, finding_id: str, severity: Severity, what: str, why: str, todo: str
) -> list[Finding]:
    """A finding over the rows in `mask`, or none when there are none. `what` may use {count} and {share}."""
    count = int(mask.sum())
    if not count:
        return []
    filled = what.format(count=f"{count:,}", share=f"{count / len(frame):.1%}")
    return [Finding(finding_id, severity, count, filled, why, todo, tuple(frame.loc[mask, "id"]))]


def _missing(frame: pd.DataFrame) -> list[Finding]:
    return _finding(
        frame, sources.blank(frame["text"]), "missing_text", "error", "{count} rows have no text",
        "an empty row still has a label, and the model learns to guess it from nothing",
        "find out why, then drop the rows",
    ) + _finding(
        frame, sources.blank(frame["label"]), "missing_label", "error", "{count} rows have no label",
        "a row without a label cannot be trained on, and a filled-in guess is noise",
        "label the rows or drop them",
    )  # fmt: skip


def _classes(frame: pd.DataFrame) -> list[Finding]:
    counts = frame["label"].value_counts()
    if len(counts) < 2:
        return [Finding(
            "one_class", "error", len(frame), f"the only label is {counts.index[0] if len(counts) else 'none'}",
            "with one class there is nothing to learn, and any model scores 100 %",
            "check how the rows were selected",
        )]  # fmt: skip
    ratio = counts.iloc[0] / counts.iloc[-1]
    if ratio <= IMBALANCE_WARNS_ABOVE:
        return []
    return [Finding(
        "imbalance", "warning", int(counts.iloc[-1]),
        f"{counts.index[0]} has {ratio:.1f} times as many rows as {counts.index[-1]}",
        "accuracy looks good while the small class is never predicted",
        "report macro F1; weigh the classes in the loss, or collect more of the small one",
    )]  # fmt: skip


def _order(frame: pd.DataFrame) -> list[Finding]:
    """Rows blocked by label: the number of places where the label changes, against what shuffling would give."""
    labels = frame["label"].to_numpy()
    if len(labels) < 20 or len(set(labels)) < 2:
        return []
    changes = int((labels[1:] != labels[:-1]).sum())
    shares = frame["label"].value_counts(normalize=True).to_numpy()
    expected = (len(labels) - 1) * (1 - float((shares**2).sum()))
    if changes >= expected / 2:
        return []
    run = int(np.argmax(labels != labels[0]))
    times = "once" if changes == 1 else f"{changes:,} times"
    return [Finding(
        "sorted_by_label", "error", len(frame),
        f"from row to row the label changes {times}; shuffled rows would change about {expected:,.0f} times",
        f"the first {run:,} rows are all {labels[0]}: the first n rows are not like the rest",
        "shuffle with a fixed seed before taking a part, or draw a stratified sample",
    )]  # fmt: skip


def _duplicates(frame: pd.DataFrame) -> list[Finding]:
    exact = frame["text"].duplicated()
    keys = frame["text"].map(normalise)
    same = keys.duplicated() & (keys != "")
    labels_of = frame["label"].groupby(keys).transform("nunique")
    conflicts = (labels_of > 1) & (keys != "")
    return _finding(
        frame, exact, "duplicate_text", "warning", "{count} rows repeat the text of an earlier row",
        "a text that lands in training and in test is remembered, not understood: the score is inflated",
        "keep one of each before splitting",
    ) + _finding(
        frame, same & ~exact, "near_identical_text", "warning",
        "{count} more rows repeat one but for case, white space or punctuation",
        "they leak between splits as well as exact copies do",
        "compare texts after normalising them",
    ) + _finding(
        frame, conflicts, "conflicting_labels", "error", "{count} rows have the same text and different labels",
        "whatever the model answers, it is wrong for one of them",
        "read them, settle the label, or drop them all",
    )  # fmt: skip


def _markup(frame: pd.DataFrame) -> list[Finding]:
    return _finding(
        frame, frame["text"].map(lambda text: bool(MARKUP.search(text))), "markup", "warning",
        "{count} rows ({share}) hold HTML tags or entities",
        "tags use up tokens, and the model sees them in training but not from your users",
        "strip them, in training and in use alike",
    )  # fmt: skip


def _lengths(frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase | None) -> pd.DataFrame:
    lengths = pd.DataFrame({"id": frame["id"], "label": frame["label"], "characters": frame["text"].str.len()})
    if tokenizer is not None:
        texts = frame["text"].tolist()
        tokens: list[int] = []
        # The tokenizers library uses every core on a batch, unless it is told not to.
        with bar("counting tokens", total=len(texts), unit="rows") as progress:
            for start in range(0, len(texts), 1000):
                batch = tokenizer(
                    texts[start : start + 1000],
                    return_attention_mask=False,
                    return_token_type_ids=False,
                    return_length=True,
                    verbose=False,  # else it warns of texts over the model's positions, which is what we count
                )
                tokens += batch["length"]
                progress.update(len(batch["length"]))
        lengths["tokens"] = tokens
    return lengths.reset_index(drop=True)


def _truncation(lengths: pd.DataFrame, max_length: int | None) -> list[Finding]:
    if max_length is None or "tokens" not in lengths or lengths.empty:
        return []
    cut = lengths["tokens"] > max_length
    lost = (lengths["tokens"] - max_length).clip(lower=0).sum() / max(1, lengths["tokens"].sum())
    return _finding(
        lengths, cut, "truncation", "info",
        f"{{count}} rows ({{share}}) are longer than {max_length} tokens; truncation drops {lost:.1%} of all tokens",
        "the model never sees the end of these texts, where a review often gives its verdict",
        "raise max_length and pay for it in time, keep head and tail, or accept it and say so",
    )  # fmt: skip


def _class_table(lengths: pd.DataFrame, max_length: int | None) -> pd.DataFrame:
    groups = lengths.groupby("label")
    table = pd.DataFrame({"rows": groups.size()})
    table["share"] = (table["rows"] / max(1, len(lengths))).round(3)
    table["median characters"] = groups["characters"].median().astype(int)
    if "tokens" in lengths:
        table["median tokens"] = groups["tokens"].median().astype(int)
        if max_length is not None:
            cut = lengths["tokens"] > max_length
            table["share cut"] = cut.groupby(lengths["label"]).mean().round(3)
    return table
