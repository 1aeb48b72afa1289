"""What surrounds the Trainer of a classifier: rows that fit the batch, class weights, checkpoints to go on from."""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.errors import BadInput

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer

    from ftlab.models.features import Features
    from ftlab.models.freezing import Plan

IDENTITY = "identity.json"
LEAST_STEPS = 60  # fewer leave a fresh head where it began
TORCH_PARTS = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


def fine_tune(
    train: Dataset,
    folder: Path,
    *,
    model: str,
    max_length: int,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    seed: int = 0,
    least_steps: int = LEAST_STEPS,
    policy: str = "full",
    frozen_layers: int | None = None,
    features: Features | None = None,
    precision: Mapping[str, bool] | None = None,
) -> Trainer:
    """Lesson 02's training in one call, for when it is made many times: the Trainer, after training on `train`.

    `train` has columns text and label (a ClassLabel). No validation rows and no choice of an epoch: the last counts. On
    few rows the epochs grow until there are `least_steps` steps. `folder` is for Trainer's files; none is written.
    `policy` and `frozen_layers` say what trains (`freezing.freeze`); `features` are those of the frozen layers for the
    rows of `train`, in their order, and take their place. `precision` is `mixed_precision()` unless given.
    """
    import torch
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments, set_seed

    from ftlab.models import freezing, loading
    from ftlab.training import policies
    from ftlab.training.surroundings import StopWhenNotFinite, mixed_precision, quick_attention

    batch_size = min(batch_size, len(train))
    precision = mixed_precision() if precision is None else precision
    set_seed(seed)
    encoder = loading.encoder(model, train.features["label"].names, **loading.without_attention_dropout(model))
    encoder.accepts_loss_kwargs = False  # see `invariants.accumulation`
    plan = freezing.freeze(encoder, policy, frozen_layers)
    if features is not None:
        _require_features_of(features, plan, train)
    tokenizer = loading.tokenizer(model)
    optimizer = None
    if policy == "layerwise":
        groups = policies.layerwise_groups(encoder, learning_rate=learning_rate, weight_decay=weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=learning_rate)
    rows = tokenized(train, tokenizer, max_length) if features is None else features.rows
    with nullcontext() if features is None else features.in_place(encoder):
        trainer = Trainer(
            model=encoder,
            args=TrainingArguments(
                output_dir=str(folder),
                num_train_epochs=max(epochs, least_steps * batch_size / len(train)),
                per_device_train_batch_size=batch_size,
                learning_rate=learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=0.1,
                weight_decay=weight_decay,
                train_sampling_strategy="group_by_length",
                save_strategy="no",
                logging_strategy="no",
                seed=seed,
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=features is None,
                **precision,
            ),
            train_dataset=rows,
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer) if features is None else features.collate,
            callbacks=[StopWhenNotFinite(), *([policies.GradualUnfreezing()] if policy == "gradual" else [])],
            optimizers=(optimizer, None),
        )
        trainer.remove_callback(PrinterCallback)
        trains_attention = plan.frozen_layers < plan.depth
        with (
            quick_attention(encoder, max_length=max_length, precision=precision) if trains_attention else nullcontext()
        ):
            trainer.train()
    return trainer


def _require_features_of(features: Features, plan: Plan, train: Dataset) -> None:
    if plan.frozen_layers != features.frozen_layers:
        frozen = f"{plan.frozen_layers} layers" if plan.frozen_layers > 0 else "no layer"
        raise BadInput(
            f"the features stand for {features.frozen_layers} frozen layers, and policy {plan.policy!r} freezes "
            f"{frozen} here; compute them by the same plan, or train without features"
        )
    if len(features) != len(train) or ("id" in features.rows.column_names and features.rows["id"][:] != train["id"][:]):
        raise BadInput(
            f"the features are those of {len(features):,} other rows, and there are {len(train):,} to train on; "
            "compute them of these rows, or take `features.part`"
        )


def tokenized(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """`rows` with what the model takes beside them, cut at `max_length`, without padding."""
    return rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=max_length), batched=True)


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
        raise BadInput(
            f"the training rows hold none of class {missing[0]}, and a class without rows has no weight; expected at "
            f"least one row of each of the {classes} classes: add some, or train without class weights"
        )
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
    beside the checkpoints. Without `resume` older checkpoints are removed. With it the last one that training can go on
    from is returned, and later ones are removed. Raises BadInput when they were made with another identity (going on
    from them would mix two trainings), or do not say with which.

    The weights at the end are those of a training that was never cut off, bit for bit on the same machine, if Trainer
    saves at the end of epochs (within one, it would draw another order of the rows) and restores its callbacks' states
    (restore_callback_states_from_checkpoint; else patience starts anew).
    """
    identity = json.loads(json.dumps(identity))
    there = _numbered(folder)
    if resume and (there or (folder / IDENTITY).is_file()):
        _require_same(folder, _identity(folder), identity)
        while there and not _goes_on(there[-1]):
            files.remove(there.pop())
        return str(there[-1]) if there else None
    files.remove(folder)
    files.write_json(folder / IDENTITY, identity)
    return None


def _numbered(folder: Path) -> list[Path]:
    """The folders checkpoint-<step>, by their steps; others are not Trainer's."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-[0-9]+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name.partition("-")[2]))


def _identity(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / IDENTITY).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as problem:
        raise BadInput(
            f"what the checkpoints in {folder} were made with cannot be read from {IDENTITY} "
            f"({type(problem).__name__}); train without resume, which removes them and starts anew"
        ) from problem


def _require_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            one, other = (_shown(identity.get(name)) for identity in (before, now))
            raise BadInput(
                f"the checkpoints in {folder} were made with {name} {_cut(one, other)}, and this training has {name} "
                f"{_cut(other, one)}; train with what they were made with, or without resume to start anew"
            )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cut(text: str, other: str, width: int = 80) -> str:
    """A long `text`, cut to where it begins to differ from `other`."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False)))
    start = max(0, min(same - width // 2, len(text) - width))
    return ("..." if start else "") + text[start : start + width] + ("..." if start + width < len(text) else "")


def _goes_on(path: Path) -> bool:
    """Whether training can go on from a checkpoint: written to its end, and not where patience had ended it.

    Trainer writes trainer_state.json last. It forgets, when it goes on, that it had been told to stop.
    """
    from safetensors import SafetensorError, safe_open

    try:
        state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        with safe_open(path / "model.safetensors", framework="numpy"):
            pass
    except (OSError, ValueError, SafetensorError):
        return False
    if not all(zipfile.is_zipfile(path / part) for part in TORCH_PARTS):  # torch.save's table of contents comes last
        return False
    told = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    return not (told.get("should_training_stop") and state["global_step"] < state["max_steps"])
