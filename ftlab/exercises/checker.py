"""Check what a level hands in: each rule computes its part again, and answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ftlab.errors import AssetError
from ftlab.exercises import (
    instruction_checks,
    prediction_checks,
    rating_checks,
    row_checks,
    training_checks,
    weight_checks,
)
from ftlab.exercises.checks import CannotCheck, Check, fix, unchecked
from ftlab.exercises.handed_in import HandedIn, NotHandedIn, WrongWord
from ftlab.exercises.manifest import Level, Rule
from ftlab.exercises.outcomes import Answer, Outcome, Result, Status
from ftlab.exercises.training_checks import of_runs
from ftlab.progress import bar

RUNS = ("full", "frozen")
CHECKS: Mapping[str, Mapping[str, Check]] = {
    "level1": {
        "enough": row_checks.enough,
        "source": row_checks.source,
        "leak": row_checks.leak,
        "labels": prediction_checks.labels,
        "epochs": training_checks.epochs,
        "steps": training_checks.steps,
        "log": training_checks.logged,
        "losses": training_checks.losses,
        "chosen": training_checks.chosen,
        "weights": weight_checks.weights,
        "again": prediction_checks.again,
        "baseline": prediction_checks.baseline,
        "report": prediction_checks.report,
        "conclusion": prediction_checks.conclusion,
    },
    "level2": {
        "enough": row_checks.enough,
        "source": row_checks.source,
        "leak": row_checks.leak,
        "labels": prediction_checks.labels,
        "same-rows": prediction_checks.same_rows,
        "same-settings": prediction_checks.same_settings,
        "steps": of_runs(training_checks.steps, *RUNS),
        "log": of_runs(training_checks.logged, *RUNS),
        "losses": of_runs(training_checks.losses, *RUNS),
        "chosen": of_runs(training_checks.chosen, *RUNS),
        "weights": weight_checks.whole,
        "frozen-layers": weight_checks.frozen_layers,
        "frozen-embeddings": weight_checks.frozen_embeddings,
        "trained-layers": weight_checks.trained_layers,
        "again": of_runs(prediction_checks.again, *RUNS),
        "f1": prediction_checks.f1,
        "time": prediction_checks.time,
        "conclusion": prediction_checks.choice,
    },
    "level3": {
        "filled": instruction_checks.filled,
        "enough": instruction_checks.enough,
        "own": instruction_checks.own,
        "fits": instruction_checks.fits,
        "eos": instruction_checks.eos,
        "steps": training_checks.steps,
        "log": training_checks.logged,
        "losses": training_checks.losses,
        "weights": instruction_checks.weights,
        "adapter": instruction_checks.adapter,
        "prompts": instruction_checks.new_prompts,
        "answers": instruction_checks.answers,
        "again": instruction_checks.again,
        "ratings": rating_checks.ratings,
        "blind": rating_checks.blind,
        "spread": rating_checks.spread,
        "means": rating_checks.means,
        "conclusion": rating_checks.conclusion,
    },
}


def check(level: Level, folder: Path, *, only: Callable[[str], bool] = lambda rule: True) -> Result:
    """Check the work folder of a level. Nothing in it is changed, and nothing is reported anywhere.

    Args:
        level: of the manifest.
        folder: the work folder, which may be missing.
        only: which rules to check, by id; all by default.

    Returns:
        The answer of each rule.

    Raises:
        BadInput: the folder is of another level or another version, or a file in it cannot be read.
    """
    began = time.monotonic()
    work = HandedIn(level, folder)
    profile = "" if work.empty else str(work.attempt["profile"])
    chosen = [rule for rule in level.rules if only(rule.id)]
    outcomes = []
    with bar("checking", total=len(chosen)) as progress:
        for rule in chosen:
            outcomes.append(Outcome(rule, _answer(rule, work)))
            progress.update()
    seconds = time.monotonic() - began
    return Result(level, folder, profile, tuple(outcomes), seconds, earlier=work.earlier)


def _answer(rule: Rule, work: HandedIn) -> Answer:
    if work.empty:
        return Answer(Status.NOT_STARTED, "", "", "")
    try:
        return CHECKS[work.level.name][rule.id](work)
    except NotHandedIn as missing:
        return Answer(Status.NOT_STARTED, "", f"{missing} is not handed in", "")
    except WrongWord as problem:
        return fix(*problem.args)
    except CannotCheck as problem:
        return unchecked(str(problem))
    except AssetError as problem:  # the base is not in the cache, and there is no network: other rules need neither
        return unchecked(str(problem), advice="Make it readable, and check again.")
