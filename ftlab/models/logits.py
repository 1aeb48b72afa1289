"""The logits of a model for rows of tokens, one row at a time and in fp32, and their cross-entropy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ftlab.models import devices

if TYPE_CHECKING:
    import torch


def logits_of_rows(model: Any, rows: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
    """Compute the logits of each row by itself, in fp32; the model's weights and mode are restored afterwards.

    Args:
        model: a causal language model.
        rows: token ids of each row.

    Yields:
        (tokens, vocabulary) float32 on the CPU, for one row.
    """
    import torch

    was_training = model.training
    model.eval()
    try:
        with devices.in_dtype(model, torch.float32, buffers=True):
            for row in rows:
                with torch.inference_mode():
                    yield model(input_ids=torch.tensor([row], device=model.device)).logits[0].float().cpu()
    finally:
        model.train(was_training)


def mean_loss(logits: Sequence[torch.Tensor], rows: Sequence[Sequence[int]]) -> float:
    """Return the mean cross-entropy of a token in nats, given the tokens before it.

    `logits` has (tokens, vocabulary) for each of `rows`, the token ids. Nothing predicts the first token of a row.

    >>> import torch
    >>> round(mean_loss([torch.zeros(3, 4)], [[1, 2, 3]]), 4)  # four equal logits: log(4)
    1.3863
    """
    import torch

    total = 0.0
    for found, row in zip(logits, rows, strict=True):
        total += float(torch.nn.functional.cross_entropy(found[:-1].double(), torch.tensor(row[1:]), reduction="sum"))
    return total / sum(len(row) - 1 for row in rows)
