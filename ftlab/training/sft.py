"""TRL's SFTTrainer with the LM head at supervised positions only, as `instruction` has it for Trainer.

A module of its own: TRL takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import Trainer
from trl import SFTTrainer

from ftlab.training.instruction import supervised_only

if TYPE_CHECKING:
    import torch


class SupervisedSFTTrainer(SFTTrainer):
    """SFTTrainer with the loss of `SupervisedTrainer`: TRL's own skips masked positions on a GPU, and not on a CPU.

    The same loss and gradients. What TRL measures beside the loss (entropy, token accuracy) is not there: it would need
    the logits that are saved.
    """

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

        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs), None, None
