"""The trainings of lessons 02, 04 and 05, from a budget to a folder, in one process or several.

The lessons show the same trainings cell by cell, with the same settings (`classification.settings`, `sft.settings`) and
the same Trainer; one process comes to the same weights as the lesson. Validation rows choose, test rows judge once, and
what is judged is the saved model: each process loads it and answers its share of the rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ftlab import files
from ftlab.errors import BadInput
from ftlab.training import processes

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

    from ftlab.course.lesson import Lesson

LESSONS = {"classify": "02_text_classification", "instruct": "04_gpt2_instruction_tuning", "lora": "05_lora_phi2"}


@dataclass(frozen=True)
class Options:
    """What a budget does not say.

    Args:
        max_steps: optimizer steps, whatever the epochs; 0 for as many as the epochs have.
        report_to: where Trainer also reports: "none", or a name that it knows.
        streamed: read the rows from their file while it trains, for files larger than memory.
    """

    max_steps: int = 0
    report_to: str = "none"
    streamed: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return them as arguments of TrainingArguments."""
        return {"report_to": self.report_to, **({"max_steps": self.max_steps} if self.max_steps else {})}


def classify(lesson: Lesson, options: Options) -> str:
    """Train a classifier as lesson 02 does, and return its result in a few words.

    It leaves in the lesson's folder: model/ with its card, predictions.csv, metrics.json and record.json.
    """
    import torch
    from transformers import DataCollatorWithPadding, EarlyStoppingCallback, set_seed

    from ftlab.course.card import write_card
    from ftlab.data import sources
    from ftlab.data.audit import audit
    from ftlab.data.splits import split
    from ftlab.evaluation import baselines, calibration, comparison
    from ftlab.models import loading
    from ftlab.training import classification, machine

    budget = lesson.budget
    with processes.together():
        source = sources.load(
            budget.dataset, test_dataset=budget.test_dataset, from_hub=budget.from_hub, seed=budget.seed,
            most=budget.source_rows, **budget.columns(),
        )  # fmt: skip
        splits = split(
            source, rows=budget.rows or None, validation_rows=budget.validation_rows,
            test_rows=budget.test_rows or None, seed=budget.seed, at_most=budget.sizes_are_bounds,
        )  # fmt: skip
        names = splits.label_names
        classification.require_batches(len(splits.train), budget.batch_size)
        tokenizer = loading.tokenizer(budget.model, split_special_tokens=True)
        report = audit(
            sources.as_frame(splits.train), validation=sources.as_frame(splits.validation), tokenizer=tokenizer,
            max_length=budget.max_length,
        )  # fmt: skip
        unbalanced = "imbalance" in report
        weights = classification.class_weights(splits.train["label"], len(names)) if unbalanced else None
        train, validation = (
            classification.tokenized(part, tokenizer, budget.max_length) for part in (splits.train, splits.validation)
        )
        set_seed(budget.seed)
        model = loading.encoder(budget.model, names, **loading.without_attention_dropout(budget.model))
        model.accepts_loss_kwargs = False  # see `invariants.accumulation`
        arguments = classification.settings(
            lesson.checkpoints, epochs=budget.epochs, batch_size=budget.batch_size, seed=budget.seed,
            learning_rate=budget.learning_rate, weight_decay=budget.weight_decay,
            longest=max(map(len, train["input_ids"])), per_device_eval_batch_size=64, eval_strategy="epoch",
            save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="f1", save_total_limit=1,
            restore_callback_states_from_checkpoint=True, logging_steps=10, **options.arguments(),
        )  # fmt: skip
        trainer = classification.trainer_class()(
            model=model,
            args=arguments,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=_class_metrics,
            compute_loss_func=classification.loss_of_rows(weights, len(names)),
            callbacks=[EarlyStoppingCallback(early_stopping_patience=budget.patience)],
        )
    lesson.used(train=splits.train, validation=splits.validation)
    checkpoint = processes.from_main(lambda: lesson.checkpoint(labels=names, class_weights=weights))
    set_seed(budget.seed)
    with machine.prepared(trainer, max_length=budget.max_length, progress_in=lesson.folder, guard_memory=True):
        trainer.train(resume_from_checkpoint=checkpoint)

    saved = saved_whole(trainer, lesson.checkpoints)
    test = lesson.open_test(splits, "judge the fine-tuned model and two baselines, once")
    lesson.used(test=test)
    plain = loading.load(_sequence_classifier(), str(saved), dtype=torch.float32)
    seen, tuned = (_predicted(plain, tokenizer, part, budget.max_length) for part in (splits.validation, test))

    def judged() -> str:
        temperature = calibration.temperature(seen)
        answers = {
            "majority class": baselines.majority(splits.train, test),
            "TF-IDF": baselines.tfidf(splits.train, test, seed=budget.seed),
            "fine-tuned": calibration.scaled(tuned, temperature),
        }
        scores = comparison.scores(tuned, seed=budget.seed)
        gain = comparison.compare(tuned, answers["TF-IDF"], seed=budget.seed)
        lengths = [len(ids) for ids in tokenizer(list(test["text"]))["input_ids"]]
        lesson.measure(
            accuracy=scores["accuracy"], f1_macro=scores["f1_macro"], mcc=scores["mcc"], temperature=temperature,
            gain=gain.difference,
        )  # fmt: skip
        calibration.fold_into_head(plain, temperature)
        tokenizer.model_max_length = budget.max_length
        with files.atomic(lesson.folder / "model", folder=True) as partial:
            plain.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            write_card(
                partial, lesson, audit=report, answers=answers, temperature=temperature,
                cut=float(np.mean(np.array(lengths) > budget.max_length)),
                precision=next((name for name in ("bf16", "fp16") if getattr(arguments, name)), "fp32"),
            )  # fmt: skip
        with files.atomic(lesson.folder / "predictions.csv") as partial:
            tuned.drop(columns="text").to_csv(partial, index=False)
        return f"accuracy {scores['accuracy']}, gain over TF-IDF {gain.difference}"

    return processes.from_main(judged)


def saved_whole(trainer: Trainer, folder: Path) -> Path:
    """Save the trained model whole, also one whose weights are spread over the processes; each process calls this.

    Args:
        trainer: after training.
        folder: gets a subfolder.

    Returns:
        The subfolder, once all of it is written.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None:
        plugin.set_state_dict_type("FULL_STATE_DICT")  # of a sharded one, Trainer saves no weights here
    whole = folder / "whole"
    with processes.together():
        if processes.is_main():
            shutil.rmtree(whole, ignore_errors=True)
    trainer.save_model(str(whole))
    trainer.accelerator.wait_for_everyone()
    return whole


def shared_out(rows: Dataset, make: Callable[[Dataset], pd.DataFrame]) -> pd.DataFrame:
    """Return the table that `make` makes of `rows`, in their order: each process makes the lines of its own share.

    Args:
        rows: with the column id.
        make: returns a line for each row of a part of them, with the column id.

    Raises:
        BadInput: a line is missing, or is there twice.
    """
    lines = processes.gathered(make(rows.select(processes.share(rows))).to_dict("records"))
    table = pd.DataFrame(processes.joined(lines))
    if list(table["id"]) != list(rows["id"]):
        raise BadInput(f"the {processes.count()} processes answered other rows than the {len(rows):,} they were given")
    return table


def _predicted(model: Any, tokenizer: Any, rows: Dataset, max_length: int) -> pd.DataFrame:
    from ftlab.evaluation.predictions import prediction_table
    from ftlab.models import batches
    from ftlab.training import classification

    def predict(part: Dataset) -> pd.DataFrame:
        encoded = classification.tokenized(part, tokenizer, max_length)
        inputs = {name: list(encoded[name]) for name in batches.MODEL_INPUTS if name in encoded.column_names}
        return prediction_table(part, batches.run(model, tokenizer, inputs, batches.softmax))

    return shared_out(rows, predict)


def _sequence_classifier() -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification


def _class_metrics(prediction: Any) -> Mapping[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    logits, labels = prediction
    predicted = np.argmax(logits, axis=-1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "f1": float(f1_score(labels, predicted, average="macro", zero_division=0.0)),
    }
