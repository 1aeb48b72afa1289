"""Training with weights in few bits: 4-bit weights that stay trainable on a CPU, and fp16 that cannot be trained.

bitsandbytes quantizes and transformers loads; what both leave unsaid is said here.
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
    """NF4 weights with double quantization (QLoRA, Dettmers et al., 2023), for `from_pretrained`.

    Computed in bf16 where the device has it, else in fp32. `device` is "cuda", "mps", "cpu", ...: by default the
    machine's. Raises BadInput where bitsandbytes cannot be imported or cannot quantize on that device: it is tried,
    on one small tensor.
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
    """Keep 4-bit layers in the form that training needs, and return how many there are.

    Call it right after `from_pretrained`. On a CPU with AVX-512 BF16, bitsandbytes 0.50 packs a layer's weights anew
    when it first answers in evaluation mode, for a kernel that passes no gradient on: what trains below such a layer
    learns nothing any more after the first evaluation, without a word. The packed form also rounds the scales to
    bf16, and fails for layers narrower than a block of 64. It answers faster; leave it on where nothing trains.
    """
    layers = list(bitsandbytes_internals.layers_that_pack(model))
    for layer in layers:
        setattr(layer, UNPACKED, False)
    return len(layers)


def packed(model: torch.nn.Module) -> list[str]:
    """The names of the 4-bit layers whose weights were packed for inference (see `keep_trainable`)."""
    weights = ((name, getattr(module, "weight", None)) for name, module in model.named_modules())
    return [name for name, weight in weights if bitsandbytes_internals.is_packed(weight)]


def require_amp(model: torch.nn.Module, fp16: bool) -> None:
    """Raise BadInput when weights in fp16 would train under fp16 mixed precision. Give it the model that trains.

    Mixed precision multiplies the loss so that small gradients survive fp16, and divides the gradients again before
    the step; those of fp16 weights are fp16 themselves, where that division overflows, so PyTorch stops. A frozen
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
