"""What surrounds the Trainer of a classifier: rows that fit the batch, class weights, checkpoints to go on from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.errors import BadInput

if TYPE_CHECKING:
    import torch

IDENTITY = "identity.json"
PARTS = ("trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")


def require_batches(rows: int, batch_size: int) -> None:
    """Raise BadInput when a batch is larger than the training rows: an epoch would be less than one step."""
    if batch_size > rows:
        raise BadInput(
            f"batch_size is {batch_size}, and there are {rows:,} training rows; expected at most {rows:,}, and better "
            f"a tenth of them ({max(1, rows // 10)})"
        )


def class_weights(labels: Sequence[int], classes: int) -> list[float]:
    """A weight for each class, so that each counts alike however rare it is; their mean over the rows is 1.

    rows / (classes x rows of the class), as scikit-learn's "balanced" (King and Zeng 2001). Raises BadInput when a
    class has no row.
    """
    counts = Counter(labels)
    missing = [label for label in range(classes) if not counts[label]]
    if missing:
        raise BadInput(f"the training rows hold none of class {missing[0]}; a class without rows has no weight")
    return [len(labels) / (classes * counts[label]) for label in range(classes)]


def weighted_cross_entropy(weights: Sequence[float]) -> Callable[..., torch.Tensor]:
    """A `compute_loss_func` for Trainer: cross-entropy in which each row counts by the weight of its class.

    Divided by the rows of the whole optimizer step, so that gradient accumulation gives the same gradient.
    """
    import torch

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs["logits"].float()
        weight = torch.tensor(weights, device=logits.device)
        total = torch.nn.functional.cross_entropy(logits, labels, weight=weight, reduction="sum")
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    return loss


def checkpoint(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> str | None:
    """Where `trainer.train(resume_from_checkpoint=...)` goes on, or None to start at the first step.

    `identity` is what a training depends on (model, label names, rows, settings), as JSON can hold it; it is kept
    beside the checkpoints. Without `resume` older checkpoints are removed. With it the last whole one is returned, and
    those that a kill left half-written are removed. Raises BadInput when they were made with another identity: going on
    from them would mix two trainings.
    """
    identity = json.loads(json.dumps(identity))
    if resume and (folder / IDENTITY).is_file():
        _require_same(folder, json.loads((folder / IDENTITY).read_text(encoding="utf-8")), identity)
        there = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
        for path in there:
            if not _is_whole(path):
                files.remove(path)
        left = [path for path in there if path.is_dir()]
        return str(left[-1]) if left else None
    files.remove(folder)
    files.write_json(folder / IDENTITY, identity)
    return None


def _require_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            raise BadInput(
                f"the checkpoints in {folder} were made with {name} {_short(before.get(name))}, and this training has "
                f"{name} {_short(now.get(name))}; train with what they were made with, or without resume to start anew"
            )


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint was written to its end: Trainer writes trainer_state.json last."""
    from safetensors import SafetensorError, safe_open

    try:
        json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        with safe_open(path / "model.safetensors", framework="numpy"):
            pass
    except (OSError, ValueError, SafetensorError):
        return False
    return all((path / part).is_file() for part in PARTS)
