"""What an audit says, without secrets and personal data: a report is passed on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from ftlab.data.audit import personal_data
from ftlab.data.audit.findings import Finding
from ftlab.data.audit.table import Table

_WORD = re.compile(r"[^\W_]{4,}")
_SAME = re.compile(r"'\s*(\[[a-z ]+\])\s*' instead of '\s*\1\s*'(?:, '\s*\1\s*' instead of '\s*\1\s*')*")


class Masking:
    """Masks what a report shows. The ids of rows stay, since they say which rows to look at.

    Args:
        table: the rows under audit.
        findings: what was found in them.
    """

    def __init__(self, table: Table, findings: Iterable[Finding]):
        frames = (table.frame, *table.others.values())
        self._ids = {row for frame in frames for row in frame["id"]}
        private = {row for found in findings if found.id in personal_data.KINDS for row in found.rows}
        rows, spans = personal_data.said(table), personal_data.spans_of(table)
        rows = rows[rows["id"].isin(private)]
        labels = {label for frame in frames if "label" in frame for label in frame["label"].unique()}
        said = [(text, spans.get(row)) for row, text in zip(rows["id"], rows["text"], strict=True)]
        said += [(label, None) for label in labels]
        self._pieces = {
            piece for text, found in said if isinstance(text, str) for piece in personal_data.pieces(text, found)
        }

    def text(self, said: str) -> str:
        """Return `said` with each secret, personal datum, or word that is a piece of one replaced."""
        masked = personal_data.without_private(said)
        if not self._pieces:
            return masked
        return _WORD.sub(lambda word: "[secret]" if word[0].lower() in self._pieces else word[0], masked)

    def finding(self, found: Finding) -> Finding:
        """Return `found` with what it says and its evidence masked."""
        what = _SAME.sub(r"another spelling of the label '\1'", self.text(found.what))
        return replace(found, what=what, evidence=self.columns(found.evidence))

    def columns(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return `table` with the texts in its columns masked."""
        new = {column: self._values(table[column]) for column in table.columns if column != "id"}
        changed = {column: values for column, values in new.items() if values is not None}
        return table.assign(**changed) if changed else table

    def names(self, names: pd.Index) -> pd.Index:
        """Return `names`, the labels of the lines of a table, masked."""
        masks = self._masks(names)
        return pd.Index([masks.get(name, name) for name in names], name=names.name) if masks else names

    def _values(self, values: pd.Series) -> pd.Series | None:
        if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            return None
        masks = self._masks(values)
        return values.map(lambda value: masks.get(value, value) if isinstance(value, str) else value) if masks else None

    def _masks(self, values: Iterable[object]) -> dict[object, str]:
        """The mask of each value that needs one."""
        texts = {value for value in values if isinstance(value, str)} - self._ids
        return {value: mask for value in sorted(texts) if (mask := self.text(value)) != value}
