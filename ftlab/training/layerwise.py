"""Gradual unfreezing, and a learning rate for each layer: two policies that need more than `requires_grad`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ftlab.errors import BadInput
from ftlab.freezing import plans
from ftlab.internals import transformers as transformers_internals

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments


class GradualUnfreezing(TrainerCallback):
    """Train the head first, then unfreeze one layer at a time, from the last to the first; the embeddings come last.

    The gradients of a new head are large and random, and would damage pretrained layers. These layers unfreeze when the
    head has learned something. Source: Howard and Ruder, Universal Language Model Fine-tuning, 2018, section 3.3. There
    a layer unfreezes each epoch; here the steps of the training are divided among the layers.

    Args:
        over: the share of the steps after which everything trains.

    Raises:
        BadInput: `over` is not more than 0 and at most 1.
    """

    def __init__(self, over: float = 0.5) -> None:
        if not 0 < over <= 1:
            raise BadInput(f"over is {over}; expected a share of the steps, more than 0 and at most 1")
        self.over = over
        self.groups: list[list[Any]] = []
        self.trained = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **more: Any
    ) -> None:
        """Freeze all of `model` but the head, or what is due at the step in `state`.

        The optimizer already holds all parameters; it skips those without a gradient. `args`, `control` and `more` are
        not used.
        """
        self.groups = group_by_layer(model)
        self._unfreeze(self._due(state))

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Unfreeze what is due at the step in `state`; `args`, `control` and `more` are not used."""
        if (due := self._due(state)) != self.trained:
            self._unfreeze(due)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Unfreeze everything; `args`, `state`, `control` and `more` are not used."""
        self._unfreeze(len(self.groups))

    def _due(self, state: TrainerState) -> int:
        last = max(1.0, min(self.over * state.max_steps, state.max_steps - 1))  # everything trains from this step on
        share = state.global_step / last + 1e-9  # because of rounding: 0.1 * 40 is a little more than 4
        return min(len(self.groups), 1 + int(share * (len(self.groups) - 1)))

    def _unfreeze(self, groups: int) -> None:
        self.trained = groups
        for place, group in enumerate(self.groups):
            for parameter in group:
                parameter.requires_grad = place < groups


def group_by_layer(model: PreTrainedModel) -> list[list[Any]]:
    """Return the parameters of `model` in groups: the head and all behind the layers, each layer, the embeddings."""
    parts = plans.structure(model).parts
    on_top = [p for name in (plans.BEHIND, plans.HEAD) for p in parts.get(name, {}).values()]
    below = [list(tensors.values()) for name, tensors in parts.items() if name not in (plans.BEHIND, plans.HEAD)]
    return [group for group in (on_top, *reversed(below)) if group]


def layerwise_groups(
    model: PreTrainedModel, *, learning_rate: float, decay: float = 0.9, weight_decay: float = 0.01
) -> list[dict[str, Any]]:
    """Return parameter groups for AdamW, with a lower learning rate for earlier layers.

    Early layers hold general knowledge, and change least. As with Trainer, biases and normalisations have no weight
    decay. Source: discriminative fine-tuning (Howard and Ruder 2018, section 3.1).

    Args:
        model: an encoder or decoder with a classification head.
        learning_rate: of the head.
        decay: the rate of a layer, divided by that of the layer behind it.
        weight_decay: of all other parameters.

    Raises:
        BadInput: `decay` is not more than 0 and at most 1.
    """
    if not 0 < decay <= 1:
        raise BadInput(f"decay is {decay}; expected more than 0 and at most 1")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = transformers_internals.decayed_parameters(model)
    groups = []
    for depth, group in enumerate(group_by_layer(model)):
        for decayed in (True, False):
            if parameters := [p for p in group if (names[id(p)] in decays) == decayed]:
                rate = learning_rate * decay**depth
                groups.append({"params": parameters, "lr": rate, "weight_decay": weight_decay if decayed else 0.0})
    return groups
