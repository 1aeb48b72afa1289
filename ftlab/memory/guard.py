"""Out of memory: refuse a training that does not fit, before it starts or when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ftlab.errors import BadInput
from ftlab.memory import footprint
from ftlab.models import processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Parts of a RuntimeError that means out of memory: of the CPU's allocator (the rest differs by system), of MPS or CUDA,
# and of C++.
OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "std::bad_alloc")


@contextmanager
def enough_memory(model: PreTrainedModel, *, batch_size: int, length: int, accumulation: int = 1) -> Iterator[None]:
    """Return a context that refuses a training which does not fit, before it starts or when memory runs out.

    A system that overcommits memory kills a process that uses too much, without an error. So an estimate
    (`footprint.training_memory`) is compared with the free memory first.

    Args:
        model: on the device on which it will be trained.
        batch_size: rows per optimizer step.
        length: tokens of the longest row.
        accumulation: number of pieces of equal size into which a batch is divided.

    Raises:
        BadInput: the estimate exceeds the free memory, or the training runs out of memory; the message has both
            numbers and says what to change.
    """
    rows = batch_size // accumulation
    needed = footprint.training_memory(model, batch_size=rows, length=length)
    free = footprint.free_memory(model.device)
    if model.device.type != "cuda":
        free //= processes.count_here()  # all of them train in the memory of this machine
    smaller = f"batch_size {batch_size // 2}, or a smaller" if rows > 1 and accumulation == 1 else "a smaller"
    advice = f"use {smaller} max_length (the longest row has {length} tokens)"
    if needed > free:
        raise BadInput(
            f"training {rows} rows of {length} tokens at a time needs about {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free; {advice}"
        )
    expected = f" (about {needed / 1e9:.1f} GB were expected, {free / 1e9:.1f} GB were free)"
    with out_of_memory(rows=rows, length=length, expected=expected, advice=advice):
        yield


@contextmanager
def out_of_memory(
    *, rows: int, length: int, expected: str = "", advice: str = "use a smaller batch_size or max_length"
) -> Iterator[None]:
    """Return a context in which a training that runs out of memory ends with one sentence.

    Args:
        rows: of one piece of a batch.
        length: tokens of the longest row.
        expected: what was expected, in parentheses.
        advice: what to do.

    Raises:
        BadInput: the training ran out of memory.
    """
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as problem:
        by_type = isinstance(problem, (MemoryError, torch.OutOfMemoryError))
        if not by_type and not any(words in str(problem) for words in OUT_OF_MEMORY):
            raise
        raise BadInput(
            f"training ran out of memory with {rows} rows of up to {length} tokens at a time{expected}; {advice}"
        ) from problem
