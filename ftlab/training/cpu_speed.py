"""Faster training on a CPU: batches in pieces, attention as plain matrix products, and dropout with fewer draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftlab.internals import peft as peft_internals
from ftlab.internals import transformers as transformers_internals
from ftlab.models import devices

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHORT = 128  # tokens
# A CPU trains fastest on so many tokens at a time. The activations of more do not fit its caches, and their memory is
# allocated anew in each step. MiniLM takes a tenth less time on rows of 512 tokens (both ways alternating, an AMD CPU).
FP32_TOKENS = 2048
LEVELS = 2**16  # a probability is rounded to a multiple of 1/LEVELS


def pieces(batch_size: int, *, length: int, precision: Mapping[str, bool]) -> int:
    """Return the number of pieces in which to train on a batch: Trainer's `gradient_accumulation_steps`.

    On a CPU, pieces of at most FP32_TOKENS tokens (twice that in bf16) are faster and take less memory. More than one
    piece needs a model with `accepts_loss_kwargs = False` (see `invariants.accumulation`). The step is then that of the
    whole batch, with two exceptions: dropout draws other values, and in an epoch's last batch the rows of a smaller
    piece count for more.

    >>> pieces(16, length=512, precision={"bf16": False, "use_cpu": True})  # 2048 tokens at a time: 4 rows
    4

    Args:
        batch_size: rows in an optimizer step.
        length: tokens of the longest row.
        precision: as `devices.mixed_precision` returns it.

    Returns:
        1 if the batch fits, on a GPU, or if no equal pieces have between half of that size and all of it.
    """
    most = max(1, FP32_TOKENS * (2 if precision.get("bf16") else 1) // length)
    rows = max(size for size in range(1, min(most, batch_size) + 1) if batch_size % size == 0)
    on_cpu = precision.get("use_cpu") or devices.best_device() == "cpu"
    return batch_size // rows if on_cpu and rows >= most / 2 else 1


@contextmanager
def quick_attention(model: PreTrainedModel, *, max_length: int, precision: Mapping[str, bool]) -> Iterator[None]:
    """Inside the block, compute attention in the way that trains fastest on this machine; the outputs are the same.

    PyTorch's fused attention has a slow backward pass on a CPU in bf16. On rows of up to SHORT tokens, plain matrix
    products train a sixth to a quarter faster (MiniLM, batch 16, torch 2.13). On longer rows they are slower.

    Args:
        model: its attention implementation is restored afterwards.
        max_length: tokens at which rows were cut.
        precision: as `devices.mixed_precision` returns it.

    Yields:
        Nothing.
    """
    before = transformers_internals.attention(model)
    plain = before == "sdpa" and precision.get("bf16") and precision.get("use_cpu") and max_length <= SHORT
    if plain:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class QuickDropout(nn.Dropout):
    """`nn.Dropout` that draws one random 64-bit number for four values; PyTorch draws one for each value in turn.

    The probability is rounded to a multiple of 1/65,536. The values that are kept are scaled so that the mean stays
    the same (Srivastava and others 2014). One seed always drops the same values, but not those of `nn.Dropout`. This
    is for a CPU only: a GPU draws within the kernel. (On Intel's CPUs PyTorch uses MKL, which draws several at a time.)
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return `values`, of any shape, with some of them set to 0 and the others scaled up."""
        kept = round((1 - self.p) * LEVELS)
        if not self.training or kept in (0, LEVELS) or values.device.type != "cpu":
            return super().forward(values)
        count = values.numel()
        numbers = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
        levels = numbers.view(torch.int16)[:count].view(values.shape)
        mask = (levels < kept - LEVELS // 2).to(values.dtype).mul_(LEVELS / kept)
        return values * mask


@contextmanager
def quick_dropout(model: nn.Module) -> Iterator[None]:
    """Inside the block, every `nn.Dropout` of `model` is a QuickDropout, which saves a tenth of a step on an AMD CPU.

    The dropout of LoRA adapters stays as it is: it is a small part of a step.

    Yields:
        Nothing.
    """
    plain = [
        module
        for name, module in model.named_modules()
        if type(module) is nn.Dropout and not module.inplace and peft_internals.DROPOUT not in name
    ]
    for module in plain:
        module.__class__ = QuickDropout
    try:
        yield
    finally:
        for module in plain:
            module.__class__ = nn.Dropout
