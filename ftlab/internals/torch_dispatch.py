"""Private names of PyTorch that see each operation: its dispatch mode, what an operation is, and its FLOPs.

PyTorch's notes on extending it name the two modes, although the one for dispatch is imported from a private module.
`FlopCounterMode`, the public counter, counts FLOPs and no memory, and has no formula for fused attention on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary  # `weakref.WeakKeyDictionary` compares keys by value

__all__ = [
    "TorchDispatchMode", "TorchFunctionMode", "WeakIdKeyDictionary", "flops", "fused_attention_on_cpu",
    "name_of", "writes_to_its_inputs",
]  # fmt: skip


def writes_to_its_inputs(operation: Any) -> bool:
    """Return whether `operation`, as a dispatch mode gets it, changes a tensor that it is given."""
    return bool(operation._schema.is_mutable)


def name_of(operation: Any) -> str:
    """Return the name of `operation` without its overload: "mm" for aten.mm.default."""
    return operation._overloadpacket.__name__


def flops(operation: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Return the FLOPs of `operation` with `args` and `kwargs` that gave `out`, by PyTorch's formula; 0 without one."""
    counted = flop_registry.get(operation._overloadpacket)
    return int(counted(*args, **kwargs, out_val=out)) if counted else 0


def fused_attention_on_cpu(query: Any, key: Any, value: Any, *, is_causal: bool, attn_mask: Any, scale: Any) -> Any:
    """Return the output of the fused CPU kernel for `query`, `key` and `value` (rows, heads, tokens, width).

    `is_causal`, `attn_mask` and `scale` are those of `scaled_dot_product_attention`, which picks a kernel by the device
    of its inputs: on the meta device, the one that is not fused.
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]
