"""Two policies that need more than `requires_grad`: layers that thaw one after another, and a rate for each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ftlab.errors import BadInput
from ftlab.freezing import plans
from ftlab.internals import transformers as transformers_internals

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments


class GradualUnfreezing(TrainerCallback):
    """Train the head first, then a layer more at a time, from the last to the first; the embeddings come last.

    A fresh head sends wild gradients back; what it would spoil thaws only when it has learned something. `over` is the
    share of the steps after which everything trains. Source: Howard and Ruder, Universal Language Model Fine-tuning,
    2018, section 3.3, where a layer thaws each epoch; here they share out whatever steps there are.
    """

    def __init__(self, over: float = 0.5) -> None:
        if not 0 < over <= 1:
            raise BadInput(f"over is {over}; expected a share of the steps, more than 0 and at most 1")
        self.over = over
        self.groups: list[list[Any]] = []
        self.thawed = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **more: Any
    ) -> None:
        """Freeze all but the head. The optimizer holds everything by now, and leaves alone what has no gradient."""
        self.groups = from_the_head(model)
        self._thaw(self._due(state))

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Thaw what is due."""
        if (due := self._due(state)) != self.thawed:
            self._thaw(due)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Leave nothing frozen."""
        self._thaw(len(self.groups))

    def _due(self, state: TrainerState) -> int:
        last = max(1.0, min(self.over * state.max_steps, state.max_steps - 1))  # the step from which everything trains
        share = state.global_step / last + 1e-9  # 0.1 x 40 is a little more than 4
        return min(len(self.groups), 1 + int(share * (len(self.groups) - 1)))

    def _thaw(self, groups: int) -> None:
        self.thawed = groups
        for place, group in enumerate(self.groups):
            for parameter in group:
                parameter.requires_grad = place < groups


def from_the_head(model: PreTrainedModel) -> list[list[Any]]:
    """The parameters in groups, from the head (with what stands behind the layers) to the embeddings."""
    parts = plans.structure(model).parts
    on_top = [p for name in (plans.BEHIND, plans.HEAD) for p in parts.get(name, {}).values()]
    below = [list(tensors.values()) for name, tensors in parts.items() if name not in (plans.BEHIND, plans.HEAD)]
    return [group for group in (on_top, *reversed(below)) if group]


def layerwise_groups(
    model: PreTrainedModel, *, learning_rate: float, decay: float = 0.9, weight_decay: float = 0.01
) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: the head at `learning_rate`, each layer before it at `decay` times the one behind.

    Early layers hold what is general, and move least. Weight decay goes where Trainer has it go: not to biases and
    normalisations. Source: discriminative fine-tuning (Howard and Ruder 2018, section 3.1).
    """
    if not 0 < decay <= 1:
        raise BadInput(f"decay is {decay}; expected more than 0 and at most 1")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = transformers_internals.decayed_parameters(model)
    groups = []
    for depth, group in enumerate(from_the_head(model)):
        for decayed in (True, False):
            if parameters := [p for p in group if (names[id(p)] in decays) == decayed]:
                rate = learning_rate * decay**depth
                groups.append({"params": parameters, "lr": rate, "weight_decay": weight_decay if decayed else 0.0})
    return groups
