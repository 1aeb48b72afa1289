"""Forward passes of a model that uses stored features: which are running, and whose features are not yet used.

The features of a batch are used once, for that batch. Any other call of the model, or of a part of it, runs the real
layers or is refused: features of another batch would be silently wrong.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput
from ftlab.internals import torch as torch_internals

if TYPE_CHECKING:
    import torch


class Passes(threading.local):
    """The running forward passes: the features of each, until the first left-out module takes them.

    Each thread has its own, since `DataParallel` runs one pass on each device, each in its own thread.
    """

    def __init__(self, over: threading.Event) -> None:
        self.over = over  # set after the block, where a copy of the model may still have the hooks
        self.stack: list[torch.Tensor | None] = []

    def __deepcopy__(self, memo: Any) -> Passes:
        return self

    def begin(self, module: Any, arguments: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Start a pass: take the features out of `batch`. A forward pre-hook of `module`, with keyword arguments.

        Returns:
            `arguments`, and the batch without its features.

        Raises:
            BadInput: the batch has no features, or those of another batch.
        """
        features = batch.get("features")
        self.stack.append(features)  # first, since `end` removes one even if this raises
        if self.over.is_set():
            return arguments, batch
        if features is None:
            raise BadInput(
                "this batch has no features, and the frozen layers do not run here; use rows and collate of one "
                "Features, or leave the block"
            )
        ids = batch.get("input_ids")
        if ids is not None and ids.shape != features.shape[:2]:
            raise BadInput(
                f"this batch has {_shape(ids)}, and its features are of {_shape(features)}; use rows and collate of "
                "one Features, and change nothing in a batch"
            )
        if getattr(module, "is_activation_checkpointing", False):  # of transformers
            # A reentrant checkpoint computes gradients of its layers only if its input requires one.
            self.stack[-1] = features.detach().requires_grad_()
        return arguments, {name: value for name, value in batch.items() if name != "features"}

    def end(self, *_: Any) -> None:
        """End a pass that finished or failed, and drop its features."""
        if self.stack:
            self.stack.pop()

    def is_running(self) -> bool:
        """Return whether a forward pass is running, or a backward pass, in which gradient checkpoints rerun layers."""
        return not self.over.is_set() and bool(self.stack or torch_internals.in_backward_pass())

    def take_features(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """Return the features of the running pass, as the forward of the first left-out module.

        `arguments` and `options` are ignored. Raises BadInput if the features were taken before.
        """
        if not self.stack or self.stack[-1] is None:
            raise BadInput(
                "the features of this batch have been used, and the layers that they replace were called a second time "
                "(by a gradient checkpoint or a hook that runs the model); leave that out, or train without features"
            )
        features, self.stack[-1] = self.stack[-1], None
        return features

    def pass_on(self, hidden_states: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """Return `hidden_states`, as the forward of a left-out module after the first.

        `arguments` and `options` are ignored. Raises BadInput if the features of the running pass were not taken.
        """
        if self.stack and self.stack[-1] is not None:
            raise BadInput(
                "the features of this batch were not used, since the model did not begin with its input_ids; give "
                "the batch as collate made it, or leave the block"
            )
        return hidden_states


def _shape(tensor: torch.Tensor) -> str:
    return f"{tensor.shape[0]:,} rows of {tensor.shape[1]:,} tokens"
