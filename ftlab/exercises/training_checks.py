"""Checks of a training from its arguments and its log: epochs, steps, losses, and which rows chose the epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

from ftlab.errors import BadInput
from ftlab.exercises import saved_models
from ftlab.exercises.checks import Check, fix, passed, unchecked
from ftlab.exercises.handed_in import RECORD_AGAIN, HandedIn
from ftlab.exercises.outcomes import Answer, Status
from ftlab.wording import quoted, some

EPOCHS = 3.0
EPOCH_TOLERANCE = 0.01  # by which the last epoch in a log may miss the number that was asked for
MOST_TOKENS = 40_000  # of validation rows that are read again
LOSS_TOLERANCE = {False: 2e-3, True: 3e-2}  # of a mean loss, in fp32 on the same kind of device, and otherwise
SIGMAS = 4  # standard errors, where only some of the rows are read again


def of_runs(check: Check, *runs: str) -> Check:
    """Return a check that holds if `check` holds in each of `runs`, subfolders of the work folder."""

    def together(work: HandedIn) -> Answer:
        answers = [(run, check(Run(work, run))) for run in runs]
        for status in (Status.FIX, Status.NOT_CHECKED, Status.NOT_STARTED, Status.WARN):
            for run, answer in answers:
                if answer.status == status:
                    return Answer(status, answer.expected, f"{run} run: {answer.found}", answer.where, answer.advice)
        found = "; ".join(f"{run}: {answer.found}" for run, answer in answers)
        return passed(found, ", ".join(dict.fromkeys(answer.where for _, answer in answers)))

    return together


class Run(HandedIn):
    """One run of a level with several: its own files stand in a subfolder, the rows beside it."""

    def __init__(self, work: HandedIn, run: str) -> None:
        super().__init__(work.level, work.folder)
        self.run = run
        self.loaded = work.loaded

    def path(self, name: str) -> Any:
        """Return the path of the file `name`: in the run's folder, but rows and the try's own beside it."""
        shared = name in ("attempt.json", "rows.jsonl", "conclusion.json") or name.startswith(f"{self.run}/")
        return super().path(name if shared else f"{self.run}/{name}")


def epochs(work: HandedIn) -> Answer:
    """Check that the training was asked for 3 epochs, and that its log ends there. `work` is what was handed in."""
    asked, ended = work.number("arguments.json", "num_train_epochs"), work.number("log.json", "epoch")
    if asked != EPOCHS:
        return fix(f"num_train_epochs={EPOCHS:g}", f"num_train_epochs={asked:g}", "arguments.json")
    if (limit := _most_steps(work)) > 0:
        return fix("a training that only the epochs end", f"max_steps={limit:g}", "arguments.json")
    if abs(ended - EPOCHS) > EPOCH_TOLERANCE:
        return fix(f"a training that ended after {EPOCHS:g} epochs", f"it ended after {ended:g}", "log.json")
    return passed(f"{ended:g} epochs", "log.json")


def steps(work: HandedIn) -> Answer:
    """Check that the number of steps follows from rows, batch size, accumulation and epochs, as in Trainer.

    `work` is what was handed in.
    """
    arguments, log = work.json("arguments.json"), work.json("log.json")
    rows, done = work.number("log.json", "rows"), work.number("log.json", "global_step")
    devices = work.number("arguments.json", "world_size", least=1, missing=1)
    size = work.number("arguments.json", "train_batch_size", least=1) * devices
    pieces = work.number("arguments.json", "gradient_accumulation_steps", least=1)
    passes = work.number("arguments.json", "num_train_epochs")
    batches = (math.floor if arguments.get("dataloader_drop_last") else math.ceil)(rows / size)
    each = max(math.ceil(batches / pieces), 1)
    expected = math.ceil(each * passes)
    if (limit := _most_steps(work)) > 0:
        expected = int(limit)
    told = f"{rows:,.0f} rows in batches of {size:g} x {pieces:g}, {passes:g} epochs"
    if work.level.name != "level3":
        there = len(work.part("train"))
        if there != rows:
            return fix(f"a training on the {there:,} training rows", f"the Trainer had {rows:,.0f}", "log.json")
    if done != expected:
        return fix(f"{expected:,} steps for {told}", f"{done:,.0f} steps", "log.json")
    if log.get("max_steps") not in (None, expected):
        return fix(f"{expected:,} steps for {told}", f"a plan of {quoted(log['max_steps'])} steps", "log.json")
    return passed(f"{done:,.0f} steps for {told}", "log.json")


def logged(work: HandedIn) -> Answer:
    """Check that the log has a loss for each step that should be logged. `work` is what was handed in."""
    arguments, lines = work.json("arguments.json"), history(work)
    done = int(work.number("log.json", "global_step", least=1))
    there = {line["step"] for line in lines if "loss" in line}
    strategy = arguments.get("logging_strategy")
    if strategy == "epoch":
        passes = max(1.0, work.number("log.json", "epoch"))
        # The last epoch may be a part of one.
        wanted: Iterable[int] = (round(done / passes * one) for one in range(1, int(passes + EPOCH_TOLERANCE) + 1))
        often = "after each epoch"
    elif strategy == "steps":
        every = max(1, int(work.number("log.json", "logging_steps")))
        first = [1] if arguments.get("logging_first_step") else []
        wanted, often = chain(first, range(every, done + 1, every)), f"after every {every:,} steps"
    else:
        return fix("a log of the training loss", f"logging_strategy={quoted(strategy)}", "arguments.json")
    if not there:
        return fix("a training loss in the log", f"none in {done} steps", "log.json", advice="Log more often.")
    if (lacking := next((step for step in wanted if step not in there), None)) is not None:
        return fix(f"a loss {often}", f"no loss at step {lacking}", "log.json")
    if not any("train_runtime" in line for line in lines):
        return fix("the summary that ends a training's log", "none (train_runtime)", "log.json")
    return passed(f"{len(there)} losses over {done:,} steps", "log.json")


def losses(work: HandedIn) -> Answer:
    """Check that each loss in the log is a finite number. `work` is what was handed in."""
    names = ("loss", "eval_loss", "train_loss")
    given = [(line.get("step"), name, line[name]) for line in history(work) for name in names if name in line]
    if not given:
        return fix("losses in the log", "none", "log.json")
    for step, name, value in given:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return fix("finite losses", f"{name} at step {step} is {quoted(value)}", "log.json")
    return passed(f"{len(given)} losses, from {given[0][2]:.3g} to {given[-1][2]:.3g}", "log.json")


def chosen(work: HandedIn) -> Answer:
    """Check that the rows which the Trainer scored in training are validation rows, by their ids and by the loss.

    The loss of the saved model on the validation rows must be the one in the log, at the step whose weights were kept.
    `work` is what was handed in.
    """
    scored = work.texts("log.json", "eval_rows")
    logged = [line for line in history(work) if "eval_loss" in line]
    if not logged:
        return passed("the Trainer scored no rows, so nothing was chosen", "log.json")
    judges, choosers = {*work.part("test")["id"]}, {*work.part("validation")["id"]}
    if scored is None:
        return fix(
            "the ids of the rows that the Trainer scored", "none", "log.json",
            advice="Give the Trainer the validation rows as eval_dataset, as one data set with its column id.",
        )  # fmt: skip
    if seen := sorted(judges & {*scored}):
        return fix(
            "a training that scores validation rows", f"it scored {len(seen)} test rows, {some(seen)}", "log.json",
            advice="Give the Trainer the validation rows as eval_dataset.",
        )  # fmt: skip
    if strange := sorted({*scored} - choosers):
        return fix("a training that scores validation rows", f"it scored {some(strange)}", "log.json")
    if not scored or {*scored} != choosers:
        return fix("all validation rows", f"{len(scored)} of {len(choosers)}", "log.json")
    return _same_loss(work, logged)


def _same_loss(work: HandedIn, logged: list[dict[str, Any]]) -> Answer:
    """Compare the logged loss of the saved weights with their loss on the validation rows."""
    log, arguments = work.json("log.json"), work.json("arguments.json")
    count = f"{len(log['eval_rows'])} validation rows were scored"
    kept = log.get("best_global_step") if arguments.get("load_best_model_at_end") else log.get("global_step")
    here = [line for line in logged if line.get("step") == kept]
    otherwise = ("own_loss", "label_smoothing_factor", "dataloader_drop_last")  # the last one drops validation rows too
    if not here or any(arguments.get(name) for name in otherwise):
        return passed(f"{count}; their loss is not comparable", "log.json")
    said = [line["eval_loss"] for line in here]  # several, if the Trainer evaluated once more afterwards
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in said):
        return fix("a finite eval_loss", quoted(said[0]), "log.json")
    try:
        values, whole = saved_models.row_losses(work, "validation", most_tokens=MOST_TOKENS)
    except BadInput as problem:
        return unchecked(f"the saved model cannot be read: {problem}")
    rough = saved_models.roughly(arguments)
    error = 0.0 if whole else SIGMAS * float(np.std(values, ddof=1) / math.sqrt(len(values)))
    mean = float(values.mean())
    if any(abs(mean - one) <= LOSS_TOLERANCE[rough] * max(1.0, one) + error for one in said):
        return passed(f"{count}; the saved model has their loss, {mean:.3f}", "log.json")
    test, complete = saved_models.row_losses(work, "test", most_tokens=MOST_TOKENS)
    near = complete and len(test) and abs(float(test.mean()) - said[0]) <= LOSS_TOLERANCE[rough] * max(1.0, said[0])
    return fix(
        f"the loss of the saved model on the validation rows, {mean:.3f}",
        f"eval_loss {said[0]:.3f}" + (", which is that of the test rows" if near else f" at step {kept}"), "log.json",
        advice="Record the training and the weights of one run, and score the validation rows in it.",
    )  # fmt: skip


def history(work: HandedIn) -> list[dict[str, Any]]:
    """Return the log of the training in `work`, line by line. Raises BadInput if it is no log."""
    lines = work.json("log.json").get("log_history")
    if not isinstance(lines, list) or not all(
        isinstance(line, dict) and type(line.get("step")) is int for line in lines
    ):
        raise BadInput(f"{work.path('log.json')} has no log_history of a Trainer; {RECORD_AGAIN}")
    return lines


def _most_steps(work: HandedIn) -> float:
    """Return max_steps of the arguments; -1, as in Trainer, if the epochs end the training."""
    return work.number("arguments.json", "max_steps", least=-1, missing=-1)
