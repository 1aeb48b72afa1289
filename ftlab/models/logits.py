"""The logits of a model for rows of tokens, one row at a time and in fp32, and the loss that they mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def logits_of_rows(model: Any, rows: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
    """Of each row, alone: (tokens, vocabulary), in fp32 on the CPU."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with _in_fp32(model):
            for row in rows:
                with torch.inference_mode():
                    yield model(input_ids=torch.tensor([row], device=model.device)).logits[0].float().cpu()
    finally:
        model.train(was_training)


@contextmanager
def _in_fp32(model: Any) -> Iterator[None]:
    """Compute in fp32 for a while; back in half precision every weight is what it was, to the last bit."""
    import torch

    halves = [(tensor, tensor.dtype) for tensor in (*model.parameters(), *model.buffers())]
    halves = [(tensor, dtype) for tensor, dtype in halves if dtype in (torch.float16, torch.bfloat16)]
    try:
        for tensor, _ in halves:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, dtype in halves:
            tensor.data = tensor.data.to(dtype)


def mean_loss(logits: Sequence[torch.Tensor], rows: Sequence[Sequence[int]]) -> float:
    """The mean cross-entropy of a token, given those before it; nothing predicts the first of a row."""
    import torch

    total = 0.0
    for found, row in zip(logits, rows, strict=True):
        total += float(torch.nn.functional.cross_entropy(found[:-1].double(), torch.tensor(row[1:]), reduction="sum"))
    return total / sum(len(row) - 1 for row in rows)
