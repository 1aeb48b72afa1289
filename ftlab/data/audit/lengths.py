"""Lengths in characters and tokens: what each max_length truncates, and what it costs in time and memory."""

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
    """Raise BadInput if `max_length` is below 1."""
    if max_length is not None and max_length < 1:
        raise BadInput(f"max_length is {max_length}; expected at least 1 token")


def measure(table: Table, tokenizer: PreTrainedTokenizerBase | None, done: Callable[[int], object]) -> pd.DataFrame:
    """Measure each training row that has a text and a label.

    Args:
        table: the rows under audit.
        tokenizer: counts the tokens, including those that it adds around a text. With None, only characters count.
        done: is called from time to time with the number of rows read since then.

    Returns:
        Columns id, label and characters; with a tokenizer also tokens; if that has no token for some characters, also
        unknown, the number of unknown tokens.
    """
    rows = table.texts[table.labelled]
    lengths = pd.DataFrame({"id": rows["id"], "label": rows["label"], "characters": rows["text"].str.len()})
    if tokenizer is not None:
        lengths["tokens"], unknown = count_tokens(tokenizer, rows["text"].tolist(), done)
        if special_tokens.unknown_id(tokenizer) is not None:
            lengths["unknown"] = unknown
    return lengths.reset_index(drop=True)


def count_tokens(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    done: Callable[[int], object] = lambda rows: None,
    *,
    special: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Count the tokens of each text, without truncation.

    Args:
        tokenizer: fast or slow.
        texts: what to count. A special token in a text counts as text.
        done: is called from time to time with the number of texts read since then.
        special: whether to count the special tokens that the tokenizer adds around a text.

    Returns:
        The number of tokens in each text, and how many of them are the unknown token.
    """
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
    """Return each of the `texts` cut after its first `room` tokens, counted with `tokenizer`."""
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
    """Yield a thousand texts at a time with their tokens, not truncated or padded; special tokens in a text are text.

    A fast tokenizer's own encodings are yielded: to convert them to lists of ids takes as long as tokenizing.
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
    """Return the finding on rows that `max_length` truncates.

    Args:
        lengths: from `measure`.
        max_length: in tokens, or None.

    Returns:
        One finding, or none if no row is longer or tokens were not counted.
    """
    if max_length is None or "tokens" not in lengths or lengths.empty:
        return []
    rows = lengths[lengths["tokens"] > max_length]
    if rows.empty:
        return []
    lost = (rows["tokens"] - max_length).sum() / lengths["tokens"].sum()
    longer = share(len(rows), len(lengths))
    what = f"more than {max_length} tokens in {{count}} ({longer}); truncation drops {lost:.1%} of all tokens"
    evidence = pd.DataFrame({"id": rows["id"], "tokens": rows["tokens"], "lost": rows["tokens"] - max_length})
    return [finding("truncation", what, evidence=evidence)]


def by_class(lengths: pd.DataFrame, max_length: int | None) -> pd.DataFrame:
    """Summarise the lengths of each class.

    Args:
        lengths: from `measure`.
        max_length: in tokens, or None.

    Returns:
        One line for each label: rows, share of rows and median lengths; with `max_length` also the share of rows that
        it cuts and the share of tokens that are lost.
    """
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
    """Compare values of max_length: what each keeps, and what it costs relative to the chosen one.

    The column time counts the floating-point operations of one pass over all rows without padding: 24 n h^2 + 4 n^2 h
    for a row of n tokens in a layer of width h (Kaplan et al. 2020, appendix B, with the attention scores of Vaswani et
    al. 2017). The column memory is that of the activations of the longest batch; with a fused attention kernel they are
    proportional to its tokens.

    Args:
        tokens: the number of tokens in each row.
        max_length: the chosen one, in tokens; None for the length of the longest row.
        hidden_size: h, the width of the model.
        limit: the longest input of the model, in tokens; no larger max_length is listed.

    Returns:
        One line for each max_length: the share of rows kept whole, the share of tokens kept, time and memory. The last
        two are 1 in the line of the chosen max_length. Empty if there are no tokens.

    >>> float(budgets(pd.Series([10, 30]), 20).loc[20, "tokens kept"])  # (10 + 20) of 40
    0.75
    """
    if not tokens.sum():
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
