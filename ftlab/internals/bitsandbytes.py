"""Private names of bitsandbytes: the switch that packs 4-bit weights on a CPU, and what a quantized weight consists of.

bitsandbytes documents its layers and its functions, and neither the state of a quantized weight nor the packed form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# A 4-bit layer packs its weight for inference on a CPU with AVX-512 BF16 unless this attribute is False.
UNPACKED = "support_avx512bf16_for_cpu"


def layers_that_pack(model: torch.nn.Module) -> Iterator[Any]:
    """Yield the 4-bit layers of `model`, which have the switch UNPACKED."""
    return (module for module in model.modules() if hasattr(module, UNPACKED))


def is_4bit(tensor: Any) -> bool:
    """Return whether `tensor` is a weight in 4 bits."""
    return hasattr(tensor, "quant_state")


def is_quantized_to_4bit(tensor: Any) -> bool:
    """Return whether `tensor` is a weight in 4 bits whose values have been quantized already."""
    return getattr(tensor, "quant_state", None) is not None


def is_packed(tensor: Any) -> bool:
    """Return whether `tensor` is a 4-bit weight that was packed for inference on a CPU."""
    return bool(getattr(getattr(tensor, "quant_state", None), "packing_format_for_cpu", False))


def scales(weight: Any) -> torch.Tensor | None:
    """Return the scales of a 4-bit `weight` in floats: of its blocks, or what double quantization is offset by."""
    state = weight.quant_state
    return state.offset if state.nested else state.absmax


def is_4bit_of(weight: Any, stored: torch.Tensor) -> bool:
    """Return whether the 4-bit `weight` is `stored` (out, in), quantized in the way of that weight."""
    import torch
    from bitsandbytes import functional

    state, packed = weight.quant_state, is_packed(weight)
    data, made = functional.quantize_4bit(
        stored.to(weight.device, state.original_dtype if packed else state.dtype).contiguous(),
        blocksize=weight.blocksize,
        compress_statistics=weight.compress_statistics,
        quant_type=weight.quant_type,
        quant_storage=weight.quant_storage,
    )
    if packed:
        data, made = functional._convert_weight_packed_for_cpu(data, made)
    return torch.equal(data, weight.data) and torch.equal(made.absmax, state.absmax)


def is_8bit_of(weight: Any, layer: Any, stored: torch.Tensor) -> bool:
    """Return whether the 8-bit `weight` of `layer` is `stored` (out, in), quantized."""
    import torch
    from bitsandbytes import functional

    data, made, _ = functional.int8_vectorwise_quant(stored.to(weight.device, torch.float16).contiguous())
    known = weight.SCB if getattr(weight, "SCB", None) is not None else layer.state.SCB
    return torch.equal(data, weight.data) and (known is None or torch.equal(made, known.to(made.device)))
