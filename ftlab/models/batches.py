"""Run a model over many rows: batches of like length, answers in the order of the rows.

Rows of a batch are padded to its longest, so rows of like length waste little. A batch holds as many rows as fit into
a number of tokens, which keeps short rows fast and long ones within memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab.progress import Bar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS = 2048  # in a batch, padding included
MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def by_length(lengths: Sequence[int], tokens: int = TOKENS, *, rows: int | None = None) -> Iterator[list[int]]:
    """The places of the rows in batches of at most `tokens` padded tokens (one row at least), the longest rows first.

    With `rows`, no batch has more than so many. The longest first, so that a batch that does not fit into memory fails
    at once and not at the end.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, tokens // max(1, int(lengths[order[start]])))
        size = size if rows is None else min(size, rows)
        yield order[start : start + size].tolist()
        start += size


def pad(tokenizer: PreTrainedTokenizerBase, columns: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, torch.Tensor]:
    """What the tokenizer gave for some rows, column by column, as tensors (rows, longest row); an attention_mask too.

    What `tokenizer.pad` gives, which goes through all tokens in Python: on short rows that takes as long as a small
    model does.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    fill = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": tokenizer.pad_token_type_id}
    given = {name: [torch.tensor(row, dtype=torch.long) for row in column] for name, column in columns.items()}
    given.setdefault("attention_mask", [torch.ones_like(row) for row in given["input_ids"]])
    return {
        name: pad_sequence(column, batch_first=True, padding_value=fill[name], padding_side=tokenizer.padding_side)
        for name, column in given.items()
    }


def run(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encodings: Mapping[str, Sequence[Sequence[int]]],
    read: Callable[[Any, torch.Tensor], torch.Tensor],
    *,
    tokens: int = TOKENS,
    what: str = "predicting",
) -> np.ndarray:
    """`read(output, attention_mask)` of each row, stacked in the order of the rows: (rows, ...), as float32.

    `encodings` is what the tokenizer gave for the rows (at least one), without padding. The model is put into
    evaluation mode, and runs in its own precision and without gradients.
    """
    columns = {name: list(encodings[name]) for name in MODEL_INPUTS if name in encodings}

    def batch(places: Sequence[int]) -> Mapping[str, torch.Tensor]:
        return pad(tokenizer, {name: [column[place] for place in places] for name, column in columns.items()})

    return run_batches(model, [len(ids) for ids in columns["input_ids"]], batch, read, tokens=tokens, what=what)


def run_batches(
    model: PreTrainedModel,
    lengths: Sequence[int],
    batch: Callable[[list[int]], Mapping[str, torch.Tensor]],
    read: Callable[[Any, torch.Tensor], torch.Tensor],
    *,
    tokens: int = TOKENS,
    what: str = "predicting",
) -> np.ndarray:
    """As `run`, for rows of these `lengths` in tokens whose batches `batch(places)` makes; it may hold labels."""
    import torch

    answers: dict[int, np.ndarray] = {}
    model.eval()
    with torch.inference_mode(), Bar(desc=what, total=len(lengths), unit="rows") as progress:
        for places in by_length(lengths, tokens):
            inputs = {name: tensor.to(model.device) for name, tensor in batch(places).items() if name != "labels"}
            found = read(model(**inputs), inputs["attention_mask"]).float().cpu().numpy()
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
            progress.update(len(places))
    return np.stack([answers[place] for place in range(len(lengths))])


def softmax(output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """The probability of each label: (rows, labels)."""
    return output.logits.float().softmax(dim=-1)


def mean_pooled(output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """The mean of the last layer's hidden states over the real tokens, at length 1: one vector a row.

    How sentence encoders such as MiniLM were trained to be read (Reimers and Gurevych, Sentence-BERT, 2019).
    """
    import torch

    mask = attention_mask.unsqueeze(-1).to(output.last_hidden_state.dtype)
    mean = (output.last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return torch.nn.functional.normalize(mean, dim=-1)


def first_token(output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """The last layer's hidden state of each row's first token, at length 1: what BERT's classification head reads.

    Expects padding on the right.
    """
    import torch

    return torch.nn.functional.normalize(output.last_hidden_state[:, 0], dim=-1)
