"""Settings of a Trainer that depend on the machine: precision, gradient accumulation, speed, and free memory.

`arguments` goes into TrainingArguments, and `prepared` around `trainer.train()`. Neither changes what is learned: the
step is that of the whole batch, and the model's outputs are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.memory.guard import enough_memory
from ftlab.models import devices, processes
from ftlab.training import cpu_speed
from ftlab.training.callbacks import LiveProgress, StopWhenNotFinite

if TYPE_CHECKING:
    from transformers import Trainer


def arguments(*, batch_size: int, longest: int | None, precision: Mapping[str, bool] | None = None) -> dict[str, Any]:
    """Return the arguments of TrainingArguments that depend on the machine: the precision, and the pieces of a batch.

    Args:
        batch_size: rows in an optimizer step.
        longest: tokens of the longest row; None to take a batch whole.
        precision: `devices.mixed_precision()` unless given.

    Returns:
        The `precision` (fp16, bf16 and use_cpu); for this process's share of the batch per_device_train_batch_size and
        gradient_accumulation_steps (`cpu_speed.pieces`: on a CPU a batch of long rows is faster in pieces). More than
        one piece needs a model with `accepts_loss_kwargs = False` (see `invariants.accumulation`).

    Raises:
        BadInput: several processes cannot share the batch equally.
    """
    precision = devices.mixed_precision() if precision is None else precision
    own, _ = processes.share_of_step(batch_size)
    accumulation = 1 if longest is None else cpu_speed.pieces(own, length=longest, precision=precision)
    return {
        "per_device_train_batch_size": own // accumulation,
        "gradient_accumulation_steps": accumulation,
        **precision,
    }


@contextmanager
def prepared(
    trainer: Trainer,
    *,
    max_length: int | None,
    progress_in: Path | None = None,
    what: str = "training",
    guard_memory: bool = False,
    quick_dropout: bool = True,
) -> Iterator[None]:
    """Inside the block, `trainer.train()` is fast on a CPU, reports its step, and stops when it cannot succeed.

    Attention and dropout are computed in the way that is fastest on a CPU (`cpu_speed`). Training stops with an error
    when the logits are NaN or infinite (`StopWhenNotFinite`). Afterwards the callbacks and the mixed precision, which
    Trainer leaves in `model.forward`, are removed.

    Args:
        trainer: a Trainer, or a subclass such as TRL's SFTTrainer, that has not trained yet.
        max_length: tokens at which rows were cut; None if no attention trains, and it stays as it is.
        progress_in: a folder for the file with the current step, which `ftlab run` shows; None for no file.
        what: the name of this training, shown beside its step.
        guard_memory: refuse a step that the free memory cannot hold (`guard.enough_memory`).
        quick_dropout: false keeps PyTorch's dropout, which draws other values from the same seed.

    Yields:
        Nothing.

    Raises:
        BadInput: the free memory is too small for a step, or runs out.
        TrainingFailed: the logits are NaN or infinite.
    """
    from transformers import PrinterCallback

    model: Any = trainer.model
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    precision = {"bf16": trainer.args.bf16, "fp16": trainer.args.fp16, "use_cpu": trainer.args.use_cpu}
    watchers = [
        StopWhenNotFinite(),
        *([LiveProgress(progress_in, what)] if progress_in and processes.is_main() else []),
    ]
    if trainer.args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)  # it prints each entry of the log, which the notebook plots
    with ExitStack() as around:
        for watcher in watchers:
            trainer.add_callback(watcher)
            around.callback(trainer.remove_callback, watcher)
        if guard_memory:
            accumulation = trainer.args.gradient_accumulation_steps
            rows: Any = trainer.train_dataset
            around.enter_context(
                enough_memory(
                    model,
                    batch_size=trainer.args.per_device_train_batch_size * accumulation,
                    length=max(map(len, rows["input_ids"])) if hasattr(rows, "column_names") else max_length or 1,
                    accumulation=accumulation,
                )
            )
        if max_length is not None:
            around.enter_context(cpu_speed.quick_attention(plain, max_length=max_length, precision=precision))
        if quick_dropout:
            around.enter_context(cpu_speed.quick_dropout(plain))
        around.callback(trainer.accelerator.unwrap_model, model, keep_fp32_wrapper=False)
        yield
