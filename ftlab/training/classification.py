"""Fine-tune a classifier in one call; class weights and a weighted loss for rare classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab.errors import BadInput
from ftlab.models import processes

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

    from ftlab.freezing.features import Features
    from ftlab.freezing.plans import Plan

LEAST_STEPS = 60  # with fewer, a new head hardly learns


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
    class_weights: Sequence[float] | None = None,
    guard_memory: bool = False,
) -> Trainer:
    """Train as lesson 02 does, in one call, without validation rows and without a choice of epoch.

    Args:
        train: with the columns text and label (a ClassLabel).
        folder: for Trainer's files; none is written.
        model: a name or a folder, as for `loading.encoder`.
        max_length: tokens at which rows are cut.
        epochs: passes over the rows, if these are at least `least_steps` steps.
        batch_size: rows in an optimizer step.
        learning_rate: at its peak, after the warm-up.
        weight_decay: of AdamW.
        seed: of the new head, the order of the rows and dropout.
        least_steps: on few rows there are more epochs, until there are so many steps.
        policy: what trains (`plans.freeze`).
        frozen_layers: as for `plans.freeze`.
        features: the output of the frozen layers for `train`, in the same order; used instead of running them.
        precision: `devices.mixed_precision()` unless given.
        class_weights: of the loss, one for each class (`class_weights`); None for a plain mean over the rows.
        guard_memory: as for `machine.prepared`; not with `features`.

    Returns:
        The Trainer after training. Its model has the last weights, and is not wrapped in mixed precision.

    Raises:
        BadInput: the features do not belong to the rows and the policy, or the memory is too small for a step.
        TrainingFailed: the logits are NaN or infinite.
    """
    import torch
    from transformers import DataCollatorWithPadding, Trainer, set_seed

    from ftlab.freezing import plans
    from ftlab.models import loading
    from ftlab.training import distributed, layerwise, machine

    batch_size = min(batch_size, len(train))
    set_seed(seed)
    encoder = loading.encoder(model, train.features["label"].names, **loading.without_attention_dropout(model))
    encoder.accepts_loss_kwargs = False  # see `invariants.accumulation`
    # Full fine-tuning freezes nothing, so a model whose layers are not found trains, too.
    needs_parts = policy != "full" or frozen_layers is not None or features is not None
    plan = plans.freeze(encoder, policy, frozen_layers) if needs_parts else None
    if plan is not None and features is not None:
        _require_features_of(features, plan, train)
    tokenizer = loading.tokenizer(model, split_special_tokens=True)
    optimizer = None
    if policy == "layerwise":
        groups = layerwise.layerwise_groups(encoder, learning_rate=learning_rate, weight_decay=weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=True)  # as Trainer's own
    rows = tokenized(train, tokenizer, max_length) if features is None else features.rows
    longest = max(map(len, rows["input_ids"])) if features is None else None  # features are small
    with nullcontext() if features is None else features.in_place(encoder):
        trainer = distributed.trainer_class(Trainer)(
            model=encoder,
            args=settings(
                folder,
                epochs=max(epochs, least_steps * batch_size / len(train)),
                batch_size=batch_size,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                seed=seed,
                longest=longest,
                precision=precision,
                save_strategy="no",
                logging_strategy="no",
                remove_unused_columns=features is None,
            ),
            train_dataset=rows,
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer) if features is None else features.collate,
            compute_loss_func=loss_of_rows(class_weights, len(train.features["label"].names)),
            callbacks=[layerwise.GradualUnfreezing()] if policy == "gradual" else None,
            optimizers=(optimizer, None),
        )
        trains_attention = plan is None or plan.frozen_layers < plan.depth
        with machine.prepared(trainer, max_length=max_length if trains_attention else None, guard_memory=guard_memory):
            trainer.train()
    return trainer


def settings(
    folder: Path,
    *,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    longest: int | None,
    precision: Mapping[str, bool] | None = None,
    **more: Any,
) -> TrainingArguments:
    """Return the training arguments of lesson 02, without when to score and when to save.

    Args:
        folder: for Trainer's files.
        epochs: passes over the rows.
        batch_size: rows in an optimizer step, of all processes together.
        learning_rate: at its peak, after the warm-up.
        weight_decay: of AdamW.
        seed: of the order of the rows and dropout.
        longest: tokens of the longest row, as for `machine.arguments`.
        precision: as for `machine.arguments`.
        more: other arguments; they win.
    """
    from transformers import TrainingArguments

    from ftlab.training import machine

    usual: dict[str, Any] = {
        "output_dir": str(folder), "num_train_epochs": epochs, "learning_rate": learning_rate,
        "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "weight_decay": weight_decay,
        "train_sampling_strategy": "group_by_length", "seed": seed, "report_to": "none", "disable_tqdm": True,
        **machine.arguments(batch_size=batch_size, longest=longest, precision=precision),
    }  # fmt: skip
    return TrainingArguments(**usual | more)


def loss_of_rows(weights: Sequence[float] | None, classes: int) -> Callable[..., torch.Tensor] | None:
    """Return the `compute_loss_func` of a training, or None for the model's own loss, the mean over the rows.

    In several processes the mean over the rows of one process is not enough: in the last step they have unequal shares,
    and the mean of their means is another number than the mean over all rows.

    Args:
        weights: one for each class (`class_weights`), or None.
        classes: their number.
    """
    if weights is None and processes.count() > 1:
        weights = [1.0] * classes
    return weighted_cross_entropy(weights) if weights else None


def _require_features_of(features: Features, plan: Plan, train: Dataset) -> None:
    if plan.frozen_layers != features.frozen_layers:
        frozen = f"{plan.frozen_layers} layers" if plan.frozen_layers > 0 else "no layer"
        raise BadInput(
            f"the features replace {features.frozen_layers} frozen layers, and policy {plan.policy!r} freezes "
            f"{frozen} here; compute them with the same plan, or train without features"
        )
    if len(features) != len(train) or ("id" in features.rows.column_names and features.rows["id"][:] != train["id"][:]):
        raise BadInput(
            f"the features belong to {len(features):,} other rows, and there are {len(train):,} to train on; "
            "compute them for these rows, or use `features.part`"
        )


def tokenized(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Return `rows` with the outputs of `tokenizer` as new columns, cut at `max_length`, without padding."""
    return rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=max_length), batched=True)


def of_texts(
    pad: Callable[[Any], Any], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Callable[[list[dict[str, Any]]], Any]:
    """Return a collator of rows with a text and a label, as they come from a stream; others go to `pad` as they are.

    `tokenizer` then runs on the rows of this process alone. The rows are cut at `max_length`.
    """

    def collate(rows: list[dict[str, Any]]) -> Any:
        if "text" not in rows[0]:
            return pad(rows)
        encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=max_length)
        return pad(
            [
                {**{name: column[place] for name, column in encoded.items()}, "label": row["label"]}
                for place, row in enumerate(rows)
            ]
        )

    return collate


def scores(prediction: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Return accuracy and macro F1 of a `prediction` of Trainer, (logits, labels), for `compute_metrics`."""
    from sklearn.metrics import accuracy_score, f1_score

    logits, labels = prediction
    predicted = np.argmax(logits, axis=-1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "f1": float(f1_score(labels, predicted, average="macro", zero_division=0.0)),
    }


def require_batches(rows: int, batch_size: int) -> None:
    """Raise BadInput if `batch_size` is larger than `rows`, the number of training rows: an epoch has no full batch."""
    if batch_size > rows:
        raise BadInput(
            f"batch_size is {batch_size}, and there are {rows:,} training rows; expected at most {rows:,}, and better "
            f"a tenth of them ({max(1, rows // 10)})"
        )


def class_weights(labels: Sequence[int], classes: int) -> list[float]:
    """Return a weight for each class, so that rare and frequent classes count the same; their mean over the rows is 1.

    The weight is rows / (classes x rows of the class): scikit-learn's "balanced" (King and Zeng 2001).

    >>> class_weights([0, 0, 0, 0, 0, 0, 1, 1], 2)  # 8 / (2 x 6) and 8 / (2 x 2)
    [0.6666666666666666, 2.0]

    Args:
        labels: the class of each training row.
        classes: the number of classes.

    Raises:
        BadInput: a class has no row.
    """
    return balanced(np.bincount(labels, minlength=classes).tolist())


def balanced(counts: Sequence[int]) -> list[float]:
    """Return the weights of `class_weights` from `counts`, the number of training rows of each class.

    Raises BadInput if a class has no row.

    >>> balanced([6, 2])
    [0.6666666666666666, 2.0]
    """
    classes = len(counts)
    if missing := [number for number, rows in enumerate(counts) if not rows]:
        raise BadInput(
            f"the training rows hold none of class {missing[0]}, and a class without rows has no weight; expected at "
            f"least one row of each of the {classes} classes: add some, or train without class weights"
        )
    return [sum(counts) / (classes * rows) for rows in counts]


def weighted_cross_entropy(weights: Sequence[float]) -> Callable[..., torch.Tensor]:
    """Return a `compute_loss_func` for Trainer: cross-entropy, with each row multiplied by the weight of its class.

    The sum is divided by the rows of the whole optimizer step, so that gradient accumulation gives the same gradient.

    Args:
        weights: one for each class.
    """
    import torch

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs["logits"].float()
        weight = torch.tensor(weights, device=logits.device)
        total = torch.nn.functional.cross_entropy(logits, labels, weight=weight, reduction="sum")
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    return loss
