"""Checks of blind ratings: whole numbers for all answers, an order that hides the model, and means that follow."""

from __future__ import annotations

import pandas as pd

from ftlab.data import tables
from ftlab.errors import BadInput
from ftlab.evaluation import rating
from ftlab.exercises.checks import CannotCheck, fix, passed, warn
from ftlab.exercises.handed_in import HandedIn, NotHandedIn
from ftlab.exercises.instruction_checks import PROMPTS, given_answers
from ftlab.exercises.outcomes import Answer
from ftlab.exercises.prediction_checks import NO_DIFFERENCE
from ftlab.exercises.recorder import MODELS
from ftlab.intervals import Interval

FORM = "ratings.csv"
MEAN, BOUND = 0.051, 0.151  # by which a mean and the end of an interval may differ: they are rounded to one place


def sheet(work: HandedIn) -> rating.Sheet:
    """Return the sheet of the answers in `work`, drawn as the form drew it. Raises BadInput for other answers."""
    asked = work.instructions(PROMPTS)
    seed, shown = work.number("sheet.json", "seed"), work.number("sheet.json", "prompts", least=1)
    return draw(asked, *(given_answers(work, name)["answers"] for name in MODELS), seed=int(seed), prompts=int(shown))


def draw(
    asked: pd.DataFrame, base: list[str], tuned: list[str], *, seed: int, prompts: int | None = None
) -> rating.Sheet:
    """Mix the answers of both models to the prompts `asked` into a sheet to rate blindly.

    Args:
        asked: the prompts: id, instruction and input.
        base: the base model's answer to each.
        tuned: the tuned model's.
        seed: of the order.
        prompts: how many to rate; all by default.

    Raises:
        BadInput: there are not as many answers as prompts.
    """
    if not len(base) == len(tuned) == len(asked):
        raise BadInput(f"there are {len(base)} and {len(tuned)} answers to {len(asked)} prompts; answer each once")
    first, second = (asked.assign(answer=answers) for answers in (base, tuned))
    return rating.sheet(first, second, names=MODELS, rows=prompts or len(asked), seed=seed)


def ratings(work: HandedIn) -> Answer:
    """Check that each answer is rated with a whole number from 1 to 5. `work` is what was handed in."""
    form = _rated(work)
    wanted = len(sheet(work).items)
    if len(form) != wanted:
        return fix(f"{wanted} ratings", f"{len(form)} lines", FORM)
    for number, value in enumerate(form["rating"], start=1):
        try:
            rating.rating(value, f"answer {number}")
        except BadInput as problem:
            missing = int(form["rating"].eq("").sum())
            left = f"; {wanted - missing} of {wanted} are rated" if missing else ""
            return fix("whole numbers from 1 to 5, for each answer", f"{problem}{left}", FORM)
    asked = len(work.instructions(PROMPTS))
    if (shown := work.number("sheet.json", "prompts")) < asked:
        return fix(f"ratings of all {asked} prompts", f"{shown:g}", "sheet.json")
    return passed(f"{wanted} ratings", FORM)


def blind(work: HandedIn) -> Answer:
    """Check that the form hides the models: no such column, a random order, and some repeats. `work` as elsewhere."""
    form, drawn = _form(work), sheet(work)
    if extra := [str(name) for name in form if name not in rating.COLUMNS]:
        return fix(f"a form with {', '.join(rating.COLUMNS)}", f"the column {extra[0]!r} beside them", FORM)
    try:
        # The order and the texts are compared, whatever the ratings are.
        drawn.require_form(form, FORM)
    except BadInput as problem:
        return fix("the answers in the random order of the sheet, with repeats", str(problem), FORM)
    repeated = sum(item.repeats is not None for item in drawn.items)
    return passed(f"{len(drawn.items)} answers in a random order, {repeated} of them twice", FORM)


def spread(work: HandedIn) -> Answer:
    """Warn where all ratings are equal. `work` is what was handed in."""
    given = set(_given(work))
    if len(given) == 1:
        return warn("ratings that tell answers apart", f"all are {given.pop()}", FORM)
    return passed(f"ratings from {min(given)} to {max(given)}", FORM)


def means(work: HandedIn) -> Answer:
    """Compute the means and the difference again, with their intervals. `work` is what was handed in."""
    found = _verdict(work)
    for name, interval in [*found.means.items(), ("difference", found.difference)]:
        keys = ("difference",) if name == "difference" else ("means", name)
        given = work.numbers("conclusion.json", *keys)
        if len(given) != 3:
            return fix(f"{name}: the value and both ends of its interval", f"{len(given)} numbers", "conclusion.json")
        wanted = (interval.value, interval.low, interval.high)
        for what, one, other, most in zip(
            ("mean", "low end", "high end"), wanted, given, (MEAN, BOUND, BOUND), strict=True
        ):
            if abs(one - other) > most:
                what = "difference" if name == "difference" and what == "mean" else what
                return fix(f"{name}: {interval}", f"the {what} {other:.2f}", "conclusion.json")
    same, of = found.agreement
    return passed(f"{found}".split("; difference")[0] + f"; {same} of {of} repeats rated the same", "conclusion.json")


def conclusion(work: HandedIn) -> Answer:
    """Check the conclusion of level 3 against the interval of the difference. `work` is what was handed in."""
    said = work.word("conclusion.json", "answer", ("better", "worse", NO_DIFFERENCE))
    gap = _verdict(work).difference
    right = _right(gap)
    if said != right:
        return fix(f"the answer {right}", f"{said}, and tuned less base is {gap}", "conclusion.json")
    if not work.reason("conclusion.json"):
        return fix("a sentence that says what shows it (because)", "none", "conclusion.json")
    return passed(f"{said}: tuned less base {gap}", "conclusion.json")


def _right(gap: Interval) -> str:
    return "better" if gap.low > 0 else "worse" if gap.high < 0 else NO_DIFFERENCE


def _verdict(work: HandedIn) -> rating.Verdict:
    return rating.verdict(sheet(work), _given(work), seed=int(work.number("sheet.json", "seed")))


def _given(work: HandedIn) -> list[int]:
    """Return the ratings. Raises CannotCheck while one is missing or is none: that is for `ratings` to say."""
    form, drawn = _rated(work), sheet(work)
    values = list(form["rating"])
    try:
        drawn.require_form(form, FORM)  # else a rating is of another answer
        return [rating.rating(value, f"answer {number}") for number, value in enumerate(values, start=1)]
    except BadInput as problem:
        raise CannotCheck(f"the ratings are not whole: {problem}") from problem


def _rated(work: HandedIn) -> pd.DataFrame:
    """Return the form. Raises NotHandedIn while no answer is rated."""
    form = _form(work)
    if not form["rating"].str.strip().any():
        raise NotHandedIn("a rating")
    return form


def _form(work: HandedIn) -> pd.DataFrame:
    path = work.path(FORM)
    frame = tables.read_table(path, []).dropna(how="all").fillna("")
    tables.require_columns(path, frame, rating.COLUMNS, "record the ratings again")
    return frame.reset_index(drop=True)
