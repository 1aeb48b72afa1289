"""Callbacks for any Trainer: a progress file, and a stop as soon as the logits are NaN or infinite."""

from __future__ import annotations

from contextlib import suppress
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
    """Write the current step to `folder/progress.json`, which `ftlab run` shows while the notebook runs.

    Args:
        folder: it exists.
        what: the name of this training, shown beside its step.
    """

    def __init__(self, folder: Path, what: str = "training") -> None:
        self.file = Path(folder) / LIVE
        self.what = what

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Write the step in `state`; `args`, `control` and `more` are not used."""
        progress = {"what": self.what, "step": state.global_step, "of": state.max_steps}
        self.file.write_text(files.to_json(progress), encoding="utf-8")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Remove the progress file; `args`, `state`, `control` and `more` are not used."""
        with suppress(PermissionError):  # on Windows, while `ftlab run` reads it; the runner removes it, too
            self.file.unlink(missing_ok=True)


class StopWhenNotFinite(TrainerCallback):
    """Stop training at the first step whose logits are NaN or infinite.

    Trainer would continue: its log leaves out NaN losses by default, and the weights cannot recover. Evaluation during
    training is checked too, because it is the first to run the model after the last step.

    Raises:
        TrainingFailed: the logits are NaN or infinite; the message names the step and a lower learning rate.
    """

    hooks: ClassVar[WeakKeyDictionary[Any, Any]] = WeakKeyDictionary()  # by model: an interrupted training leaves one

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **more: Any
    ) -> None:
        """Check the logits each time that `model` runs; `args` and `state` are for the message.

        `control` and `more` are not used.
        """
        import torch

        def check(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if not torch.isfinite(output.logits).all():
                self._remove_hook(module)  # on_train_end is not called after an exception
                step = state.global_step + 1 if module.training else state.global_step
                raise TrainingFailed(
                    f"training diverged at step {step} of {state.max_steps}: the logits are NaN or infinite; lower "
                    f"the learning_rate: it is {args.learning_rate:g}, and a tenth of it "
                    f"({args.learning_rate / 10:g}) is a good next try"
                )

        self._remove_hook(model)
        self.hooks[model] = model.register_forward_hook(check)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **more: Any
    ) -> None:
        """Remove the hook of `model`; `args`, `state`, `control` and `more` are not used."""
        self._remove_hook(model)

    def _remove_hook(self, model: Any) -> None:
        if model in self.hooks:
            self.hooks.pop(model).remove()
