"""Check gradient accumulation: one optimizer step over the same rows must not depend on the size of the pieces."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WAYS = ((16, 1), (8, 2), (4, 4))  # (rows at a time, times) in one optimizer step


def accumulation(
    make_model: Callable[[], PreTrainedModel],
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    ways: Sequence[tuple[int, int]] = WAYS,
) -> pd.DataFrame:
    """Make one optimizer step of Trainer over the same rows, once for each way of dividing them into pieces.

    With gradient accumulation, k batches of n rows must make the same step as one batch of k x n rows. The lines of the
    table must agree up to rounding. Dropout is off, because it would draw differently.

    Args:
        make_model: makes a new model with the same weights each time.
        rows: tokenized, with labels. The first of them make the step.
        tokenizer: pads the rows.
        ways: (rows at a time, times).

    Returns:
        A line for each of `ways`, with batch size, accumulation, loss and gradient norm.
    """
    lines = []
    for batch_size, times in ways:
        loss, gradient_norm = _one_step(make_model(), rows.select(range(batch_size * times)), tokenizer, times)
        lines.append({"batch size": batch_size, "accumulation": times, "loss": loss, "gradient norm": gradient_norm})
    return pd.DataFrame(lines)


def spread(table: pd.DataFrame) -> float:
    """Return the relative difference of the largest and smallest loss, or gradient norm if that is more, in `table`.

    `table` is that of `accumulation`. 0 means that all its lines agree.

    >>> spread(pd.DataFrame({"loss": [2.0, 2.0], "gradient norm": [1.0, 1.5]}))
    0.5
    """
    measured = table[["loss", "gradient norm"]]
    return float((measured.max() / measured.min() - 1).max())


def _one_step(
    model: PreTrainedModel, rows: Dataset, tokenizer: PreTrainedTokenizerBase, times: int
) -> tuple[float, float]:
    import torch
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "dropout" in name and isinstance(value, float):  # ModernBERT's attention stores a number, not a layer
                setattr(module, name, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder, max_steps=1, per_device_train_batch_size=len(rows) // times,
                gradient_accumulation_steps=times, train_sampling_strategy="sequential", max_grad_norm=1e9,
                logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
            ),
            train_dataset=rows,
            data_collator=DataCollatorWithPadding(tokenizer),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "grad_norm" in entry)
    return float(logged["loss"]), float(logged["grad_norm"])
