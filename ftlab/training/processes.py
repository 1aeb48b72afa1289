"""Several processes of one training, as `accelerate launch` starts them: who is who, and how they stay together.

Without a launcher there is one process, and each function does what one process needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from ftlab.errors import BadInput, CourseError

Value = TypeVar("Value")


class Agreed(BadInput):
    """A problem of one process or more that each of them knows, so that one of them can tell it."""


def count() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def index() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Return whether this is the process that writes files and prints."""
    return index() == 0


def join() -> None:
    """Meet the other processes: over NCCL if each has a GPU, or over gloo if they are to compute on CPUs.

    Raises:
        BadInput: the configuration and the machine do not fit: GPUs are asked for that it does not have. accelerate
            itself goes on without a word, and each process then trains for itself.
    """
    if "LOCAL_RANK" not in os.environ:
        return
    import torch
    from accelerate import PartialState

    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if not on_cpu and here > gpus:
        raise Agreed(
            f"the configuration starts {here} processes on the GPUs of this machine, and it has {gpus or 'none'}; "
            f"start as many as it has (--num_processes), or train on CPUs: set ACCELERATE_USE_CPU=true and take "
            "configs/accelerate/two_cpu_processes.yaml"
        )
    PartialState(cpu=on_cpu)


@contextmanager
def together() -> Iterator[None]:
    """Return a context in which each process works for itself, and after which all of them go on, or none.

    A process that ended alone would leave the others waiting for it.

    Raises:
        Agreed: one of the processes has met a CourseError; the sentence names the process, unless all have met it.
    """
    problem = None
    try:
        yield
    except CourseError as met:
        if count() == 1:
            raise
        problem = met
    if count() == 1:
        return
    told = gathered(problem and str(problem))
    if found := [number for number, sentence in enumerate(told) if sentence]:
        first = told[found[0]]
        where = "" if all(sentence == first for sentence in told) else f"process {found[0]} of {count()}: "
        raise Agreed(f"{where}{first}") from problem


def gathered(value: Value) -> list[Value]:
    """Return the `value` of each process, in the order of their numbers; it is pickled on its way."""
    if count() == 1:
        return [value]
    from accelerate.utils import gather_object

    return gather_object([value])


def from_main(make: Callable[[], Value]) -> Value:
    """Return what `make` returns in the main process, in each of them. An error of it is raised in each, too."""
    made: list[Any] = [None]
    with together():
        if is_main():
            made[0] = make()
    if count() > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(made)
    return made[0]


def share(rows: Sequence[Any]) -> range:
    """Return the places of the `rows` that are this process's share."""
    return range(index(), len(rows), count())


def joined(parts: Sequence[Sequence[Value]]) -> list[Value]:
    """Return the rows of all `parts`, the shares of the processes, in their order: `share` undone.

    >>> joined([["a", "c", "e"], ["b", "d"]])
    ['a', 'b', 'c', 'd', 'e']
    """
    whole: list[Any] = [None] * sum(map(len, parts))
    for number, part in enumerate(parts):
        whole[number :: len(parts)] = part
    return whole


def batch_of_each(batch_size: int) -> int:
    """Return the rows of one process in a step of `batch_size` rows.

    Raises:
        BadInput: the batch cannot be divided among the processes.
    """
    if batch_size % count():
        fitting = max(count(), batch_size - batch_size % count())
        raise BadInput(
            f"batch_size is {batch_size}, and {count()} processes cannot share it equally; expected a multiple of "
            f"{count()}, for example {fitting}"
        )
    return batch_size // count()
