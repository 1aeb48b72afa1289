"""Special tokens in texts, and texts that a tokenizer reads mostly as unknown tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ftlab.data import special_tokens
from ftlab.data.audit.findings import Finding, finding, share
from ftlab.data.audit.table import Table
from ftlab.data.audit.text_noise import ENDS, struck_out
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOSTLY_UNKNOWN = 0.5  # a row is reported if a larger share of its tokens is unknown


def special(table: Table, tokenizer: PreTrainedTokenizerBase | None) -> list[Finding]:
    """Return the finding on rows whose text contains a special token.

    Args:
        table: the rows under audit.
        tokenizer: its special tokens are looked for, and the well-known ones; with None, only the latter.

    Returns:
        One finding or none. Its evidence says of each row whether the tokenizer can read the token as text.
    """
    own = special_tokens.tokens(tokenizer) if tokenizer else {}
    search = special_tokens.pattern({*own, *special_tokens.WELL_KNOWN})
    rows = table.texts[table.train]
    seen = []
    for row, text in zip(rows["id"], rows["text"], strict=True):
        there = [*dict.fromkeys(search.findall(text))]
        if {*ENDS} <= {*there} - own.keys() and struck_out(text):  # HTML for struck-out text: see text_noise
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
        what += f"; special tokens of this tokenizer in {int(evidence['found'].isin(own).sum()):,}"
    if stubborn := int((evidence["read_as"] == "special").sum()):
        what += f", and it cannot read them as text in {stubborn:,}"
    return [finding("special_tokens", what, evidence=evidence)]


def _read_as(text: str, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return "text" if the tokenizer can read special tokens in `text` as text, as the course's training does."""
    try:
        if tokenizer is not None:
            special_tokens.plain_ids(text, tokenizer)
    except BadInput:
        return "special"
    return "text"


def unknown(measured: pd.DataFrame) -> list[Finding]:
    """Return the finding on rows most of whose tokens are unknown.

    Args:
        measured: columns id, tokens (without those that the tokenizer adds) and unknown, both numbers of tokens.

    Returns:
        One finding, or none, also if there is no column unknown.
    """
    if "unknown" not in measured:
        return []
    shares = measured["unknown"] / measured["tokens"].clip(lower=1)
    rows = shares > MOSTLY_UNKNOWN
    if not rows.any():
        return []
    evidence = measured.loc[rows, ["id", "tokens", "unknown"]].assign(share=shares[rows].round(2))
    what = f"most of the tokens are unknown in {{count}} ({share(int(rows.sum()), len(measured))})"
    if whole := int((shares[rows] == 1).sum()):
        what += f", all of them in {whole:,}"
    return [finding("unknown_tokens", what, evidence=evidence)]
