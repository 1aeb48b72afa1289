"""Device and dtype: where a model computes on this machine (CUDA, MPS, CPU), and in which precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ftlab.models import processes

if TYPE_CHECKING:
    import torch


def best_device() -> str:
    """Return the device on which a model runs fastest on this machine: "cuda", "mps" or "cpu".

    It is "cpu" if accelerate was told to use no other. Of several GPUs, "cuda" is that of this process.
    """
    import torch

    if processes.keep_to_cpu():
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def use_one_gpu() -> None:
    """Hide all GPUs but the first from a process that trains alone; call it before CUDA is used.

    Trainer would use all of them in one process, and multiply the batch by their number without a word.
    """
    if not processes.launched():
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def frozen_dtype(device: str | None = None) -> torch.dtype:
    """Return the dtype for weights that do not train, on `device` (`best_device()` by default).

    On a GPU it is bfloat16, or float16 if the GPU has no bfloat16. Elsewhere it is float32, in which the batch does not
    change the answers.
    """
    import torch

    if not (device or best_device()).startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def mixed_precision() -> dict[str, bool]:
    """Return the precision arguments of TrainingArguments for this machine: fp16, bf16, and use_cpu if bf16 needs it.

    A GPU gets bf16, or fp16 if it has no bf16. A CPU gets bf16 if it has instructions for it (AVX-512 BF16, AMX): a
    step then takes about two thirds of the time. Without them bf16 is slower than fp32, and with fp16=True Trainer
    would train in fp32 on a CPU without a warning. The weights stay in fp32 in any case.
    """
    import torch

    device = best_device()
    if device == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return {"fp16": not bf16, "bf16": bf16}
    if device == "mps" or not cpu_has_bf16():
        return {"fp16": False, "bf16": False}
    return {"fp16": False, "bf16": True, "use_cpu": True}


def answer_dtype() -> torch.dtype:
    """Return the dtype for the weights of inference: half precision if this machine computes in it, else float32."""
    import torch

    precision = mixed_precision()
    return torch.bfloat16 if precision["bf16"] else torch.float16 if precision["fp16"] else torch.float32


def cpu_has_bf16() -> bool:
    """Return whether the CPU has instructions for bf16: AVX-512 BF16 or AMX."""
    import torch

    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def in_dtype(model: torch.nn.Module, dtype: torch.dtype, *, buffers: bool = False) -> Iterator[None]:
    """Return a context in which the model's weights are in `dtype`; afterwards they are restored to the last bit.

    A step of generation mostly waits for weights from memory, and half precision halves their bytes. Do not write to
    weights inside the block. Weights in 4 bits stay as they are.

    Args:
        model: any module.
        dtype: a floating-point dtype.
        buffers: convert buffers too. In half precision, rotary frequencies would lose accuracy.
    """
    import torch

    before = []
    for tensor in (*model.parameters(), *(model.buffers() if buffers else ())):
        if tensor.is_floating_point():
            widens = torch.promote_types(tensor.dtype, dtype) == dtype  # casting back is exact, and takes no memory
            before.append((tensor, tensor.dtype, None if widens else tensor.data))
    try:
        for tensor, _, _ in before:
            tensor.data = tensor.data.to(dtype)
        yield
    finally:
        for tensor, own, data in before:
            tensor.data = tensor.data.to(own) if data is None else data
