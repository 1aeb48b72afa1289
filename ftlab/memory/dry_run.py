"""A dry run of one training step on PyTorch's meta device: counts its memory and FLOPs.

Tensors on the meta device have a shape but no values. They run a model's own code, forward and backward, without memory
and without arithmetic. A `StepCounter` adds the bytes of each new tensor and subtracts them when the tensor is freed.
So it counts what a layer keeps for its backward pass, for any architecture, without constants. Korthikanti et al.
(Reducing Activation Recomputation in Large Transformer Models, 2022) count the same by hand for one architecture.
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
    """The memory of one training step in bytes, without weights and optimizer, and its FLOPs."""

    activations: int  # kept by the forward pass of the body
    logits: int  # what the head and the loss add at their peak
    peak: int  # of activations, logits and gradients together
    flops: int  # of matrix products and attention, forward and backward
    moved: int  # bytes that all other operations read and write


class StepCounter(TorchDispatchMode):
    """A context that counts FLOPs, and the bytes of all tensors, now and at the peak, except the tensors of `model`."""

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.now = self.peak = self.flops = self.moved = 0
        self.storages = WeakIdKeyDictionary()
        for tensor in () if model is None else (*model.parameters(), *model.buffers()):
            self.storages[tensor.untyped_storage()] = None  # known, so not counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count its outputs."""
        out = func(*args, **(kwargs or {}))
        inputs = [value for value in args if isinstance(value, torch.Tensor)]
        outputs = [
            value for value in (out if isinstance(out, (tuple, list)) else (out,)) if isinstance(value, torch.Tensor)
        ]
        new = [self._count_if_new(tensor) for tensor in outputs]
        flops = _flops(func, args, kwargs or {}, out)
        self.flops += flops
        if not flops and (any(new) or torch_dispatch.writes_to_its_inputs(func)):  # else a view, which moves no bytes
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in (*inputs, *outputs))
        return out

    def _count_if_new(self, tensor: torch.Tensor) -> bool:
        storage = tensor.untyped_storage()
        if storage in self.storages:
            return False
        self.storages[storage] = None
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._subtract, size).atexit = False
        return True

    def _subtract(self, size: int) -> None:
        self.now -= size


class Kernels(TorchFunctionMode):
    """A context in which the meta device uses the kernels of `device`, "cuda" or "cpu".

    Fused attention keeps no matrix of attention weights. CUDA always uses it; a CPU does so without attention dropout.
    A dropout mask takes one byte per value on CUDA, and as many bytes as the values on a CPU.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.on_cuda = device == "cuda"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace attention and dropout; return True for tests of a value, which the meta device cannot do."""
        kwargs = kwargs or {}
        if func is torch.Tensor.__bool__:  # code for masks tests whether a batch has no padding
            return True
        if func is functional.scaled_dot_product_attention and (self.on_cuda or not kwargs.get("dropout_p")):
            return _fused_attention(*args, **kwargs)
        if func is functional.dropout and self.on_cuda:
            return _dropout_on_cuda(*args, **kwargs)
        return func(*args, **kwargs)


def enable_checkpointing(model: Any, device: str) -> None:
    """Make `model`, on the meta device, keep only the inputs of its layers; the backward pass runs each layer again.

    `device` is the device whose kernels the second run uses (see `Kernels`).
    """
    kernels = {"context_fn": lambda: (nullcontext(), Kernels(device))}  # a backward pass runs outside the contexts
    model.activation_checkpointing_enable({"use_reentrant": False, **kernels})


def count_step(
    model: Any, head: nn.Module | None, *, batch_size: int, length: int, supervised: int, padded: bool, device: str
) -> Step:
    """Run one training step on the meta device, and count its memory and FLOPs.

    Args:
        model: on the meta device; it is set to training mode.
        head: the LM head of a language model, or None for a classifier.
        batch_size: rows.
        length: tokens of each row.
        supervised: positions of each row on which the LM head runs.
        padded: the rows have different lengths, so attention gets a mask; the fused kernel needs it as numbers, which
            each layer makes again.
        device: "cuda" or "cpu": whose kernels are counted (see `Kernels`).

    Returns:
        The counts of the step.
    """
    model.train()
    body_kept = logits_peak = 0
    counter = StepCounter(model)
    hooks = []
    if head is not None:

        def before_head(module: nn.Module, inputs: Any) -> None:
            nonlocal body_kept
            body_kept = counter.now

        def after_head(module: nn.Module, inputs: Any, logits: torch.Tensor) -> None:
            logits.register_hook(after_backward_of_loss)

        def after_backward_of_loss(gradient: torch.Tensor) -> None:
            nonlocal logits_peak
            logits_peak = counter.peak

        hooks = [head.register_forward_pre_hook(before_head), head.register_forward_hook(after_head)]
    with torch.device("meta"):
        batch = _batch(batch_size, length, supervised if head is not None else None, padded)
    try:
        with Kernels(device), counter:
            loss = model(**batch).loss
            if head is None:
                body_kept = logits_peak = counter.now
            loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    return Step(body_kept, max(0, logits_peak - body_kept), counter.peak, counter.flops, counter.moved)


def _batch(batch_size: int, length: int, supervised: int | None, padded: bool) -> dict[str, Any]:
    """Inputs of a language model with a loss at `supervised` positions of each row, or of a classifier (None)."""
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
    """Attention that keeps its output and one number for each row of the attention weights, as a fused kernel does."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = query.new_empty(attn_mask.shape)
    return torch_dispatch.fused_attention_on_cpu(
        query, key, value, is_causal=more.get("is_causal", False), attn_mask=attn_mask, scale=more.get("scale")
    )


def _dropout_on_cuda(
    values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    return torch.native_dropout(values, p, True)[0] if training and p > 0 else values


def _flops(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    """FLOPs of a matrix product or of attention; 0 for everything else."""
    name = torch_dispatch.name_of(func)
    if "flash_attention_for_cpu" in name:
        # Two products of this size forward and five backward, which computes the attention weights again (Dao,
        # FlashAttention-2, 2023). With a causal mask a kernel can skip up to half of them; that is not counted here.
        query, key = (args[1], args[2]) if "backward" in name else (args[0], args[1])
        product = 2 * query.numel() * key.shape[-2]
        return (5 if "backward" in name else 2) * product
    return torch_dispatch.flops(func, args, kwargs, out)
