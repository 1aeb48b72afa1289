"""What surrounds the Trainer of an instruction-tuned model: the LM head runs only where something is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import Trainer

from ftlab.data.prompts import IGNORED
from ftlab.errors import BadInput

if TYPE_CHECKING:
    import torch


class SupervisedTrainer(Trainer):
    """A Trainer for causal language models that computes logits at supervised positions only.

    The LM head is a matrix of hidden size x vocabulary, applied to every token; under a masked prompt most of that is
    thrown away. `logits_to_keep` takes a mask of shape (rows, tokens): the head runs on the positions whose next token
    is a label, and the loss is over these. Loss and gradients are those of the plain masked loss, divided as Trainer
    divides it (by the labels of the whole optimizer step, so accumulation is right too).

    Raises BadInput for a batch with nothing to learn, whose loss would be 0 divided by 0.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch with input_ids, attention_mask and labels; see the class."""
        import torch

        # Position n predicts token n + 1.
        targets = torch.nn.functional.pad(inputs["labels"], (0, 1), value=IGNORED)[:, 1:]
        keep = targets != IGNORED
        if not keep.any():
            raise BadInput(
                f"none of the {keep.numel():,} tokens of this batch is supervised: every label is {IGNORED}; look at a "
                "row with `prompts.token_view`, and encode rows so that completion and EOS keep their labels"
            )
        inputs = {**inputs, "logits_to_keep": keep, "shift_labels": targets[keep]}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
