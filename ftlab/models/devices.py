"""Device and dtype: the one place that decides where a model computes on this machine, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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


def mixed_precision() -> dict[str, bool]:
    """The precision arguments of TrainingArguments for this machine: fp16, bf16, and use_cpu where bf16 asks for it.

    bf16 on a GPU that has it, fp16 on an older one; bf16 on a CPU with instructions for it (AVX-512 BF16, AMX), where a
    step takes about two thirds of the time; neither elsewhere. Asked for fp16, Trainer would train in fp32 on a CPU
    without saying so, and bf16 without such instructions is slower than fp32. The weights stay in fp32 in any case.
    """
    import torch

    if torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return {"fp16": not bf16, "bf16": bf16}
    if torch.backends.mps.is_available() or not _cpu_has_bf16():
        return {"fp16": False, "bf16": False}
    return {"fp16": False, "bf16": True, "use_cpu": True}


def answer_dtype() -> torch.dtype:
    """The dtype in which to hold weights that answer: half precision wherever this machine computes in it."""
    import torch

    precision = mixed_precision()
    return torch.bfloat16 if precision["bf16"] else torch.float16 if precision["fp16"] else torch.float32


def _cpu_has_bf16() -> bool:
    import torch

    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def in_dtype(model: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
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
