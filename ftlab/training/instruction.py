"""A Trainer for instruction tuning that runs the LM head at supervised positions only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainingArguments

from ftlab.data.prompts import IGNORED
from ftlab.errors import BadInput
from ftlab.models import devices, processes

if TYPE_CHECKING:
    import torch

COLUMNS = ["input_ids", "attention_mask", "labels"]  # of the rows that it trains on


def supervised_only(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a batch for a causal language model, with the positions at which its LM head needs to run.

    Position n predicts token n + 1, and -100 marks a token without a label:

    >>> import torch
    >>> ids = torch.tensor([[5, 7, 8]])
    >>> batch = supervised_only({"input_ids": ids, "labels": torch.tensor([[-100, 7, 8]])})
    >>> batch["logits_to_keep"].tolist(), batch["shift_labels"].tolist()
    ([[True, True, False]], [7, 8])

    Args:
        inputs: input_ids, attention_mask and labels, each (rows, tokens).

    Returns:
        `inputs`, with `logits_to_keep`, (rows, tokens) bool: whether the next token has a label; and `shift_labels`,
        (supervised tokens,): these labels in order.

    Raises:
        BadInput: no token is supervised; the loss would be 0 divided by 0. Of several processes that train together
            one may have such a batch: the loss is divided by the tokens of all.
    """
    import torch

    targets = torch.nn.functional.pad(inputs["labels"], (0, 1), value=IGNORED)[:, 1:]
    keep = targets != IGNORED
    if processes.count() == 1 and not keep.any():
        raise BadInput(
            f"none of the {keep.numel():,} tokens of this batch is supervised: every label is {IGNORED}; look at a "
            "row with `prompts.token_view`, and encode rows so that completion and EOS keep their labels"
        )
    return {**inputs, "logits_to_keep": keep, "shift_labels": targets[keep]}


class SupervisedTrainer(Trainer):
    """A Trainer for causal language models that computes logits at supervised positions only (see `supervised_only`).

    The LM head is a matrix of hidden size x vocabulary, and it normally runs at every token. The logits of a masked
    prompt are then thrown away. Loss and gradients equal those of the plain masked loss. Trainer divides the loss by
    the labels of the whole optimizer step, so gradient accumulation is right too.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch, with the outputs of `model` if `return_outputs` is true.

        Args:
            model: a causal language model.
            inputs: input_ids, attention_mask and labels, each (rows, tokens).
            return_outputs: whether to return (loss, outputs).
            num_items_in_batch: labels of the whole optimizer step, by which the loss is divided.
        """
        return super().compute_loss(model, supervised_only(inputs), return_outputs, num_items_in_batch)


def settings(
    folder: Path, *, epochs: float, batch_size: int, learning_rate: float, seed: int, **more: Any
) -> TrainingArguments:
    """Return the training arguments of lesson 04.

    Args:
        folder: for Trainer's files.
        epochs: passes over the rows.
        batch_size: rows in an optimizer step, of all processes together.
        learning_rate: at its peak, after the warm-up.
        seed: of the order of the rows and dropout.
        more: other arguments; they win.
    """
    usual: dict[str, Any] = {
        "output_dir": str(folder), "num_train_epochs": epochs, "learning_rate": learning_rate,
        "per_device_train_batch_size": processes.share_of_step(batch_size)[0], "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1, "train_sampling_strategy": "group_by_length", "save_strategy": "no",
        "prediction_loss_only": True, "seed": seed, "report_to": "none", "disable_tqdm": True,
        **devices.mixed_precision(),
    }  # fmt: skip
    return TrainingArguments(**usual | more)
