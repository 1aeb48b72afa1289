"""A training step on tensors that have a shape and no values: what it would hold and compute, counted as it happens.

PyTorch's meta device runs a model's real code, forward and backward, without memory and without arithmetic. A ledger
writes down every tensor when it is made and strikes it out when nothing needs it any more, so what a layer keeps for
its backward pass is counted in the layer's own code, for any architecture, and no constant has to be known for it.
Korthikanti et al. (Reducing Activation Recomputation in Large Transformer Models, 2022) count the same by hand for one
architecture.
"""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ftlab.internals import torch_dispatch
from ftlab.internals.torch_dispatch import TorchDispatchMode, TorchFunctionMode, WeakIdKeyDictionary


@dataclass(frozen=True)
class Step:
    """What one training step holds beside weights and optimizer, in bytes, and what it computes."""

    activations: int  # kept by the forward pass of the body
    logits: int  # what the head and the loss add to that at most
    peak: int  # activations, logits and gradients together, when they are most
    flops: int  # of matrix products and attention, forward and backward
    moved: int  # bytes that all other operations read and write


class Ledger(TorchDispatchMode):
    """Counts the bytes of tensors that are there, their peak, and the operations of what runs inside it."""

    def __init__(self, known: nn.Module | None = None) -> None:
        super().__init__()
        self.now = self.peak = self.flops = self.moved = 0
        self.storages = WeakIdKeyDictionary()
        for tensor in () if known is None else (*known.parameters(), *known.buffers()):
            self.storages[tensor.untyped_storage()] = None  # there before, and not counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and write down what it made."""
        out = func(*args, **(kwargs or {}))
        given = [value for value in args if isinstance(value, torch.Tensor)]
        made = [
            value for value in (out if isinstance(out, (tuple, list)) else (out,)) if isinstance(value, torch.Tensor)
        ]
        new = [self._wrote_down(tensor) for tensor in made]
        flops = _flops(func, args, kwargs or {}, out)
        self.flops += flops
        if not flops and (any(new) or torch_dispatch.writes_to_its_inputs(func)):  # else a view, which touches nothing
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in (*given, *made))
        return out

    def _wrote_down(self, tensor: torch.Tensor) -> bool:
        storage = tensor.untyped_storage()
        if storage in self.storages:
            return False
        self.storages[storage] = None
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._struck_out, size).atexit = False
        return True

    def _struck_out(self, size: int) -> None:
        self.now -= size


class Kernels(TorchFunctionMode):
    """Makes the meta device compute in the way of a real one, which picks other kernels.

    Attention is fused, without a matrix of its weights, as on CUDA always and on a CPU where no dropout falls on that
    matrix. Dropout keeps a mask of one byte for each value on CUDA, and of the size of a value on a CPU.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.on_cuda = device == "cuda"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Redirect attention and dropout; answer what depends on values."""
        kwargs = kwargs or {}
        if func is torch.Tensor.__bool__:  # masks ask whether all is as in a batch without padding: it is
            return True
        if func is functional.scaled_dot_product_attention and (self.on_cuda or not kwargs.get("dropout_p")):
            return _fused_attention(*args, **kwargs)
        if func is functional.dropout and self.on_cuda:
            return _dropout_on_cuda(*args, **kwargs)
        return func(*args, **kwargs)


def checkpoint(outline: Any, device: str) -> None:
    """Make an outline keep only the inputs of its layers, and run each layer once more on the way back."""
    kernels = {"context_fn": lambda: (nullcontext(), Kernels(device))}  # a backward pass runs outside of modes
    outline.activation_checkpointing_enable({"use_reentrant": False, **kernels})


def rehearse(
    model: Any, head: nn.Module | None, *, batch_size: int, length: int, supervised: int, padded: bool, device: str
) -> Step:
    """One step of a model on the meta device: a language model with its `head`, or a classifier (None).

    The head runs on `supervised` positions of each row. Rows of several lengths are `padded`, and then attention gets
    a mask, which the fused kernel wants as numbers, made anew in each layer.
    """
    model.train()
    body_kept = logits_peak = 0
    ledger = Ledger(model)
    hooks = []
    if head is not None:

        def head_begins(module: nn.Module, inputs: Any) -> None:
            nonlocal body_kept
            body_kept = ledger.now

        def head_has_run(module: nn.Module, inputs: Any, logits: torch.Tensor) -> None:
            logits.register_hook(loss_has_gone_backward)

        def loss_has_gone_backward(gradient: torch.Tensor) -> None:
            nonlocal logits_peak
            logits_peak = ledger.peak

        hooks = [head.register_forward_pre_hook(head_begins), head.register_forward_hook(head_has_run)]
    with torch.device("meta"):
        batch = _batch(batch_size, length, supervised if head is not None else None, padded)
    try:
        with Kernels(device), ledger:
            loss = model(**batch).loss
            if head is None:
                body_kept = logits_peak = ledger.now
            loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    return Step(body_kept, max(0, logits_peak - body_kept), ledger.peak, ledger.flops, ledger.moved)


def _batch(batch_size: int, length: int, supervised: int | None, padded: bool) -> dict[str, Any]:
    """Inputs of a language model that learns at `supervised` positions of each row, or of a classifier (None)."""
    batch: dict[str, Any] = {"input_ids": torch.zeros((batch_size, length), dtype=torch.long)}
    if padded:
        batch["attention_mask"] = torch.ones((batch_size, 1, length, length), dtype=torch.bool)
    if supervised is None:
        return {**batch, "labels": torch.zeros(batch_size, dtype=torch.long)}
    batch["labels"] = batch["input_ids"]
    if supervised < length:
        batch["shift_labels"] = torch.zeros((batch_size, supervised), dtype=torch.long)
        batch["logits_to_keep"] = supervised
    return batch


def _fused_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, **more: Any
) -> Any:
    """What a fused kernel makes and keeps: the output and one number for each row of the matrix of weights."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = query.new_empty(attn_mask.shape)
    return torch_dispatch.fused_attention_on_cpu(
        query, key, value, is_causal=more.get("is_causal", False), attn_mask=attn_mask, scale=more.get("scale")
    )


def _dropout_on_cuda(given: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    return torch.native_dropout(given, p, True)[0] if training and p > 0 else given


def _flops(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    """FLOPs of a matrix product or of attention; 0 for everything else."""
    name = torch_dispatch.name_of(func)
    if "flash_attention_for_cpu" in name:
        # Forward two products of this size; backward five, since the weights are computed once more (Dao,
        # FlashAttention-2, 2023). A causal mask leaves half of it out in the best case, which is not counted here.
        query, key = (args[1], args[2]) if "backward" in name else (args[0], args[1])
        product = 2 * query.numel() * key.shape[-2]
        return (5 if "backward" in name else 2) * product
    return torch_dispatch.flops(func, args, kwargs, out)
