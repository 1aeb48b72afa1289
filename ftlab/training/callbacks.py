"""Callbacks for any Trainer: progress for whoever watches, and a stop as soon as the logits are NaN or infinite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from transformers import TrainerCallback

from ftlab import files
from ftlab.errors import TrainingFailed
from ftlab.progress import LIVE

if TYPE_CHECKING:
    import torch
    from transformers import TrainerControl, TrainerState, TrainingArguments


class LiveProgress(TrainerCallback):
    """Write the step of training to `folder/progress.json`, which `ftlab run` shows while the notebook runs."""

    def __init__(self, folder: Path, what: str = "training") -> None:
        self.file = Path(folder) / LIVE
        self.what = what

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Say where training is."""
        progress = {"what": self.what, "step": state.global_step, "of": state.max_steps}
        self.file.write_text(files.to_json(progress), encoding="utf-8")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Say nothing more."""
        self.file.unlink(missing_ok=True)


class StopWhenNotFinite(TrainerCallback):
    """Stop training at the step whose logits are no numbers any more (NaN or infinite).

    Trainer goes on: its log leaves NaN losses out by default, and every later step trains on nothing. Raises
    TrainingFailed with the step and what to try. Evaluation between the steps is watched too: it is the first to see
    what the last step did.
    """

    hooks: ClassVar[WeakKeyDictionary[Any, Any]] = WeakKeyDictionary()  # by model: an interrupted training leaves one

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **more: Any
    ) -> None:
        """Look at what the model gives, each time that it runs."""
        import torch

        def look(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if not torch.isfinite(output.logits).all():
                self._look_no_more(module)  # Trainer ends here, and does not say so to its callbacks
                step = state.global_step + 1 if module.training else state.global_step
                raise TrainingFailed(
                    f"training diverged at step {step} of {state.max_steps}: the logits are not numbers any more (NaN "
                    f"or infinite); lower the learning_rate: it is {args.learning_rate:g}, and a tenth of it "
                    f"({args.learning_rate / 10:g}) is a good next try"
                )

        self._look_no_more(model)
        self.hooks[model] = model.register_forward_hook(look)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **more: Any
    ) -> None:
        """Look no more."""
        self._look_no_more(model)

    def _look_no_more(self, model: Any) -> None:
        if model in self.hooks:
            self.hooks.pop(model).remove()
