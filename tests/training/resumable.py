"""Train as lesson 02 does, in a separate process that can be killed: python -m tests.training.resumable."""

import os
import signal
import sys
from pathlib import Path

import torch
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from ftlab.data import sources
from ftlab.models import loading
from ftlab.training import checkpoints, machine

ROWS, BATCH_SIZE, MAX_LENGTH = 64, 8, 64
STEPS = ROWS // BATCH_SIZE  # in an epoch
SCORES = (0.4, 0.5, 0.6)  # the last epoch is the best, so that its weights are the final ones
IDENTITY = {"model": "tiny-distilbert", "labels": ["negative", "positive"], "rows": "mini_reviews", "seed": 0}


def train(folder, *, resume=False, scores=SCORES, patience=3, callbacks=()):
    """Return the trainer after training; `scores`, one for each epoch, replace the metric."""
    rows = sources.load("mini_reviews")["train"]
    tokenizer = loading.tokenizer("tiny-distilbert")
    tokenized = rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH), batched=True)
    set_seed(0)
    model = loading.encoder("tiny-distilbert", IDENTITY["labels"])
    model.accepts_loss_kwargs = False
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder), num_train_epochs=len(scores),
            learning_rate=1e-3, lr_scheduler_type="cosine", warmup_steps=0.1, weight_decay=0.01,
            train_sampling_strategy="group_by_length",
            eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, save_total_limit=1,
            metric_for_best_model="score", logging_steps=5,
            restore_callback_states_from_checkpoint=True, seed=0, report_to="none", disable_tqdm=True,
            **machine.arguments(batch_size=BATCH_SIZE, longest=MAX_LENGTH),
        ),
        train_dataset=tokenized.select(range(ROWS)),
        eval_dataset=tokenized.select(range(ROWS, ROWS + 40)),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda prediction: {"score": scores[round(trainer.state.epoch) - 1]},
        callbacks=[EarlyStoppingCallback(patience), *callbacks],
    )  # fmt: skip
    with machine.prepared(trainer, max_length=MAX_LENGTH):
        trainer.train(resume_from_checkpoint=checkpoints.checkpoint(Path(folder), IDENTITY, resume=resume))
    return trainer


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class DiesInTheMiddleOfEpochTwo(TrainerCallback):
    def on_step_end(self, args, state, control, **more):
        if state.global_step == STEPS + STEPS // 2:
            die()


def die_after_the_first_files_of_the_second_checkpoint():
    save = torch.save

    def half(value, path, *more):
        if f"checkpoint-{2 * STEPS}" in str(path) and str(path).endswith("optimizer.pt"):
            save(value, path, *more)
            os.truncate(path, Path(path).stat().st_size // 2)
            die()
        save(value, path, *more)

    torch.save = half


if __name__ == "__main__":
    where, how = sys.argv[1:]
    torch.set_num_threads(1)
    if how == "half a checkpoint":
        die_after_the_first_files_of_the_second_checkpoint()
    train(where, callbacks=[DiesInTheMiddleOfEpochTwo()] if how == "middle of an epoch" else [])
