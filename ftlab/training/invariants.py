"""What must be equal whatever the machine: one step over the same rows, in one piece or in several."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WAYS = ((16, 1), (8, 2), (4, 4))  # rows at a time x times, before the optimizer moves


def accumulation(
    make_model: Callable[[], PreTrainedModel],
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    ways: Sequence[tuple[int, int]] = WAYS,
) -> pd.DataFrame:
    """One optimizer step of Trainer over the same rows, for each way of cutting them: loss and gradient norm.

    Gradient accumulation promises that k batches of n rows make the step that one batch of k x n rows would. The lines
    must agree up to rounding. `make_model` gives a fresh model with the same weights each time; `rows` are tokenized,
    with labels, and the first of them make the step. Dropout is off, since it would draw differently.
    """
    lines = []
    for batch_size, times in ways:
        loss, gradient_norm = _one_step(make_model(), rows.select(range(batch_size * times)), tokenizer, times)
        lines.append({"batch size": batch_size, "accumulation": times, "loss": loss, "gradient norm": gradient_norm})
    return pd.DataFrame(lines)


def spread(table: pd.DataFrame) -> float:
    """By what share the largest loss or gradient norm of an `accumulation` table tops the smallest; 0 is agreement."""
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
            if "dropout" in name and isinstance(value, float):  # ModernBERT's attention has a number and no layer
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
