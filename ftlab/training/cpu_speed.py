"""Training faster on a CPU, to the same result: pieces of a batch, attention as plain products, quicker dropout."""

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
# Tokens that a CPU trains on fastest at a time: the activations of more leave its caches, and their memory is asked of
# the system anew in each step. In turn on one AMD CPU, MiniLM takes a tenth less time on rows of 512 tokens.
FP32_TOKENS = 2048
LEVELS = 2**16  # a probability is rounded to the nearest of so many


def pieces(batch_size: int, *, length: int, precision: Mapping[str, bool]) -> int:
    """In how many pieces to train on a batch whose longest row has `length` tokens: `gradient_accumulation_steps`.

    On a CPU pieces of at most FP32_TOKENS (twice that in bf16) are faster, and take less memory. One where the batch
    fits, on a GPU, and where it has no equal pieces of between half that size and all of it. More than one asks for a
    model with `accepts_loss_kwargs = False` (`invariants.accumulation`); the step is that of the whole batch, but for
    the draws of dropout, and for an epoch's last batch, where the rows of a smaller piece count for more.
    """
    most = max(1, FP32_TOKENS * (2 if precision.get("bf16") else 1) // length)
    rows = max(size for size in range(1, min(most, batch_size) + 1) if batch_size % size == 0)
    on_cpu = precision.get("use_cpu") or devices.best_device() == "cpu"
    return batch_size // rows if on_cpu and rows >= most / 2 else 1


@contextmanager
def quick_attention(model: PreTrainedModel, *, max_length: int, precision: Mapping[str, bool]) -> Iterator[None]:
    """Inside the block attention is computed in the way that trains fastest here; the answers are the same.

    PyTorch's fused attention on a CPU is slow at going backward in bf16: on rows of up to SHORT tokens, plain matrix
    products train a sixth to a quarter faster (MiniLM, batch 16, torch 2.13); on longer ones they lose.
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
    """`nn.Dropout` that draws one 64-bit number for four values, where PyTorch draws one for each, one after the other.

    Each value is kept with the same chance, to 1/65,536, and what is kept is scaled so that the mean stays (Srivastava
    and others 2014). It draws other values than `nn.Dropout` from the same seed, and the same ones each time. On a CPU
    only: a GPU draws within the kernel. (On Intel's CPUs PyTorch has MKL draw, several at a time.)
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """`values`, of any shape, with some of them 0 and the others scaled up."""
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
    """Inside the block every `nn.Dropout` of `model` is a QuickDropout: a tenth of a step's time, on an AMD CPU.

    Not that of LoRA adapters, which is a small part of a step.
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
