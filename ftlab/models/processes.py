"""Several processes of one training, as `accelerate launch` starts them: who is who, and how they stay together.

Without a launcher there is one process, and each function does what one process needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

from ftlab.errors import BadInput, CourseError

Value = TypeVar("Value")

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")  # a launcher sets all; a cluster's own job has a few
ON_CPU = "ACCELERATE_USE_CPU"  # set by accelerate launch and notebook_launcher
FSDP, DEEPSPEED = "FSDP", "DEEPSPEED"
LOADED_BY_ONE = "FSDP_CPU_RAM_EFFICIENT_LOADING"
TRUE = ("1", "true", "yes", "on", "y", "t")  # as accelerate reads it
CPU_CONFIGURATION = "configs/accelerate/two_cpu_processes.yaml"


LONGEST_WAIT = timedelta(hours=3)  # of one process for another, which may be judging or reading a large file


class Agreed(BadInput):
    """A problem of one process or more that each of them knows, so that one of them can tell it."""


def launched() -> bool:
    """Return whether a launcher started this process, alone or with others."""
    return all(name in os.environ for name in LAUNCHED)


def count() -> int:
    """Return how many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def index() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ["RANK"]) if launched() else 0


def count_here() -> int:
    """Return how many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched() else 1


def is_first_here() -> bool:
    """Return whether this is the first process of this machine, which downloads for the others."""
    return not launched() or int(os.environ["LOCAL_RANK"]) == 0


def strategy() -> str:
    """Return what shards the model over the processes: FSDP, DEEPSPEED, or "": each process has all of it."""
    for name in (FSDP, DEEPSPEED):
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in TRUE:
            return name
    return ""


def load_in_each_process() -> None:
    """Let each process read the weights of a model itself, where FSDP is configured to read them in one alone.

    A model with a new head needs it. Read by one process, its parameters have no memory in the others, and accelerate
    confuses those of the head in the optimizer. Call it before the model is loaded.
    """
    os.environ[LOADED_BY_ONE] = "false"


def is_main() -> bool:
    """Return whether this is the process that writes files and prints."""
    return index() == 0


def keep_to_cpu() -> bool:
    """Return whether a launcher has told the processes to compute on CPUs."""
    return os.environ.get(ON_CPU, "").lower() in TRUE


def join() -> None:
    """Meet the other processes: over NCCL if each has a GPU, or over gloo if they are to compute on CPUs.

    Raises:
        Agreed: the configuration and the machine do not fit: GPUs are asked for that it does not have. accelerate
            itself goes on without a word, and each process then trains for itself.
    """
    if not launched():
        return
    import torch
    from accelerate import PartialState

    gpus = torch.cuda.device_count()
    if count() > 1 and not keep_to_cpu() and count_here() > gpus:
        raise Agreed(
            f"the launcher started {count_here()} processes on this machine, one for each GPU, and it has "
            f"{gpus or 'none'}; start as many as it has (--num_processes), or train on CPUs: "
            f"{ON_CPU}=true accelerate launch --multi_gpu --config_file {CPU_CONFIGURATION}"
        )
    PartialState(cpu=keep_to_cpu(), timeout=LONGEST_WAIT)


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
        if count() == 1 or isinstance(met, Agreed):
            raise
        problem = met
    _agree(problem, named=True)


class _Said(NamedTuple):
    """What a process says at a meeting: its problem, if it has one."""

    problem: str | None


def _agree(problem: CourseError | None, *, named: bool) -> None:
    """Raise Agreed in each process if one of them has a `problem`; if `named`, the sentence says which."""
    if count() == 1:
        return
    told = [said.problem for said in gathered(_Said(str(problem) if problem else None))]
    if found := [number for number, sentence in enumerate(told) if sentence]:
        first = told[found[0]]
        alone = named and any(sentence != first for sentence in told)
        raise Agreed(f"process {found[0]} of {count()}: {first}" if alone else first) from problem


def gathered(value: Value) -> list[Value]:
    """Return the `value` of each process, in the order of their numbers; it is pickled on its way."""
    if count() == 1:
        return [value]
    from accelerate.utils import gather_object

    join()
    return gather_object([value])


def from_main(make: Callable[[], Value]) -> Value:
    """Return what `make` returns in the main process, in each of them. An error of it is raised in each, too."""
    if count() == 1:
        return make()
    made: list[Any] = [None]
    problem = None
    if is_main():
        try:
            made[0] = make()
        except CourseError as met:
            problem = met
    _agree(problem, named=False)
    from accelerate.utils import broadcast_object_list

    broadcast_object_list(made)
    return made[0]


def require_same(what: str, value: str) -> None:
    """Raise Agreed if the `value` of a process is not that of the main one; `what` is what it belongs to."""
    values = gathered(value)
    if others := [number for number, other in enumerate(values) if other != values[0]]:
        raise Agreed(
            f"process {others[0]} of {count()} has other {what} than process 0; every machine needs the same files, of "
            "the same version"
        )


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


def share_of_step(batch_size: int, accumulation: int = 1) -> tuple[int, int]:
    """Return how one process computes its share of a step: the rows at a time, and how many times.

    The rows of all processes together are those of one process: `batch_size` at a time, `accumulation` times. A process
    takes no more of them at a time than one process would.

    >>> share_of_step(16), share_of_step(4, accumulation=2)  # one process
    ((16, 1), (4, 2))

    Raises:
        BadInput: the rows of a step cannot be divided among the processes.
    """
    rows = batch_size * accumulation
    if rows % count():
        product = f"batch_size {batch_size}" + (f" x accumulation {accumulation}" if accumulation > 1 else "")
        fitting = max(count(), rows - rows % count())
        raise BadInput(
            f"a step has {rows} rows ({product}), and {count()} processes cannot share them equally; expected a "
            f"multiple of {count()}, for example {fitting}: set batch_size, or start another number of processes"
        )
    own = rows // count()
    times = next(times for times in range(1, own + 1) if not own % times and own // times <= batch_size)
    return own // times, times
