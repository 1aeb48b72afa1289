"""TRL's SFTTrainer with the LM head at supervised positions only; `instruction` has the same for Trainer.

It is a module of its own because TRL takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import Trainer, set_seed
from trl import SFTConfig, SFTTrainer

from ftlab.adapters.quantized import require_amp
from ftlab.data.prompts import IGNORED
from ftlab.errors import BadInput
from ftlab.internals import transformers as transformers_internals
from ftlab.models import devices, processes
from ftlab.training import machine
from ftlab.training.distributed import trainer_class
from ftlab.training.instruction import supervised_only

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


COLUMNS = ["input_ids", "labels"]  # of the rows that it trains on


def require_whole(rows: Dataset, max_length: int | None) -> None:
    """Raise BadInput if one of `rows` is longer than `max_length`, or has no token that is supervised."""
    for number, (ids, labels) in enumerate(zip(rows["input_ids"], rows["labels"], strict=True)):
        if max_length is not None and len(ids) > max_length:
            raise BadInput(
                f"row {number} of {len(rows):,} has {len(ids)} tokens, and max_length is {max_length}: its end, with "
                "EOS, would be cut off; raise max_length, or encode the rows with this one"
            )
        if all(label == IGNORED for label in labels[1:]):
            raise BadInput(
                f"row {number} of {len(rows):,} has no token that is supervised: every label is {IGNORED}; look at it "
                "with `prompts.token_view`, and encode rows so that completion and EOS keep their labels"
            )


class SupervisedSFTTrainer(SFTTrainer):
    """SFTTrainer with the loss of `SupervisedTrainer`: TRL's own skips masked positions on a GPU, but not on a CPU.

    Loss and gradients are the same. TRL's other metrics (entropy, token accuracy) are missing, because they need the
    logits at all positions.

    Args:
        model: a causal language model.
        args: the training arguments.
        train_dataset: with input_ids and labels (`prompts.encode`).
        eval_dataset: the same.
        more: other arguments of SFTTrainer.

    Raises:
        BadInput: a row is longer than `max_length` (TRL would cut off its end, with EOS), or has no token that is
            supervised (TRL would leave it out).
    """

    def __init__(
        self, model: Any, args: SFTConfig, *, train_dataset: Dataset, eval_dataset: Dataset | None = None, **more: Any
    ) -> None:
        for rows in filter(None, (train_dataset, eval_dataset)):
            require_whole(rows, args.max_length)
        super().__init__(model, args, train_dataset=train_dataset, eval_dataset=eval_dataset, **more)

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
        batch = {**supervised_only(inputs), "use_cache": False}
        loss, outputs = Trainer.compute_loss(self, model, batch, True, num_items_in_batch)
        if self.aux_loss_enabled and num_items_in_batch is not None and self.model.training:
            # The model adds the loss of its router to each batch of a step, and Trainer multiplies both by the number
            # of processes. As in TRL, the step has the mean over its batches.
            times = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            too_often = times - 1 / self.current_gradient_accumulation_steps
            loss = loss - too_often * self.router_aux_loss_coef * outputs.aux_loss
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Return (loss, None, None) for the batch `inputs`: evaluation of `model` needs no logits.

        `prediction_loss_only` and `ignore_keys` are not used.
        """
        import torch

        inputs = transformers_internals.prepared_inputs(self, inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs), None, None


def fine_tune(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    folder: Path,
    *,
    max_length: int,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    accumulation: int = 1,
    seed: int = 0,
) -> SFTTrainer:
    """Train as lesson 05 does, in one call, without validation rows and without a choice of checkpoint.

    Args:
        model: wrapped by peft already, or a plain model that trains in full.
        tokenizer: of the model.
        rows: those of `prompts.encode`.
        folder: for Trainer's files; none is written.
        max_length: tokens of the longest row.
        epochs: passes over the rows.
        batch_size: rows at a time.
        learning_rate: at its peak, after the warm-up.
        accumulation: batches in an optimizer step.
        seed: of the order of the rows and of dropout.

    Returns:
        The Trainer after training. Its model has the last weights, and is not wrapped in mixed precision.
    """
    require_amp(model, devices.mixed_precision()["fp16"])
    arguments = settings(
        folder, max_length=max_length, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        accumulation=accumulation, seed=seed, save_strategy="no",
    )  # fmt: skip
    set_seed(seed)
    trainer = trainer_class(SupervisedSFTTrainer)(
        model, arguments, train_dataset=rows.select_columns(COLUMNS), processing_class=tokenizer
    )
    with machine.prepared(trainer, max_length=max_length, quick_dropout=False):
        trainer.train()
    return trainer


def settings(
    folder: Path,
    *,
    max_length: int,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    accumulation: int = 1,
    seed: int = 0,
    **more: Any,
) -> SFTConfig:
    """Return the training arguments of lesson 05, without when to score and when to save.

    Args:
        folder: for Trainer's files.
        max_length: tokens of the longest row.
        epochs: passes over the rows.
        batch_size: rows at a time, of all processes together.
        learning_rate: at its peak, after the warm-up.
        accumulation: batches in an optimizer step.
        seed: of the order of the rows and of dropout.
        more: other arguments; they win.
    """
    own, times = processes.share_of_step(batch_size, accumulation)
    usual: dict[str, Any] = {
        "output_dir": str(folder), "num_train_epochs": epochs, "max_length": max_length,
        "per_device_train_batch_size": own, "gradient_accumulation_steps": times,
        "learning_rate": learning_rate, "lr_scheduler_type": "cosine", "warmup_steps": 0.1,
        "activation_checkpointing": False, "report_to": "none", "disable_tqdm": True, "seed": seed,
        **devices.mixed_precision(),
    }  # fmt: skip
    return SFTConfig(**usual | more)
