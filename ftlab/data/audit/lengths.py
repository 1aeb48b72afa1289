"""How long the texts are, what max_length takes from them, and what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ftlab.data import special_tokens
from ftlab.data.audit.findings import Finding, finding, share
from ftlab.data.audit.table import Table
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHOICES = (32, 64, 128, 256, 512, 1024, 2048)
HIDDEN_SIZE = 768  # DistilBERT's and GPT-2's
NO_LIMIT = 10**9


def require(max_length: int | None) -> None:
    """Raise BadInput for a max_length that no row could keep to."""
    if max_length is not None and max_length < 1:
        raise BadInput(f"max_length is {max_length}; expected at least 1 token")


def measure(
    table: Table, tokenizer: PreTrainedTokenizerBase | None, done: Callable[[int], object] = lambda rows: None
) -> pd.DataFrame:
    """Characters and tokens (special tokens included) of each training row that has a text and a label.

    Where a tokenizer has no token for every text, also how many of a row's tokens are unknown.
    """
    rows = table.texts[table.labelled]
    lengths = pd.DataFrame({"id": rows["id"], "label": rows["label"], "characters": rows["text"].str.len()})
    if tokenizer is not None:
        lengths["tokens"], unknown = count(tokenizer, rows["text"].tolist(), done)
        if special_tokens.unknown_id(tokenizer) is not None:
            lengths["unknown"] = unknown
    return lengths.reset_index(drop=True)


def count_tokens(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    done: Callable[[int], object] = lambda rows: None,
    *,
    special: bool = True,
) -> np.ndarray:
    """The number of tokens in each text, as the tokenizer gives them without truncation."""
    return count(tokenizer, texts, done, special=special)[0]


def count(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    done: Callable[[int], object] = lambda rows: None,
    *,
    special: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """The number of tokens in each text, without truncation, and how many of them are the unknown token."""
    unknown = special_tokens.unknown_id(tokenizer)
    counts: list[tuple[int, int]] = []
    for part, encodings in _encoded(tokenizer, texts, special=special):
        for tokens in encodings:
            ids = [] if unknown is None else tokens if isinstance(tokens, list) else tokens.ids
            counts.append((len(tokens), ids.count(unknown)))
        done(len(part))
    found = np.array(counts, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def cut(tokenizer: PreTrainedTokenizerBase, texts: list[str], room: int) -> list[str]:
    """The texts as far as their first `room` tokens reach."""
    if room <= 0:
        return [""] * len(texts)
    parts: list[str] = []
    for some, encodings in _encoded(tokenizer, texts, special=False, offsets=True):
        for text, tokens in zip(some, encodings, strict=True):
            if len(tokens) <= room:
                parts.append(text)
            elif tokenizer.is_fast:
                parts.append(text[: tokens.offsets[room - 1][1]])
            else:
                parts.append(tokenizer.decode(tokens[:room]))
    return parts


def _encoded(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], *, special: bool, offsets: bool = False
) -> Iterator[tuple[list[str], list[Any]]]:
    """A thousand texts at a time, each with its tokens, neither cut nor padded; special tokens in a text are text.

    Of a fast tokenizer they come as it makes them: lists of ids in Python would take as long as the tokenizing.
    """
    for start in range(0, len(texts), 1000):
        part = texts[start : start + 1000]
        if tokenizer.is_fast:
            backend = tokenizer.backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            encode = backend.encode_batch if offsets else backend.encode_batch_fast
            usual, backend.encode_special_tokens = backend.encode_special_tokens, True
            encodings = encode(part, add_special_tokens=special)
            backend.encode_special_tokens = usual
            yield part, encodings
        else:
            plain = tokenizer(part, add_special_tokens=special, split_special_tokens=True, verbose=False)
            yield part, plain["input_ids"]


def check(lengths: pd.DataFrame, max_length: int | None) -> list[Finding]:
    """The rows that max_length cuts."""
    if max_length is None or "tokens" not in lengths or lengths.empty:
        return []
    rows = lengths[lengths["tokens"] > max_length]
    if rows.empty:
        return []
    lost = (rows["tokens"] - max_length).sum() / lengths["tokens"].sum()
    cut = share(len(rows), len(lengths))
    what = f"more than {max_length} tokens in {{count}} ({cut}); truncation drops {lost:.1%} of all tokens"
    evidence = pd.DataFrame({"id": rows["id"], "tokens": rows["tokens"], "lost": rows["tokens"] - max_length})
    return [finding("truncation", what, evidence=evidence)]


def by_class(lengths: pd.DataFrame, max_length: int | None) -> pd.DataFrame:
    """A line for each label: rows, their share, median lengths, and what max_length cuts."""
    groups = lengths.groupby("label")
    table = pd.DataFrame({"rows": groups.size()})
    table["share"] = (table["rows"] / max(1, len(lengths))).round(3)
    table["median characters"] = groups["characters"].median().astype(int)
    if "tokens" in lengths:
        table["median tokens"] = groups["tokens"].median().astype(int)
        if max_length is not None:
            cut = (lengths["tokens"] - max_length).clip(lower=0)
            table["rows cut"] = (cut > 0).groupby(lengths["label"]).mean().round(3)
            table["tokens lost"] = (cut.groupby(lengths["label"]).sum() / groups["tokens"].sum()).round(3)
    return table


def budgets(
    tokens: pd.Series, max_length: int | None, hidden_size: int = HIDDEN_SIZE, limit: int | None = None
) -> pd.DataFrame:
    """What each max_length keeps and what it asks for, beside the one that was asked about (or the longest).

    `limit` is the most tokens that the model takes; no max_length beyond it is offered.

    `time` counts the floating-point operations of one pass over all rows, each padded to no more than its own length:
    24 n h^2 + 4 n^2 h for a row of n tokens in a layer of width h (Kaplan et al. 2020, appendix B, with the attention
    scores of Vaswani et al. 2017). `memory` is that of the activations of the longest batch, which a fused attention
    kernel keeps proportional to its tokens. Both are ratios to the reference line, whose values are 1.
    """
    if not len(tokens):
        return pd.DataFrame()
    longest = min(int(tokens.max()), max(limit or NO_LIMIT, max_length or 0))
    reference = min(max_length or longest, longest)
    choices = sorted({*(choice for choice in CHOICES if choice < longest), reference, longest})
    width = 6 * hidden_size

    def operations(choice: int) -> float:
        kept = tokens.clip(upper=choice).to_numpy(dtype=float)
        return float((kept * (width + kept)).sum())

    return pd.DataFrame(
        {
            "rows whole": [(tokens <= choice).mean() for choice in choices],
            "tokens kept": [tokens.clip(upper=choice).sum() / tokens.sum() for choice in choices],
            "time": [operations(choice) / operations(reference) for choice in choices],
            "memory": [choice / reference for choice in choices],
        },
        index=pd.Index(choices, name="max_length"),
    ).round(2)
