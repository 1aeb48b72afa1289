"""What accelerate has no public way for: FSDP on CPUs."""

from __future__ import annotations


def shard_on_cpus() -> None:
    """Let FSDP shard a model over processes on CPUs, for a try without GPUs; call it before Accelerator is made.

    accelerate reads the FSDP settings for GPUs and their like alone. Told to use CPUs, it goes on without a word, and
    each process holds the whole model. FSDP2 itself works over gloo, so the processes are noted as such of GPUs.
    """
    from accelerate import DistributedType, PartialState

    PartialState(cpu=True).distributed_type = DistributedType.MULTI_GPU
