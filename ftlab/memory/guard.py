"""A training that this machine's memory cannot hold is refused, before it starts or when it runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ftlab.errors import BadInput
from ftlab.memory import footprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What a RuntimeError says where the CPU's allocator (each system in its words), MPS, or C++ found no memory.
OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "std::bad_alloc")


@contextmanager
def enough_memory(model: PreTrainedModel, *, batch_size: int, length: int, accumulation: int = 1) -> Iterator[None]:
    """Refuse a training that this machine's memory cannot hold, before it starts or when it runs out.

    `length` is the longest row in tokens, `accumulation` in how many pieces a batch is trained on; the model is where
    it will be trained. Raises BadInput with what a step would need (an estimate, see `footprint.training_memory`), what
    there is, and what to change. A system that overcommits kills a process that takes too much, and nothing can be said
    then: hence the look before.
    """
    import torch

    rows = batch_size // accumulation
    needed = footprint.training_memory(model, batch_size=rows, length=length)
    there = footprint.free_memory(model.device)
    smaller = f"batch_size {batch_size // 2}, or a smaller" if rows > 1 and accumulation == 1 else "a smaller"
    advice = f"ask for less: {smaller} max_length (the longest row has {length} tokens)"
    if needed > there:
        raise BadInput(
            f"training {rows} rows of {length} tokens at a time needs about {needed / 1e9:.1f} GB, and "
            f"{there / 1e9:.1f} GB are free; {advice}"
        )
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as problem:
        told = isinstance(problem, (MemoryError, torch.OutOfMemoryError))
        if not told and not any(words in str(problem) for words in OUT_OF_MEMORY):
            raise
        raise BadInput(
            f"training ran out of memory with {rows} rows of up to {length} tokens at a time (about "
            f"{needed / 1e9:.1f} GB were expected, {there / 1e9:.1f} GB were free); {advice}"
        ) from problem
