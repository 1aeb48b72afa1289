"""QLoRA: the 4-bit config, 4-bit layers that stay trainable on a CPU, and a check for fp16 weights under fp16 AMP.

bitsandbytes quantizes, and transformers loads. This module covers the cases that both pass over without a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlab.errors import BadInput
from ftlab.internals import bitsandbytes as bitsandbytes_internals
from ftlab.internals.bitsandbytes import UNPACKED
from ftlab.models import devices

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig


def four_bit_config(device: str | None = None) -> BitsAndBytesConfig:
    """Return the config of QLoRA (Dettmers et al., 2023) for `from_pretrained`: NF4 with double quantization.

    Computation is in bf16 if the device has it, else in fp32.

    Args:
        device: "cuda", "mps", "cpu", ...; by default the machine's.

    Raises:
        BadInput: bitsandbytes cannot be imported, or fails to quantize a small tensor on that device.
    """
    import torch
    from transformers import BitsAndBytesConfig

    found = torch.accelerator.current_accelerator(check_available=True)
    device = device or (found.type if found else "cpu")
    try:
        import bitsandbytes

        bitsandbytes.functional.quantize_4bit(torch.zeros(64, 64, device=device), quant_type="nf4")
    except Exception as problem:  # each backend fails in its own way, some at import
        reason = (str(problem).splitlines() or [type(problem).__name__])[0][:200]
        raise BadInput(
            f"4-bit weights need bitsandbytes, which does not work on {device} here ({reason}); train without "
            "quantization, or use a machine that it supports"
        ) from problem
    if device == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        bf16 = device == "cpu" and devices.cpu_has_bf16()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
    )


def keep_trainable(model: torch.nn.Module) -> int:
    """Keep the 4-bit layers of `model` in the form that training needs, and return how many there are.

    Call it right after `from_pretrained`. On a CPU with AVX-512 BF16, bitsandbytes 0.50 repacks a layer's weights at
    its first forward pass in evaluation mode, for a kernel that passes no gradient on. After the first evaluation,
    layers below it no longer learn, and no message says so. The packed form also rounds the scales to bf16, and fails
    for layers narrower than a block of 64. It is faster, so leave it on where nothing trains.
    """
    layers = list(bitsandbytes_internals.layers_that_pack(model))
    for layer in layers:
        setattr(layer, UNPACKED, False)
    return len(layers)


def packed(model: torch.nn.Module) -> list[str]:
    """Return the names of the 4-bit layers of `model` whose weights are packed for inference (see `keep_trainable`)."""
    weights = ((name, getattr(module, "weight", None)) for name, module in model.named_modules())
    return [name for name, weight in weights if bitsandbytes_internals.is_packed(weight)]


def require_amp(model: torch.nn.Module, fp16: bool) -> None:
    """Raise BadInput if trainable weights of `model` are in fp16 and training uses mixed precision in `fp16`.

    Mixed precision multiplies the loss so that small gradients do not become 0 in fp16, and divides the gradients
    again before the step. The gradients of fp16 weights are in fp16 too, and PyTorch refuses to divide those. A frozen
    base in fp16 is fine: PEFT keeps the adapter in fp32.
    """
    import torch

    half = [n for n, p in model.named_parameters() if p.requires_grad and p.dtype == torch.float16]
    if fp16 and half:
        raise BadInput(
            f"{len(half)} tensors that train are in fp16 ({half[0]}), and with fp16=True PyTorch stops at the first "
            "step ('Attempting to unscale FP16 gradients'); load the model with dtype=torch.float32, or in bf16 and "
            "train with bf16=True"
        )
