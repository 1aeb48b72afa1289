"""What surrounds a Trainer: the precision that the device has, and a line of progress for whoever watches the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ftlab.progress import LIVE

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


def mixed_precision() -> dict[str, bool]:
    """The fp16 and bf16 arguments of TrainingArguments for this machine.

    bf16 on a GPU that has it, fp16 on an older one, neither on a CPU or on Apple's MPS: asked for fp16, Trainer
    would train in fp32 on a CPU without saying so, and bf16 is slower than fp32 on a CPU without bf16 instructions.
    """
    import torch

    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    return {"fp16": cuda and not bf16, "bf16": bf16}


class LiveProgress(TrainerCallback):
    """Write the step of training to `folder/progress.json`, which `ftlab run` shows while the notebook runs."""

    def __init__(self, folder: Path, what: str = "training") -> None:
        self.file = Path(folder) / LIVE
        self.what = what

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Say where training is."""
        progress = {"what": self.what, "step": state.global_step, "of": state.max_steps}
        self.file.write_text(json.dumps(progress), encoding="utf-8")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Say nothing more."""
        self.file.unlink(missing_ok=True)
