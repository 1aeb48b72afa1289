"""Record what an exercise hands in: each method writes the files that its docstring names, and nothing else.

An argument that is still `...`, as the starter leaves it, writes nothing: the method says what it waits for. A try
begins with `rows` or `instructions`. Its files are written with the first result that follows; an earlier try is then
moved to the folder `earlier`, and kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab import files
from ftlab.data import sources
from ftlab.errors import BadInput
from ftlab.exercises.handed_in import ATTEMPT, EARLIER, FORMAT, HandedIn
from ftlab.exercises.manifest import Level
from ftlab.wording import quoted

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer

    from ftlab.evaluation.rating import Sheet

ARGUMENTS = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "train_batch_size", "world_size",
    "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "seed",
    "logging_strategy", "logging_first_step", "eval_strategy", "save_strategy", "train_sampling_strategy",
    "load_best_model_at_end", "metric_for_best_model",
    "label_smoothing_factor", "fp16", "bf16", "dataloader_drop_last",
)  # fmt: skip
STATE = ("global_step", "max_steps", "epoch", "logging_steps", "best_global_step", "log_history")
LABEL_COLUMNS = ("labels", "label")


MODELS = ("base", "tuned")
MOVING = ".moving"  # in the folder of earlier tries: the one that is being moved there, until it is whole
TOKENS_OF = 64  # training rows whose token ids are recorded, to see that each has the text of its id
LANGUAGE_MODEL = "level3"


class Recorder:
    """Writes the work folder `folder` of a `level`; `about` goes into attempt.json (profile, seed, model, dataset)."""

    def __init__(self, level: Level, folder: Path, about: Mapping[str, Any]) -> None:
        self.level = level
        self.folder = folder
        self._about = dict(about)
        self._begun = False
        self._first: dict[str, list[dict[str, Any]]] = {}  # rows that wait for a result

    def rows(self, *, train: Any, validation: Any, test: Any) -> None:
        """Begin a try with rows.jsonl: id, split, text and label of each row.

        Args:
            train: a Dataset with id, text and label (a ClassLabel).
            validation: the rows that choose, the same.
            test: the rows that judge, the same.
        """
        if self._waits("rows", train=train, validation=validation, test=test):
            return
        lines = [
            {"id": str(number), "split": split, "text": text, "label": rows.features["label"].names[label]}
            for split, rows in (("train", train), ("validation", validation), ("test", test))
            for number, text, label in zip(rows["id"], rows["text"], rows["label"], strict=True)
        ]
        if origin := _origin(train):  # of a data set on the hub, with its commit
            self._about["origin"] = origin
        self._begin_with({"rows.jsonl": lines})

    def instructions(self, rows: Any, prompts: Any) -> None:
        """Begin a try with rows.jsonl and prompts.jsonl: id, instruction and input; rows have an output, too.

        Args:
            rows: the training rows, as dicts with instruction, output and perhaps id and input.
            prompts: the new prompts, the same without an output.
        """
        if self._waits("instructions", rows=rows, prompts=prompts):
            return
        written = {}
        for name, some in (("row", rows), ("prompt", prompts)):
            fields = ("instruction", "input", "output") if name == "row" else ("instruction", "input")
            some = list(map(dict, some))
            _require_texts(some, fields, name)
            written[f"{name}s.jsonl"] = [
                {
                    "id": str(one.get("id") or f"{name}-{number:03d}"),
                    **{field: one.get(field) or "" for field in fields},
                }
                for number, one in enumerate(some)
            ]
        self._begin_with(written)

    def training(self, trainer: Any, run: str = "") -> None:
        """Write arguments.json and log.json: what the Trainer was given, its log, and the rows that it saw.

        For a language model it also writes tokens.jsonl: the ids and labels of each training row.

        Args:
            trainer: after `trainer.train()`.
            run: the name of the run, where a level has several: full or frozen.

        Raises:
            BadInput: it has not trained, or its rows have lost their ids.
        """
        if self._waits("training", trainer=trainer):
            return
        state = trainer.state
        if not state.log_history:
            raise BadInput("the Trainer has no log, so it has not trained; call trainer.train() first")
        rows = trainer.train_dataset.with_format(None)  # a format of torch would hide the column id
        tokens = _tokens(rows, trainer.data_collator) if self.level.name == LANGUAGE_MODEL else []
        if not tokens and self.level.name == LANGUAGE_MODEL:
            raise BadInput("the training rows of the Trainer have no column labels; make it when you encode the rows")
        if not tokens and "id" not in rows.column_names:
            raise BadInput(
                "the training rows of the Trainer have no column id, so their labels cannot be checked; keep the "
                "column (the Trainer ignores it)"
            )
        arguments = {name: _plain(getattr(trainer.args, name, None)) for name in ARGUMENTS}
        arguments["device"] = trainer.args.device.type
        arguments["own_loss"] = _has_own_loss(trainer)
        if state.train_batch_size:  # the Trainer may have found a smaller one
            arguments["train_batch_size"] = state.train_batch_size
        log = {name: _plain(getattr(state, name, None)) for name in STATE}
        log |= {"rows": len(rows), "train_rows": _ids(rows), "eval_rows": _ids(trainer.eval_dataset)}
        if tokens:
            self._write_lines(self._in(run, "tokens.jsonl"), tokens)
        else:
            log["train_labels"] = _labels(trainer, rows)
            log["train_tokens"] = [list(ids) for ids in rows[:TOKENS_OF].get("input_ids", [])]
        self._write(self._in(run, "arguments.json"), arguments)
        self._write(self._in(run, "log.json"), log)

    def weights(self, model: Any, tokenizer: Any, *, max_length: int | None = None, run: str = "") -> None:
        """Write the folder model: weights as safetensors, config and tokenizer; of a LoRA model, the adapter.

        Args:
            model: the trained model.
            tokenizer: its tokenizer.
            max_length: tokens at which texts were cut; the saved tokenizer cuts there, too.
            run: as for `training`.

        Raises:
            BadInput: a classifier is still wrapped by PEFT.
        """
        if self._waits("weights", model=model, tokenizer=tokenizer, max_length=max_length):
            return
        wrapped = hasattr(model, "peft_config")
        if wrapped and self.level.name != "level3":
            raise BadInput("this level hands in a whole model; merge the adapter first: model.merge_and_unload()")
        target = self.folder / self._in(run, "model")
        self._require_begun()
        if wrapped:
            from ftlab.adapters import lora

            with files.atomic(target, folder=True, error=BadInput) as partial:
                lora.save(model, partial, self._about["model"])
                _save_tokenizer(tokenizer, partial, max_length)
            return
        with files.atomic(target, folder=True, error=BadInput) as partial:
            model.save_pretrained(partial)
            _save_tokenizer(tokenizer, partial, max_length)

    def predictions(self, table: Any, run: str = "") -> None:
        """Write predictions.csv: for each test row its id, label, prediction, and a probability for each label.

        Args:
            table: with the columns id, label, prediction, and p_<label> for each label.
            run: as for `training`.
        """
        self._predictions("predictions", table, run)

    def baseline(self, table: Any) -> None:
        """Write baseline.csv: `table` has the predictions of TF-IDF, in the form of `predictions`."""
        self._predictions("baseline", table, "")

    def report(self, report: Any) -> None:
        """Write report.json: `report` is what `classification_report(..., output_dict=True)` returns.

        Raises BadInput if it is no dict.
        """
        if self._waits("report", report=report):
            return
        if not isinstance(report, Mapping):
            what = "a text" if isinstance(report, str) else f"an object of class {type(report).__name__}"
            raise BadInput(f"the report is {what}; call classification_report with output_dict=True")
        self._write("report.json", {str(name): _plain(value) for name, value in report.items()})

    def answers(self, model: str, prompts: Any, answers: Any, *, do_sample: Any, max_new_tokens: Any) -> None:
        """Write answers_base.json or answers_tuned.json: the answer to each prompt, and how it was decoded.

        Args:
            model: "base" or "tuned".
            prompts: the text that the model read for each of the new prompts, in their order.
            answers: what it wrote after each, without special tokens.
            do_sample: of `model.generate`.
            max_new_tokens: of `model.generate`.

        Raises:
            BadInput: another model, another number of answers than of prompts, or one that is no text.
        """
        given = {"prompts": prompts, "answers": answers, "do_sample": do_sample, "max_new_tokens": max_new_tokens}
        if self._waits("answers", **given):
            return
        if model not in MODELS:
            raise BadInput(f"the model is {quoted(model)}; expected base or tuned")
        if len(prompts) != len(answers):
            raise BadInput(f"there are {len(answers)} answers to {len(prompts)} prompts; record one for each prompt")
        for what, texts in (("prompt", prompts), ("answer", answers)):
            if odd := next(((place, one) for place, one in enumerate(texts) if not isinstance(one, str)), None):
                raise BadInput(
                    f"{what} {odd[0]} of the {model} model is {quoted(odd[1])}; expected a text: decode token ids with "
                    "tokenizer.decode(ids, skip_special_tokens=True)"
                )
        self._write(f"answers_{model}.json", {name: _plain(value) for name, value in given.items()})

    def ratings(self, rater: Any) -> None:
        """Write ratings.csv, the blind form with the ratings so far, and sheet.json, how its order was drawn.

        `rater` is the rating form that `rate` of this level has shown.
        """
        if self._waits("ratings", rater=rater):
            return
        self._require_begun()
        rater.save(self.folder / "ratings.csv")
        self._write("sheet.json", {"seed": self._about["seed"], "prompts": _prompts(rater.sheet)})
        if rater.missing:
            print(f"{rater.missing} of {len(rater.sheet.items)} answers have no rating yet")

    def conclusion(self, **answers: Any) -> None:
        """Write conclusion.json: `answers` by name, as the cell of the starter asks for them."""
        if not self._waits("conclusion", **answers):
            self._write("conclusion.json", {name: _plain(value) for name, value in answers.items()})

    def _predictions(self, name: str, table: Any, run: str) -> None:
        if self._waits(name, table=table):
            return
        if not isinstance(table, pd.DataFrame):
            raise BadInput(f"the {name} are an object of class {type(table).__name__}; expected a table (a DataFrame)")
        probabilities = [column for column in table if str(column).startswith("p_")]
        for column in ("id", "label", "prediction"):
            if column not in table:
                raise BadInput(f"the table of {name} has no column {column!r}; it has {', '.join(map(str, table))}")
        self._require_begun()
        target = self.folder / self._in(run, f"{name}.csv")
        with files.atomic(target, error=BadInput) as partial:
            table[["id", "label", "prediction", *probabilities]].to_csv(partial, index=False)

    def _waits(self, what: str, **given: Any) -> bool:
        """Return whether an argument is still `...`, and say so."""
        waiting = [name for name, value in given.items() if value is ...]
        if waiting:
            print(f"NOT STARTED: {what} waits for {' and '.join(waiting)}, still `...`")
        return bool(waiting)

    def _begin_with(self, first: dict[str, list[dict[str, Any]]]) -> None:
        """Keep the first files of a try until there is a result; of a try that goes on, write them at once."""
        self._first = first
        if self._begun:
            self._require_begun()

    def _begin(self) -> None:
        """Write attempt.json and the first files of this try, once; an earlier try is moved aside, and kept."""
        if not self._begun:
            self._keep_earlier()
            begun = datetime.now(UTC).isoformat(timespec="seconds")
            versions = {name: version(name) for name in ("ftlab", "transformers", "torch", "scikit-learn")}
            about = {"level": self.level.name, "format": FORMAT, "begun": begun, **self._about, "versions": versions}
            files.write_json(self.folder / ATTEMPT, about)
            self._begun = True
        first, self._first = self._first, {}
        for name, lines in first.items():
            self._write_lines(name, lines)

    def _keep_earlier(self) -> None:
        """Move an earlier try into the folder `earlier`, under the next number. What is hidden is no part of a try."""
        work = HandedIn(self.level, self.folder)
        moving = self.folder / EARLIER / MOVING
        if work.empty and not moving.is_dir():
            return
        with files.explained(self.folder / EARLIER, BadInput):
            numbers = [int(path.name) for path in (self.folder / EARLIER).glob("*") if path.name.isdecimal()]
            moving.mkdir(parents=True, exist_ok=True)  # of a process that was killed, if it is there: this one goes on
            there = [] if work.empty else work.visible()
            for path in sorted(there, key=lambda path: path.name != ATTEMPT):
                path.rename(moving / path.name)
            moving.rename(self.folder / EARLIER / str(1 + max(numbers, default=0)))

    def _require_begun(self) -> None:
        """Begin the try that waits. Raises BadInput unless one was begun, in this kernel or in an earlier one."""
        if self._first:
            self._begin()
        if not (self.folder / ATTEMPT).is_file():
            first = "instructions" if self.level.name == "level3" else "rows"
            raise BadInput(f"no try was begun in {self.folder}; run the cell with `record.{first}` first")
        HandedIn(self.level, self.folder).attempt  # noqa: B018  # refuses another level's

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        self._require_begun()
        files.write_json(self.folder / name, value)

    def _write_lines(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        self._require_begun()
        with files.atomic(self.folder / name, error=BadInput) as partial:
            partial.write_text("".join(files.to_json(line) + "\n" for line in lines), encoding="utf-8")

    def _in(self, run: str, name: str) -> str:
        return f"{run}/{name}" if run else name


def _plain(value: Any) -> Any:
    """Return a setting as JSON can hold it: an enum by its value, NumPy's numbers and arrays as Python's."""
    value = getattr(value, "value", value)
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _ids(rows: Any) -> list[str] | None:
    return list(map(str, rows["id"])) if rows is not None and "id" in getattr(rows, "column_names", ()) else None


def _origin(rows: Dataset) -> str:
    """Return where rows of `sources.load` came from; "" for rows that were made otherwise."""
    try:
        return sources.provenance(rows).origin
    except (ValueError, TypeError):
        return ""


def _require_texts(rows: Sequence[Mapping[str, Any]], fields: Sequence[str], name: str) -> None:
    for number, row in enumerate(rows):
        for field in fields:
            if not isinstance(value := row.get(field, ""), str | None):
                raise BadInput(f"the {field} of {name} {number} is {quoted(value)}; write it as a text, in quotes")


def _has_own_loss(trainer: Trainer) -> bool:
    """Return whether the loss is not the model's own: a function of the learner's, or a subclass of Trainer."""
    from transformers import Trainer as Plain

    return trainer.compute_loss_func is not None or type(trainer).compute_loss is not Plain.compute_loss


def _tokens(rows: Dataset, collate: Any) -> list[dict[str, Any]]:
    """Return the ids and labels of each training row of a language model, as the collator makes them of the row.

    A collator may replace labels: one that masks padding by its id masks EOS, too, if both are one token.
    """
    if not isinstance(rows[0].get("labels"), list):
        return []
    found = []
    for row in rows:
        given = {name: row[name] for name in ("input_ids", "attention_mask", "labels") if name in row}
        try:
            batch = collate([given])
            pair = {name: batch[name][0].tolist() for name in ("input_ids", "labels")}
        except Exception:  # a collator that needs other columns: the row itself is the best that there is
            pair = {name: list(row[name]) for name in ("input_ids", "labels")}
        found.append(pair)
    return found


def _labels(trainer: Trainer, rows: Dataset) -> list[str] | None:
    """Return the name of the label of each training row, as the model names the ids that it learns from."""
    column = next((name for name in LABEL_COLUMNS if name in rows.column_names), None)
    model: Any = trainer.accelerator.unwrap_model(trainer.model) if trainer.model is not None else None
    if column is None or model is None:
        return None
    names = getattr(rows.features[column], "names", None)
    own = {int(number): name for number, name in model.config.id2label.items()}
    if any(name.startswith("LABEL_") for name in own.values()) and names:
        own = dict(enumerate(names))
    return [str(own.get(int(label), label)) for label in rows[column]]


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, max_length: int | None) -> None:
    before = tokenizer.model_max_length
    tokenizer.model_max_length = max_length or before
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.model_max_length = before


def _prompts(sheet: Sheet) -> int:
    return len({item.id for item in sheet.items})
