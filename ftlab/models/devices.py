"""Where a model answers fastest on this machine, and in which precision its weights are held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_device() -> str:
    """Where a model answers fastest on this machine: "cuda", "mps" or "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def frozen_dtype(device: str | None = None) -> torch.dtype:
    """The dtype in which to hold weights that do not train: on a GPU half precision, of the kind that it computes in.

    fp32 elsewhere, in which a batch changes no answer. `device` is `best_device()` unless given.
    """
    import torch

    if not (device or best_device()).startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


@contextmanager
def held_in(model: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside the block the model's weights are in `dtype`; afterwards they are the very tensors that they were.

    Half precision halves what a step of generation reads from memory, which is most of its time. Buffers stay as they
    are (rotary frequencies would lose their accuracy), and so do weights in 4 bits. A weight that is written to inside
    the block is not kept.
    """
    before = [(parameter, parameter.data) for parameter in model.parameters() if parameter.is_floating_point()]
    try:
        for parameter, data in before:
            parameter.data = data.to(dtype)
        yield
    finally:
        for parameter, data in before:
            parameter.data = data
