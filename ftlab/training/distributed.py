"""Trainer in several processes: its steps and its scores are those of one process.

Trainer and accelerate come near it. They group rows of like length within the batch of one process, fill up last
batches with rows that were there before, and average means over unequal numbers of rows or tokens.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ftlab.data.prompts import IGNORED
from ftlab.internals import accelerate as accelerate_internals
from ftlab.internals import transformers as transformers_internals
from ftlab.models import processes

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

SHARDED_LAYERS = "FSDP_TRANSFORMER_CLS_TO_WRAP"  # accelerate reads it; a configuration may set it


def trainer_class(kind: type[Trainer]) -> type[Trainer]:
    """Return `kind`; in several processes a subclass whose steps and scores are those of one process.

    Args:
        kind: Trainer, SupervisedTrainer or SupervisedSFTTrainer.
    """
    if processes.count() == 1:
        return kind

    class Distributed(transformers_internals.in_one_order(kind)):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            if processes.keep_to_cpu() and processes.strategy() == processes.FSDP:
                accelerate_internals.shard_on_cpus()  # here, since TrainingArguments begins anew
            if processes.strategy() == processes.FSDP:
                model = more["model"] if "model" in more else arguments[0]
                if layers := transformers_internals.layers_to_shard(model):
                    os.environ.setdefault(SHARDED_LAYERS, ",".join(layers))
            super().__init__(*arguments, **more)
            rows = getattr(self, "train_dataset", None)
            if hasattr(rows, "column_names"):  # and not a stream
                self.train_dataset: Any = with_nobodys_row(rows)
            self.add_callback(SameBest())

        def evaluate(
            self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
        ) -> dict[str, float]:
            return evaluate(self, eval_dataset, metric_key_prefix)

    Distributed.__name__ = kind.__name__
    return Distributed


class SameBest(TrainerCallback):
    """Let the processes agree on the best checkpoint.

    Each of them notes it if its folder is there, and in a sharded checkpoint another process may create that a moment
    later. At the end some would then load the best weights into their shards, and others not. The note in the
    checkpoint is too old, too, so a training that goes on looks again.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Note the checkpoint of the best step in `state` and `args`; `control` and `more` are not used."""
        self.on_save(args, state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Note the best step's checkpoint in `state`, if it is there (`args`); `control` and `more` are not used."""
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        state.best_model_checkpoint = processes.from_main(lambda: str(best) if best.is_dir() else None)


def with_nobodys_row(rows: Dataset) -> Dataset:
    """Return tokenized `rows` with one more at the end: a copy of the first without a label, so it counts for nothing.

    A process that gets no row of a step, since there are too few, computes on this one; the others wait for it.
    """
    from datasets import Dataset, Value, concatenate_datasets

    if "label" in rows.column_names:
        rows = rows.cast_column("label", Value("int64"))
    row = dict(rows[0])
    row |= {"label": IGNORED} if "label" in row else {"labels": [IGNORED] * len(row["labels"])}
    return concatenate_datasets([rows, Dataset.from_list([row], features=rows.features)])


def evaluate(trainer: Any, rows: Dataset | None = None, prefix: str = "eval") -> dict[str, float]:
    """Return the loss of `rows`, and what compute_metrics makes of them, as one process finds them.

    Each process computes its share of each batch; no row counts twice. A loss over tokens is the mean over those of
    the whole batch.

    Args:
        trainer: of a class that `trainer_class` made.
        rows: tokenized, with labels; None for the trainer's own.
        prefix: of the names of the results, which go into the trainer's log, too.
    """
    import numpy as np
    import torch

    rows = trainer.eval_dataset if rows is None else rows
    size, nobody = trainer.args.eval_batch_size, len(rows)
    order = transformers_internals.evaluation_order(trainer, rows, size)
    steps = transformers_internals.steps_of(order, size)
    shares = [step[processes.index() :: processes.count()] or [nobody] for step in steps]
    model, losses, answers = trainer.model_wrapped, [], []
    model.eval()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        for batch in transformers_internals.evaluation_batches(trainer, with_nobodys_row(rows), shares):
            inputs = transformers_internals.prepared_inputs(trainer, dict(batch))
            labels = inputs["labels"]
            own, items = _counted(labels)
            loss, outputs = trainer.compute_loss(model, inputs, return_outputs=True)  # the mean over its own items
            losses.append((own, items, items * float(loss) if items else 0.0))
            if trainer.compute_metrics is not None and items:
                answers.append((outputs["logits"].float().cpu().numpy(), labels.cpu().numpy()))
    of_batch, items, sums = torch.tensor(processes.gathered(losses), dtype=torch.float64).sum(dim=0).T
    metrics = {f"{prefix}_loss": float((of_batch * sums / items).sum() / of_batch.sum())}
    if trainer.compute_metrics is not None:
        parts = [part for found in processes.gathered(answers) for part in found]
        logits, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        metrics |= {f"{prefix}_{name}": value for name, value in trainer.compute_metrics((logits, labels)).items()}
    trainer.log(metrics)
    trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
    return metrics


def _counted(labels: torch.Tensor) -> tuple[int, int]:
    """Return how many rows `labels` has, and over how many of them, or of its tokens, a loss is the mean."""
    counted = labels != IGNORED if labels.dim() == 1 else labels[:, 1:] != IGNORED
    rows = counted if labels.dim() == 1 else counted.any(dim=1)
    return int(rows.sum()), int(counted.sum())
