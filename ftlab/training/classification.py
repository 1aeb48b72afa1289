"""What surrounds the Trainer of a classifier: rows that fit the batch, and class weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer

    from ftlab.freezing.features import Features
    from ftlab.freezing.plans import Plan

LEAST_STEPS = 60  # fewer leave a fresh head where it began


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

    from ftlab.freezing import plans
    from ftlab.models import devices, loading
    from ftlab.training import layerwise
    from ftlab.training.callbacks import StopWhenNotFinite
    from ftlab.training.cpu_speed import pieces, quick_attention, quick_dropout

    batch_size = min(batch_size, len(train))
    precision = devices.mixed_precision() if precision is None else precision
    set_seed(seed)
    encoder = loading.encoder(model, train.features["label"].names, **loading.without_attention_dropout(model))
    encoder.accepts_loss_kwargs = False  # see `invariants.accumulation`
    plan = plans.freeze(encoder, policy, frozen_layers)
    if features is not None:
        _require_features_of(features, plan, train)
    tokenizer = loading.tokenizer(model, split_special_tokens=True)
    optimizer = None
    if policy == "layerwise":
        groups = layerwise.layerwise_groups(encoder, learning_rate=learning_rate, weight_decay=weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=True)  # as Trainer's own
    rows = tokenized(train, tokenizer, max_length) if features is None else features.rows
    accumulation = 1  # features are small
    if features is None:
        accumulation = pieces(batch_size, length=max(map(len, rows["input_ids"])), precision=precision)
    with nullcontext() if features is None else features.in_place(encoder):
        trainer = Trainer(
            model=encoder,
            args=TrainingArguments(
                output_dir=str(folder),
                num_train_epochs=max(epochs, least_steps * batch_size / len(train)),
                per_device_train_batch_size=batch_size // accumulation,
                gradient_accumulation_steps=accumulation,
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
            callbacks=[StopWhenNotFinite(), *([layerwise.GradualUnfreezing()] if policy == "gradual" else [])],
            optimizers=(optimizer, None),
        )
        trainer.remove_callback(PrinterCallback)
        trains_attention = plan.frozen_layers < plan.depth
        with (
            quick_attention(encoder, max_length=max_length, precision=precision) if trains_attention else nullcontext(),
            quick_dropout(encoder),
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
