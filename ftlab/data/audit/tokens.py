"""What a tokenizer makes of a text that its author did not mean: special tokens in it, and unknown ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ftlab.data import special_tokens
from ftlab.data.audit.findings import Finding, finding, share
from ftlab.data.audit.table import Table
from ftlab.data.audit.text_noise import ENDS, STRUCK_OUT
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOSTLY = 0.5  # of a row's tokens: beyond it, the model is told less than it is not told


def special(table: Table, tokenizer: PreTrainedTokenizerBase | None) -> list[Finding]:
    """Rows whose text holds a special token of the tokenizer, or one of the well-known ones."""
    own = special_tokens.tokens(tokenizer) if tokenizer else {}
    search = special_tokens.pattern({*own, *special_tokens.WELL_KNOWN})
    rows = table.texts[table.train]
    seen = []
    for row, text in zip(rows["id"], rows["text"], strict=True):
        there = [*dict.fromkeys(search.findall(text))]
        if {*ENDS} <= {*there} - own.keys() and STRUCK_OUT.search(text):  # markup, which has a finding of its own
            there = [token for token in there if token not in ENDS]
        if there:
            mine = [token for token in there if token in own]
            seen.append((row, (mine or there)[0], _read_as(text, tokenizer if mine else None)))
    if not seen:
        return []
    evidence = pd.DataFrame(seen, columns=["id", "found", "read_as"])
    names = ", ".join(repr(token) for token in evidence["found"].value_counts().index[:3])
    what = f"special tokens in the text of {{count}} ({share(len(seen), len(rows))}), such as {names}"
    if tokenizer is not None:
        what += f"; of this tokenizer itself in {int(evidence['found'].isin(own).sum()):,}"
    if stubborn := int((evidence["read_as"] == "special").sum()):
        what += f", which it cannot read as text in {stubborn:,}"
    return [finding("special_tokens", what, evidence=evidence)]


def _read_as(text: str, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Text, as in the course's own training; or special, where the tokenizer cannot do otherwise."""
    try:
        if tokenizer is not None:
            special_tokens.plain_ids(text, tokenizer)
    except BadInput:
        return "special"
    return "text"


def unknown(measured: pd.DataFrame) -> list[Finding]:
    """Rows most of whose tokens are unknown, of a table of columns id, tokens (without special ones) and unknown."""
    if "unknown" not in measured:
        return []
    shares = measured["unknown"] / measured["tokens"].clip(lower=1)
    rows = shares > MOSTLY
    if not rows.any():
        return []
    evidence = measured.loc[rows, ["id", "tokens", "unknown"]].assign(share=shares[rows].round(2))
    what = f"most of the tokens are unknown ones in {{count}} ({share(int(rows.sum()), len(measured))})"
    if whole := int((shares[rows] == 1).sum()):
        what += f", all of them in {whole:,}"
    return [finding("unknown_tokens", what, evidence=evidence)]
