"""TRL's SFTTrainer with the LM head at supervised positions only, as `instruction` has it for Trainer.

A module of its own: TRL takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, Trainer, set_seed
from trl import SFTConfig, SFTTrainer

from ftlab.adapters.quantized import require_amp
from ftlab.data.prompts import IGNORED
from ftlab.errors import BadInput
from ftlab.internals import transformers as transformers_internals
from ftlab.models import devices
from ftlab.training.callbacks import StopWhenNotFinite
from ftlab.training.cpu_speed import quick_attention
from ftlab.training.instruction import supervised_only

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def require_whole(rows: Dataset, max_length: int | None) -> None:
    """Raise BadInput for a row that is longer than `max_length`, or in which nothing is supervised."""
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
    """SFTTrainer with the loss of `SupervisedTrainer`: TRL's own skips masked positions on a GPU, and not on a CPU.

    The same loss and gradients. What TRL measures beside the loss (entropy, token accuracy) is not there: it would need
    the logits that are saved.

    The rows have input_ids and labels (`prompts.encode`). TRL by itself cuts a row at `max_length`, its EOS first, and
    leaves out rows without a label that counts, until none may be left: here both raise BadInput.
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
        """The loss of a batch with input_ids, attention_mask and labels; see the class."""
        batch = {**supervised_only(inputs), "use_cache": False}
        return Trainer.compute_loss(self, model, batch, return_outputs, num_items_in_batch)

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Evaluation by the loss alone: (loss, None, None)."""
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
    """Lesson 05's training in one call, for when it is made many times: the Trainer, after training on `rows`.

    `model` is wrapped already, or trains in full; `rows` are those of `prompts.encode`. No validation rows and no
    choice of a checkpoint: the last weights count. `folder` is for Trainer's files; none is written.
    """
    precision: dict[str, Any] = dict(devices.mixed_precision())
    require_amp(model, precision["fp16"])
    set_seed(seed)
    trainer = SupervisedSFTTrainer(
        model,
        SFTConfig(
            output_dir=str(folder), num_train_epochs=epochs, max_length=max_length,
            per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation,
            learning_rate=learning_rate, lr_scheduler_type="cosine", warmup_steps=0.1, activation_checkpointing=False,
            save_strategy="no", report_to="none", disable_tqdm=True, seed=seed, **precision,
        ),
        train_dataset=rows.select_columns(["input_ids", "labels"]),
        processing_class=tokenizer,
        callbacks=[StopWhenNotFinite()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    with quick_attention(plain, max_length=max_length, precision=precision):
        trainer.train()
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # Trainer leaves its mixed precision around it
    return trainer
