"""The forward passes of a model that takes stored features: which are going on, and what each still has to hand out.

A batch's features serve that batch, once. Everything else that runs the model, or a part of it, computes truly or is
refused: a value of another batch would be wrong without a word.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput

if TYPE_CHECKING:
    import torch


class Passes(threading.local):
    """The forward passes that are going on: the features of each, until its first left-out module takes them.

    In each thread others, since `DataParallel` runs one pass a device, each in a thread of its own.
    """

    def __init__(self, over: threading.Event) -> None:
        self.over = over  # set behind the block, where a copy of the model may still have the hooks
        self.stack: list[torch.Tensor | None] = []

    def __deepcopy__(self, memo: Any) -> Passes:
        return self

    def begin(self, module: Any, arguments: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Take the features out of a batch. Raises BadInput where there are none, or they are another batch's."""
        features = batch.get("features")
        self.stack.append(features)  # first of all, since `end` takes one away whatever happens
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
        if _is_checkpointing(module):
            # A reentrant checkpoint gives the layers in it gradients only if what comes in has one.
            self.stack[-1] = features.detach().requires_grad_()
        return arguments, {name: value for name, value in batch.items() if name != "features"}

    def end(self, *_: Any) -> None:
        """Forget the features of a pass that is over, or that failed."""
        if self.stack:
            self.stack.pop()

    def going_on(self) -> bool:
        """Whether this is part of a pass, or of a backward pass, in which gradient checkpoints compute layers again."""
        return not self.over.is_set() and bool(self.stack or _in_backward())

    def hand_out(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """The features of the pass that is going on. Raises BadInput if they have been handed out."""
        if not self.stack or self.stack[-1] is None:
            raise BadInput(
                "the features of this batch have been used, and the layers that they stand for were asked a second "
                "time (by a gradient checkpoint, or by a hook that runs the model); leave that out, or train without "
                "features"
            )
        features, self.stack[-1] = self.stack[-1], None
        return features

    def pass_on(self, hidden_states: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """What came in. Raises BadInput where that is not what features gave."""
        if self.stack and self.stack[-1] is not None:
            raise BadInput(
                "the features of this batch were not asked for, since the model did not begin with its input_ids; give "
                "the batch as collate made it, or leave the block"
            )
        return hidden_states


def _shape(tensor: torch.Tensor) -> str:
    return f"{tensor.shape[0]:,} rows of {tensor.shape[1]:,} tokens"


def _is_checkpointing(model: Any) -> bool:
    """Whether gradient checkpointing is on; transformers gave it another name on the way to 5.23."""
    now = getattr(model, "is_activation_checkpointing", None)
    return bool(getattr(model, "is_gradient_checkpointing", False) if now is None else now)


def _in_backward() -> bool:
    import torch

    return torch._C._current_graph_task_id() != -1
