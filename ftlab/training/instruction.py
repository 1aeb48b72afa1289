"""What surrounds the Trainer of an instruction-tuned model: the LM head runs only where something is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import Trainer

from ftlab.data.prompts import IGNORED
from ftlab.errors import BadInput

if TYPE_CHECKING:
    import torch


def supervised_only(inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch for a causal language model, with the positions at which its LM head is to run.

    `inputs` has input_ids, attention_mask and labels, each (rows, tokens). Added are `logits_to_keep`, a mask of the
    positions whose next token is a label, and `shift_labels`, these labels in order. Raises BadInput for a batch with
    nothing to learn, whose loss would be 0 divided by 0.
    """
    import torch

    # Position n predicts token n + 1.
    targets = torch.nn.functional.pad(inputs["labels"], (0, 1), value=IGNORED)[:, 1:]
    keep = targets != IGNORED
    if not keep.any():
        raise BadInput(
            f"none of the {keep.numel():,} tokens of this batch is supervised: every label is {IGNORED}; look at a "
            "row with `prompts.token_view`, and encode rows so that completion and EOS keep their labels"
        )
    return {**inputs, "logits_to_keep": keep, "shift_labels": targets[keep]}


class SupervisedTrainer(Trainer):
    """A Trainer for causal language models that computes logits at supervised positions only.

    The LM head is a matrix of hidden size x vocabulary, applied to every token; under a masked prompt most of that is
    thrown away (see `supervised_only`). Loss and gradients are those of the plain masked loss, divided as Trainer
    divides it (by the labels of the whole optimizer step, so accumulation is right too).
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch with input_ids, attention_mask and labels; see the class."""
        return super().compute_loss(model, supervised_only(inputs), return_outputs, num_items_in_batch)
