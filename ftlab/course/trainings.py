"""The trainings of lessons 02, 04 and 05, from parameters to a folder, in one process or several.

The lessons show the same trainings cell by cell, with the same settings (`classification.settings` and its like) and
the same Trainer; one process comes to the same weights as the lesson. Validation rows choose, test rows judge once.
What is judged is the saved model: each process loads it, and answers its share of the rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ftlab import files
from ftlab.course import auto_budget, card, profiles, runner
from ftlab.course.lesson import checkpoints_folder, give_back, prepare, slug_of, start
from ftlab.data import alpaca_chat, assets, prompts, sources, splits, streamed, streams, tables, tasks
from ftlab.data.audit.basics import IMBALANCE_WARNS_ABOVE
from ftlab.errors import BadInput
from ftlab.internals import transformers as transformers_internals
from ftlab.models import devices, generation, loading, processes
from ftlab.training import checkpoints

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

    from ftlab.course.lesson import Lesson
    from ftlab.data.audit import AuditReport

LESSONS = {"classify": "02_text_classification", "instruct": "04_gpt2_instruction_tuning", "lora": "05_lora_phi2"}
# Where Trainer can report, and the package that it needs for it.
REPORTS = {"trackio": "trackio", "tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
HISTORY = "history.json"  # Trainer's log: loss, gradient norm and learning rate by step
TIMES = 10  # how often a training on a stream is scored and saved
NOT_STREAMED = ("rows", "source_rows", "test_dataset", "patience")
# Parameters of what a lesson shows beside its training, which `train` leaves out.
SHOWN_ONLY = {
    "classify": ("rate_rows",),
    "instruct": (
        "examples", "reckless_learning_rate", "reckless_epochs", "replay", "replay_text", "rated_rows", "ratings"
    ),
    "lora": ("full_learning_rate", "timed_rows"),
}  # fmt: skip
HELD = 5000  # training rows of a stream that are held in memory, for the audit and for baselines
STREAM_TEST = 2000  # test rows of a stream, where the profile takes all that a source has
SCORES = ("accuracy", "f1_macro", "mcc")


@dataclass(frozen=True)
class Options:
    """What a budget does not say.

    Attributes:
        max_steps: optimizer steps, whatever the epochs; 0 for as many as the epochs have.
        report_to: where Trainer reports, too: "none", or one of REPORTS.
        stream: read the rows from their file while it trains, for a file larger than memory.
        resume: go on from the checkpoints of a training that was cut off.
        show_progress: show Trainer's bar and log.
    """

    max_steps: int = 0
    report_to: str = "none"
    stream: bool = False
    resume: bool = False
    show_progress: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return them as arguments of TrainingArguments."""
        steps = {"max_steps": self.max_steps} if self.max_steps else {}
        return {"report_to": self.report_to, "disable_tqdm": not self.show_progress, **steps}

    def identity(self) -> dict[str, Any]:
        """Return those that a checkpoint depends on."""
        return {"max_steps": self.max_steps, "stream": self.stream, "sharding": processes.strategy() or "none"}


@dataclass(frozen=True)
class Trained:
    """The result of a training: its folder, its headline, and what metrics.json holds."""

    folder: Path
    headline: str
    metrics: dict[str, Any]


def train(what: str, profile: str, parameters: Mapping[str, Any], options: Options, out: Path | None) -> Trained:
    """Train, judge and save as a lesson does, in each of the processes that a launcher started.

    Args:
        what: a key of LESSONS.
        profile: smoke, cpu or gpu.
        parameters: values set by hand, by name, as for the lesson.
        options: what is no parameter of the lesson.
        out: gets the folder of the lesson; None for a new folder in runs/.

    Returns:
        The result, in each process.

    Raises:
        BadInput: a parameter or an option cannot be used, or the launcher's configuration and the machine do not fit.
        TrainingFailed: the logits are NaN or infinite.
    """
    name = LESSONS[what]
    with processes.together():
        _require(what, parameters, options, out)
        budget = _budget(name, profile, dict(parameters), options)
        if processes.is_first_here():
            assets.fetch(dict.fromkeys(budget.assets))
    with processes.together():
        budget = auto_budget.fitted(budget, rows=not options.stream)
    with ExitStack() as until_done:

        def taken() -> Path:
            results = until_done.enter_context(runner.folder_of_its_own(out, profile))

            def clear(problem: object, *_: object) -> None:
                if problem is None:  # with the folder in its place, and before another training may take it
                    checkpoints.remove(checkpoints_folder(results, name))

            until_done.push(clear)
            return until_done.enter_context(files.atomic(results / name, folder=True, error=BadInput))

        folder = processes.from_main(taken)
        until_done.enter_context(_environment(folder.parent / f"{name}.tensorboard"))
        until_done.callback(give_back, folder, name)
        with processes.together():
            lesson = start(name, budget, folder)
        headline = TRAININGS[what](lesson, options)

        def finished() -> dict[str, Any]:
            lesson.finish(headline)
            return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))

        metrics = processes.from_main(finished)
    return Trained(folder.parent / name, headline, metrics)


@contextmanager
def _environment(tensorboard: Path) -> Iterator[None]:
    """Return a context with the settings that the libraries read from the environment.

    TensorBoard's files would else lie among the checkpoints, which are removed. And the precision is that of the
    machine, whatever the launcher's configuration says: TrainingArguments would take that one without noting it.
    """
    wanted = devices.mixed_precision()
    precision = next((name for name in ("bf16", "fp16") if wanted[name]), "no")
    before = dict(os.environ)
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(tensorboard))
    os.environ["ACCELERATE_MIXED_PRECISION"] = precision
    try:
        yield
    finally:
        for variable in ("TENSORBOARD_LOGGING_DIR", "ACCELERATE_MIXED_PRECISION"):
            os.environ.pop(variable, None)
            if variable in before:
                os.environ[variable] = before[variable]


def _require(what: str, parameters: Mapping[str, Any], options: Options, out: Path | None) -> None:
    """Raise BadInput if `options` cannot be used."""
    if options.report_to != "none" and find_spec(REPORTS[options.report_to]) is None:
        raise BadInput(
            f"--report-to {options.report_to} needs the package {REPORTS[options.report_to]}, which is not installed; "
            f"install it (pip install {REPORTS[options.report_to]}), or leave the option out"
        )
    if shown := [name for name in SHOWN_ONLY[what] if parameters.get(name) is not None]:
        lesson = LESSONS[what][:2]
        raise BadInput(
            f"ftlab train {what} does not take {', '.join(shown)}, which is for what lesson {lesson} shows beside its "
            f"training; leave it out, or run the lesson (ftlab run {lesson})"
        )
    if parameters.get("resume") is not None:
        raise BadInput("resume is no parameter of a training; give it as an option (--resume)")
    if options.resume and out is None:
        raise BadInput("--resume goes on in the folder of a training that was cut off; name that folder with --out")
    if processes.strategy() == processes.FSDP and (
        os.environ.get("FSDP_VERSION") != "2" or os.environ.get("FSDP_STATE_DICT_TYPE") != "SHARDED_STATE_DICT"
    ):
        raise BadInput(
            "the launcher's configuration asks for another FSDP than this command knows; expected fsdp_version: 2 and "
            "fsdp_state_dict_type: SHARDED_STATE_DICT, as in configs/accelerate/eight_gpus_fsdp2.yaml"
        )
    if options.resume and processes.strategy() == processes.DEEPSPEED:
        raise BadInput(
            "--resume does not read the checkpoints of DeepSpeed; train anew, or with FSDP "
            "(configs/accelerate/eight_gpus_fsdp2.yaml), whose checkpoints it reads"
        )
    if not options.stream:
        return
    if what != "classify":
        raise BadInput(
            f"--stream is for `ftlab train classify`; `ftlab train {what}` holds its rows in memory (a million pairs "
            "take a few GB), so leave --stream out"
        )
    dataset = parameters.get("dataset")
    if dataset == streams.STDIN:
        raise BadInput(streamed.NO_STDIN)
    if not dataset or dataset in sources.SOURCES or sources.comes_from_hub(str(dataset)):
        raise BadInput(
            f"--stream reads a file of yours, whose rows it can count for the schedule, and the rows are {dataset!r}; "
            "give the path of a file with --data, or leave --stream out"
        )
    if unused := [name for name in NOT_STREAMED if parameters.get(name)]:
        raise BadInput(
            f"--stream trains on every row of its file that is not held out, so it does not take {', '.join(unused)}; "
            "leave it out, and shorten the training with --max-steps"
        )


def _budget(name: str, profile: str, parameters: dict[str, Any], options: Options) -> profiles.Budget:
    """Return the budget of lesson `name`. A file that is streamed is not read for it."""
    if not options.stream:
        return prepare(slug_of(name), profile, parameters)
    own = {
        column: profiles.PARAMETERS[column].parse(column, parameters.pop(column))
        for column in ("dataset", *profiles.COLUMNS)
        if parameters.get(column) is not None
    }
    budget = prepare(slug_of(name), profile, parameters)
    settings = {**budget.settings, **own, "from_hub": False, "rows": 0, "source_rows": 0}
    return replace(budget, settings=settings, overrides={**budget.overrides, **own})


# ---------------------------------------------------------------- lesson 02


@dataclass
class _Texts:
    """The rows of a classification: to train on, to choose by, and a sealed test split."""

    train: Any  # a Dataset with the outputs of the tokenizer, or texts without end
    validation: Dataset  # with the outputs of the tokenizer
    held_out: splits.Splits | streamed.Streamed
    labels: list[str]
    counts: list[int]  # training rows of each label
    read: Dataset  # training rows that baselines are fitted on, and that are audited
    longest: int  # tokens
    apart: str  # what stands in one split alone, in a sentence

    def needs_weights(self, report: AuditReport) -> bool:
        """Return whether the classes are so unequal that lesson 02 weights them; `report` is the audit of `read`."""
        if len(self.read) == sum(self.counts):
            return "imbalance" in report
        return max(self.counts) > IMBALANCE_WARNS_ABOVE * min(self.counts)


def classify(lesson: Lesson, options: Options) -> str:
    """Train a classifier as lesson 02 does, and return its result in a few words.

    `lesson` has begun, with the budget of lesson 02, and `options` are those of `train`. It leaves in the lesson's
    folder: model/ with its card, predictions.csv and history.json.
    """
    from transformers import DataCollatorWithPadding, EarlyStoppingCallback, Trainer, set_seed

    from ftlab.data.audit import audit
    from ftlab.training import classification, distributed

    budget = lesson.budget
    with processes.together():
        tokenizer = loading.tokenizer(budget.model, split_special_tokens=True)
        rows = (_streamed if options.stream else _in_memory)(lesson, tokenizer)
        # Without the groups of a stream: of each the sample has few rows, or one.
        validation = rows.held_out.validation.select_columns(rows.read.column_names)
        report = audit(
            sources.as_frame(rows.read), validation=sources.as_frame(validation), tokenizer=tokenizer,
            max_length=budget.max_length,
        )  # fmt: skip
        weights = classification.balanced(rows.counts) if rows.needs_weights(report) else None
        when = {"eval_strategy": "epoch", "save_strategy": "epoch", **options.arguments()}
        if options.stream:
            when |= _in_steps(sum(rows.counts), lesson, options)
        processes.load_in_each_process()
        # Before the model: with FSDP or DeepSpeed, the arguments decide how it is loaded.
        arguments = classification.settings(
            lesson.checkpoints, epochs=budget.epochs, batch_size=budget.batch_size, seed=budget.seed,
            learning_rate=budget.learning_rate, weight_decay=budget.weight_decay, longest=rows.longest,
            per_device_eval_batch_size=64, load_best_model_at_end=True, metric_for_best_model="f1", save_total_limit=1,
            restore_callback_states_from_checkpoint=True, logging_steps=10, **when,
        )  # fmt: skip
        set_seed(budget.seed)
        model = loading.encoder(budget.model, rows.labels, **loading.without_attention_dropout(budget.model))
        model.accepts_loss_kwargs = False  # see `invariants.accumulation`
        padded = DataCollatorWithPadding(tokenizer)
        trainer = distributed.trainer_class(Trainer)(
            model=model,
            args=arguments,
            train_dataset=rows.train,
            eval_dataset=rows.validation,
            processing_class=tokenizer,
            data_collator=classification.of_texts(padded, tokenizer, budget.max_length) if options.stream else padded,
            compute_metrics=classification.scores,
            compute_loss_func=classification.loss_of_rows(weights, len(rows.labels)),
            callbacks=[] if options.stream else [EarlyStoppingCallback(early_stopping_patience=budget.patience)],
        )
    checkpoint = _checkpoint(lesson, options, labels=rows.labels, class_weights=weights)
    set_seed(budget.seed)
    _train(trainer, lesson, checkpoint, guard_memory=not processes.strategy())
    saved = saved_whole(trainer, lesson)
    del trainer  # with it goes the memory of the optimizer

    test = lesson.open_test(rows.held_out, "judge the fine-tuned model and two baselines, once")
    lesson.used(test=test)
    with processes.together():
        model = _classifier(saved)
        seen, tuned = (
            shared_out(part, lambda own: _predicted(model, tokenizer, own, budget.max_length))
            for part in (rows.held_out.validation, test)
        )
    return processes.from_main(
        lambda: _judge_labels(lesson, rows, report, model, tokenizer, {"seen": seen, "tuned": tuned}, arguments)
    )


def _in_memory(lesson: Lesson, tokenizer: PreTrainedTokenizerBase) -> _Texts:
    from ftlab.training import classification

    budget = lesson.budget
    columns: dict[str, Any] = budget.columns()
    source = sources.load(
        budget.dataset, test_dataset=budget.test_dataset, from_hub=budget.from_hub, seed=budget.seed,
        most=budget.source_rows, **columns,
    )  # fmt: skip
    found = splits.split(
        source, rows=budget.rows or None, validation_rows=budget.validation_rows, test_rows=budget.test_rows or None,
        seed=budget.seed, at_most=budget.sizes_are_bounds,
    )  # fmt: skip
    _require_rows(len(found.train), budget.batch_size)
    train, validation = (
        classification.tokenized(part, tokenizer, budget.max_length) for part in (found.train, found.validation)
    )
    lesson.used(train=found.train, validation=found.validation)
    counts = np.bincount(found.train["label"], minlength=len(found.label_names)).tolist()
    longest = max(map(len, train["input_ids"]))
    return _Texts(train, validation, found, found.label_names, counts, found.train, longest, card.APART)


def _streamed(lesson: Lesson, tokenizer: PreTrainedTokenizerBase) -> _Texts:
    """Rows of a file that does not fit into memory; some of the training rows are held, for baselines."""
    from ftlab.models.batches import MODEL_INPUTS
    from ftlab.training import classification

    budget = lesson.budget
    columns: dict[str, Any] = {name: value for name, value in budget.columns().items() if value}
    file = files.named_path(budget.dataset, "the path of a file")[0]
    tables.require_table(file, [columns.get("text_column", "text"), columns.get("label_column", "label")])
    lesson.used_stream(file)
    found = processes.from_main(  # one process reads all of the file, which takes minutes
        lambda: streamed.survey(
            budget.dataset, **columns, validation_rows=budget.validation_rows, seed=budget.seed,
            test_rows=budget.test_rows or STREAM_TEST, sample_rows=HELD,
        )
    )  # fmt: skip
    if not processes.is_main():
        found = found.on_this_machine()
    lesson.used_stream(file, rows=found.rows)
    _require_rows(found.rows, budget.batch_size)
    validation = classification.tokenized(found.validation, tokenizer, budget.max_length)
    inputs = [name for name in (*MODEL_INPUTS, "label") if name in validation.column_names]
    lesson.used(validation=found.validation)
    return _Texts(
        found.endless(budget.seed), validation.select_columns(inputs), found, found.labels,
        [found.counts[name] for name in found.labels], found.sample.select_columns(["id", "text", "label"]),
        budget.max_length, card.STREAM_GROUPS_APART if columns.get("group_column") else card.STREAM_APART,
    )  # fmt: skip


def _in_steps(rows: int, lesson: Lesson, options: Options) -> dict[str, Any]:
    """Return the training arguments by which a stream of `rows` has an end, and is scored and saved on its way."""
    steps = options.max_steps or max(1, int(lesson.budget.epochs * rows) // lesson.budget.batch_size)
    every = -(-steps // TIMES)
    return {
        "max_steps": steps, "eval_strategy": "steps", "eval_steps": every, "save_strategy": "steps",
        "save_steps": every, "train_sampling_strategy": "sequential", "remove_unused_columns": False,
        "accelerator_config": {"dispatch_batches": False},  # each process reads the file, and takes its share
    }  # fmt: skip


def _require_rows(rows: int, batch_size: int) -> None:
    from ftlab.training import classification

    if rows < processes.count():
        raise BadInput(
            f"there are {rows:,} training rows for {processes.count()} processes, and each needs one; start fewer "
            "processes, or add rows"
        )
    classification.require_batches(rows, batch_size)


def _classifier(folder: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = loading.load(AutoModelForSequenceClassification, str(folder), dtype=torch.float32)
    return model.to(torch.device(devices.best_device()))


def _predicted(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Dataset, max_length: int
) -> pd.DataFrame:
    from ftlab.evaluation.predictions import prediction_table
    from ftlab.models import batches
    from ftlab.training import classification

    encoded = classification.tokenized(rows, tokenizer, max_length)
    inputs = {name: list(encoded[name]) for name in batches.MODEL_INPUTS if name in encoded.column_names}
    return prediction_table(rows, batches.run(model, tokenizer, inputs, batches.softmax))


def _judge_labels(
    lesson: Lesson, rows: _Texts, report: AuditReport, model: Any, tokenizer: Any, tables: Mapping[str, pd.DataFrame],
    arguments: Any,
) -> str:  # fmt: skip
    """Measure, and save the calibrated model with its card."""
    from ftlab.evaluation import baselines, calibration, comparison

    budget, seen, tuned = lesson.budget, tables["seen"], tables["tuned"]
    test = lesson.tested
    temperature = calibration.temperature(seen)
    some = "" if len(rows.read) == sum(rows.counts) else f" on {len(rows.read):,} rows"
    answers = {
        f"majority class{some}": baselines.majority(rows.read, test),
        f"TF-IDF{some}": baselines.tfidf(rows.read, test, seed=budget.seed),
        "fine-tuned": calibration.scaled(tuned, temperature),
    }
    scores = comparison.scores(tuned, seed=budget.seed)
    gain = comparison.compare(tuned, answers[f"TF-IDF{some}"], seed=budget.seed)
    lesson.measure(
        **{f"{name}_{end}": getattr(scores[name], end) for name in SCORES for end in ("value", "low", "high")}
    )
    lesson.measure(gain=gain.difference, mcnemar_p=gain.p_value, temperature=temperature)
    lengths = [len(ids) for ids in tokenizer(list(test["text"]))["input_ids"]]
    calibration.fold_into_head(model, temperature)
    tokenizer.model_max_length = budget.max_length
    with files.atomic(lesson.folder / "model", folder=True) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        card.write_card(
            partial, lesson, audit=report, answers=answers, temperature=temperature,
            cut=float(np.mean(np.array(lengths) > budget.max_length)), audited=some.removeprefix(" on "),
            apart=rows.apart,
            precision=next((name for name in ("bf16", "fp16") if getattr(arguments, name)), "fp32"),
        )  # fmt: skip
    with files.atomic(lesson.folder / "predictions.csv") as partial:
        tuned.drop(columns="text").to_csv(partial, index=False)
    return f"accuracy {scores['accuracy']}, gain over TF-IDF{some} {gain.difference}"


# ---------------------------------------------------------------- lessons 04 and 05


@dataclass
class _Pairs:
    """The rows of an instruction task, encoded as training reads them."""

    splits: splits.Splits
    tokenizer: Any
    template: prompts.Format
    train: Dataset
    validation: Dataset


def _pairs(lesson: Lesson) -> _Pairs:
    budget = lesson.budget
    found = tasks.load(
        budget.task, rows=budget.rows or None, validation_rows=budget.validation_rows, test_rows=budget.test_rows,
        seed=budget.seed, at_most=budget.sizes_are_bounds, most=budget.source_rows, without=budget.left_out,
    )  # fmt: skip
    _require_rows(len(found.train), budget.batch_size)
    tokenizer = loading.tokenizer(budget.model)
    template = prompts.named(budget.template, tokenizer)
    train, validation = (
        prompts.encode(part, tokenizer, max_length=budget.max_length, template=template)[0]
        for part in (found.train, found.validation)
    )
    lesson.used(train=found.train, validation=found.validation)
    return _Pairs(found, tokenizer, template, train, validation)


def instruct(lesson: Lesson, options: Options) -> str:
    """Train on instructions in full, as lesson 04 does, and return the result in a few words.

    `lesson` has begun, with the budget of lesson 04, and `options` are those of `train`. It leaves in the lesson's
    folder: model/, answers.csv and history.json.
    """
    import torch
    from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, set_seed

    from ftlab.training import distributed, instruction

    budget = lesson.budget
    with processes.together():
        rows = _pairs(lesson)
        arguments = instruction.settings(
            lesson.checkpoints, epochs=budget.epochs, batch_size=budget.batch_size, seed=budget.seed,
            learning_rate=budget.learning_rate, logging_steps=0.05, eval_strategy="epoch",
            **{"save_strategy": "epoch", "save_total_limit": 1, **options.arguments()},
        )  # fmt: skip
        model = loading.causal_lm(budget.model)
        set_seed(budget.seed)
        trainer = distributed.trainer_class(instruction.SupervisedTrainer)(
            model=model,
            args=arguments,
            data_collator=DataCollatorForSeq2Seq(rows.tokenizer, label_pad_token_id=prompts.IGNORED),
            train_dataset=rows.train.select_columns(instruction.COLUMNS),
            eval_dataset=rows.validation.select_columns(instruction.COLUMNS),
        )
    checkpoint = _checkpoint(lesson, options)
    _train(trainer, lesson, checkpoint, what="fine-tuning")
    saved = saved_whole(trainer, lesson)
    del trainer, model

    test = lesson.open_test(rows.splits, "to judge the base model and the tuned one")
    lesson.used(test=test)
    with processes.together():
        before = _answered(loading.causal_lm(budget.model), rows, test, lesson)
        model = loading.load(AutoModelForCausalLM, str(saved), dtype=torch.float32)
        loading.match_pad_token(model, rows.tokenizer)
        after = _answered(model, rows, test, lesson)

    def judged() -> str:
        headline = _judge_answers(lesson, rows, {"base": before, "tuned": after})
        ends = generation.end_tokens(model, rows.tokenizer, prompts.ends(rows.template, rows.tokenizer))
        model.generation_config.eos_token_id = ends
        with files.atomic(lesson.folder / "model", folder=True) as partial:
            model.save_pretrained(partial)
            alpaca_chat.with_template(rows.tokenizer, rows.template).save_pretrained(partial)
        return headline

    return processes.from_main(judged)


def lora(lesson: Lesson, options: Options) -> str:
    """Train an adapter as lesson 05 does, and return the result in a few words.

    `lesson` has begun, with the budget of lesson 05, and `options` are those of `train`. It leaves in the lesson's
    folder: adapter/, answers.csv and history.json.
    """
    import torch
    from peft import PeftModel, get_peft_model
    from transformers import set_seed

    from ftlab.adapters import lora as adapters
    from ftlab.training import distributed, sft

    budget = lesson.budget
    names = budget.target_modules.split() or None
    names = names[0] if names == [adapters.ALL_LINEAR] else names
    # Trainer can go on at the end of an epoch, or within the first: only there it draws the same order again.
    halves = {"eval_strategy": "steps", "eval_steps": 0.5, "save_strategy": "steps", "save_steps": 0.5}
    epochs = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    when = halves if not options.max_steps and (budget.epochs <= 1 or budget.epochs % 2 == 0) else epochs
    with processes.together():
        if budget.quantize and processes.strategy():
            raise BadInput(
                f"quantize is set, and {processes.strategy()} does not shard weights that bitsandbytes has packed, so "
                "each GPU would hold all of them; take configs/accelerate/eight_gpus_ddp.yaml, or leave quantize out"
            )
        rows = _pairs(lesson)
        arguments = sft.settings(
            lesson.checkpoints / "adapter", max_length=budget.max_length, epochs=budget.epochs,
            batch_size=budget.batch_size, learning_rate=budget.learning_rate, accumulation=budget.accumulation,
            seed=budget.seed, train_sampling_strategy="group_by_length", logging_steps=0.05, save_total_limit=1,
            load_best_model_at_end=True, metric_for_best_model="eval_loss", **{**when, **options.arguments()},
        )  # fmt: skip
        base = _base_of_adapter(lesson)
        torch.manual_seed(budget.seed)
        config = adapters.config(
            base, rank=budget.rank, alpha=budget.alpha, target_modules=names, variant=budget.variant
        )
        wrapped = get_peft_model(base, config)
        set_seed(budget.seed)
        trainer = distributed.trainer_class(sft.SupervisedSFTTrainer)(
            model=wrapped,
            args=arguments,
            train_dataset=rows.train.select_columns(sft.COLUMNS),
            eval_dataset=rows.validation.select_columns(sft.COLUMNS),
            processing_class=rows.tokenizer,
        )
    checkpoint = _checkpoint(lesson, options, "adapter")
    _train(trainer, lesson, checkpoint, what="adapter")
    saved = saved_whole(trainer, lesson)
    del trainer, wrapped, base

    def kept() -> None:
        trained = PeftModel.from_pretrained(_base_of_adapter(lesson), str(saved))
        form = alpaca_chat.with_template(rows.tokenizer, rows.template).chat_template
        adapters.save(trained, lesson.folder / "adapter", budget.model, chat_template=form)

    processes.from_main(kept)
    test = lesson.open_test(rows.splits, "to judge the base model and the adapter")
    lesson.used(test=test)
    with processes.together():
        base = _base_of_adapter(lesson).eval()
        before = _answered(base, rows, test, lesson)  # not with the adapter off: PiSSA changes the weights of its base
        tuned = adapters.load(base, lesson.folder / "adapter", budget.model).eval()
        after = _answered(tuned, rows, test, lesson)
    return processes.from_main(lambda: _judge_answers(lesson, rows, {"base": before, "adapter": after}))


def _train(trainer: Trainer, lesson: Lesson, checkpoint: str | None, **options: Any) -> None:
    """Train, with the `options` of `machine.prepared`."""
    from transformers import set_seed

    from ftlab.memory import guard
    from ftlab.training import machine

    if processes.index():
        set_seed(lesson.budget.seed + processes.index())  # of dropout; the order of the rows is the main process's
    with ExitStack() as while_training:
        with processes.together():  # one of them may find too little memory
            prepared = machine.prepared(
                trainer, max_length=lesson.budget.max_length, progress_in=lesson.folder, **options
            )
            while_training.enter_context(prepared)
            if not options.get("guard_memory"):  # which says more
                rows = trainer.args.per_device_train_batch_size
                while_training.enter_context(guard.out_of_memory(rows=rows, length=lesson.budget.max_length))
        trainer.train(resume_from_checkpoint=checkpoint)


def _base_of_adapter(lesson: Lesson) -> Any:
    """Return the base model, with frozen weights in the dtype of lesson 05, on the device of this process."""
    import torch

    from ftlab.adapters import quantized

    dtype, device = devices.frozen_dtype(), devices.best_device()
    if not lesson.budget.quantize:
        base = loading.causal_lm(lesson.budget.model, dtype=dtype)
        return base if processes.strategy() else base.to(torch.device(device))  # a shard of it may be all that fits
    four_bits = quantized.four_bit_config(device)
    base = loading.causal_lm(lesson.budget.model, dtype=dtype, quantization_config=four_bits)
    quantized.keep_trainable(base)
    return base


@dataclass
class _Answers:
    """What a model answered to the test rows, and its losses on them and on the general text."""

    table: pd.DataFrame
    losses: pd.DataFrame
    general: pd.DataFrame


def _answered(model: Any, rows: _Pairs, test: Dataset, lesson: Lesson) -> _Answers:
    """Ask `model`, of which each process has a copy; each answers its share."""
    from datasets import Dataset

    from ftlab.evaluation import answers, forgetting, losses

    budget = lesson.budget

    def said(own: Dataset) -> pd.DataFrame:
        return answers.answer(model, rows.tokenizer, own, max_new_tokens=budget.max_new_tokens, template=rows.template)

    def lost(own: Dataset) -> pd.DataFrame:
        encoded, _ = prompts.encode(own, rows.tokenizer, max_length=budget.max_length, template=rows.template)
        return losses.row_losses(model, rows.tokenizer, encoded).assign(id=list(own["id"]))

    def surprised(own: Dataset) -> pd.DataFrame:
        return forgetting.passage_losses(model, rows.tokenizer, list(own["text"])).assign(id=list(own["id"]))

    passages = forgetting.general_passages()[: budget.passages]
    general = Dataset.from_dict({"id": [str(number) for number in range(len(passages))], "text": passages})
    with devices.in_dtype(model, devices.answer_dtype()):
        before = model.device
        if not budget.settings.get("quantize"):
            model.to(devices.best_device())  # in half precision, if there is
        found = _Answers(shared_out(test, said), shared_out(test, lost), shared_out(general, surprised))
        if not budget.settings.get("quantize"):
            model.to(before)
        return found


def _judge_answers(lesson: Lesson, rows: _Pairs, found: Mapping[str, _Answers]) -> str:
    """Measure the trained model, the last of `found`, against the base, and write its answers."""
    from ftlab.evaluation import answers, forgetting, losses

    budget, (before, after), name = lesson.budget, found.values(), list(found)[-1]
    measures = answers.OF_TASK.get(budget.task, answers.OF_OWN)
    scores = {
        one: answers.scores(answers.measured(each.table, measures), seed=budget.seed) for one, each in found.items()
    }
    for one, each in scores.items():
        lesson.measure(**{f"{one}_{measure}": each[measure] for measure in measures})
    main = answers.main_metric(measures, lesson.tested)
    if answers.has_labels(lesson.tested):
        counted = answers.by_word_counts(rows.splits.train, lesson.tested, seed=budget.seed)
        counted_score = answers.scores(answers.measured(counted, measures), seed=budget.seed)[main]
        lesson.measure(**{f"word_counts_{main}": counted_score})
    change = losses.difference(before.losses, after.losses, seed=budget.seed)
    forgot = forgetting.change(before.general, after.general, seed=budget.seed)
    lesson.measure(**{f"loss_change_{name}": change, f"perplexity_over_base_{name}": forgot})
    with files.atomic(lesson.folder / "answers.csv") as partial:
        after.table.assign(loss=after.losses["loss"]).to_csv(partial, index=False)
    score, base = scores[name][main], scores["base"][main]
    return (
        f"{main} {score} on {len(lesson.tested)} rows, base {base.value:.3f}; held-out loss {change.value:+.2f}, "
        f"perplexity x{forgot.value:.2f}"
    )


# ---------------------------------------------------------------- all of them


def _checkpoint(lesson: Lesson, options: Options, name: str = "", **depends_on: Any) -> str | None:
    """Return the checkpoint to go on from, in each process, which has read the same rows."""
    processes.require_same("rows", files.to_json({split: noted["sha256"] for split, noted in lesson.data.items()}))
    return processes.from_main(
        lambda: lesson.checkpoint(name, resume=options.resume, **options.identity(), **depends_on)
    )


def saved_whole(trainer: Trainer, lesson: Lesson) -> Path:
    """Save the trained model whole, also one whose weights are spread over the processes; each process calls this.

    Args:
        trainer: after training.
        lesson: its folder gets Trainer's log, and that of its checkpoints the model.

    Returns:
        The folder of the model, once all of it is written.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None:
        plugin.set_state_dict_type("FULL_STATE_DICT")  # of a sharded one, Trainer saves no weights here
    whole = lesson.checkpoints / "whole"

    def cleared() -> None:
        files.remove(whole)
        files.write_json(lesson.folder / HISTORY, trainer.state.log_history)

    processes.from_main(cleared)
    trainer.save_model(str(whole))
    trainer.accelerator.wait_for_everyone()
    if processes.strategy() == processes.DEEPSPEED:
        transformers_internals.load_models_whole()
    return whole


def shared_out(rows: Dataset, make: Callable[[Dataset], pd.DataFrame]) -> pd.DataFrame:
    """Return the table that `make` makes of `rows`, in their order: each process makes the lines of its own share.

    Args:
        rows: with the column id.
        make: returns a line for each row of a part of them, with the column id.

    Raises:
        BadInput: a line is missing, or is there twice.
    """
    places = processes.share(rows)
    with processes.together():
        lines = make(rows.select(places)).to_dict("records") if places else []
    table = pd.DataFrame(processes.joined(processes.gathered(lines)))
    if list(table["id"]) != list(rows["id"]):
        raise BadInput(f"the {processes.count()} processes answered other rows than the {len(rows):,} they were given")
    return table


TRAININGS: dict[str, Callable[[Lesson, Options], str]] = {"classify": classify, "instruct": instruct, "lora": lora}
