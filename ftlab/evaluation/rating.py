"""Blind rating: a person gives answers 1 to 5 without knowing whose they are.

Two models answer the same prompts; the answers come in an order that hides which model wrote which, and some come
twice, to see how far the rater agrees with himself or herself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ftlab import files
from ftlab.data import tables
from ftlab.errors import BadInput
from ftlab.intervals import Interval, bounded_mean

SCALE = (1, 5)
REPEATS = 2
COLUMNS = ("item", "id", "prompt", "answer", "rating")
# Words that a spreadsheet, or pandas, would take for a truth value or for an empty cell.
TAKEN = ("na", "n/a", "nan", "null", "none", "true", "false")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # a model of bytes may write them; a CSV file may not hold them


@dataclass(frozen=True)
class Item:
    """One answer to rate: the row that it answers, what is shown, and (not shown) whose it is."""

    id: str
    prompt: str
    answer: str
    model: str = field(repr=False)
    repeats: int | None = None  # the place of the item that this one is again


@dataclass(frozen=True)
class Sheet:
    """Answers to rate in their hidden order. Made by `sheet`."""

    items: tuple[Item, ...]
    models: tuple[str, str]

    def write_form(self, path: Path, ratings: Sequence[int | None] = ()) -> None:
        """A CSV file to fill in by hand: columns item, id, prompt, answer and rating, and not whose it is.

        The ratings are empty, or those given. A cell that a spreadsheet would take for a formula, a number or nothing
        begins with an apostrophe.
        """
        given = ["" if value is None else str(value) for value in ratings] or [""] * len(self.items)
        lines = [
            (number, _cell(item.id), _cell(item.prompt), _cell(item.answer), value)
            for number, (item, value) in enumerate(zip(self.items, given, strict=True), start=1)
        ]
        with files.atomic(path) as temporary:
            # Excel takes a file that does not begin with a byte order mark for something other than UTF-8.
            pd.DataFrame(lines, columns=list(COLUMNS)).to_csv(temporary, index=False, encoding="utf-8-sig")

    def read_form(self, path: Path | str) -> list[int]:
        """The ratings of a filled-in form, in the order of the sheet.

        Raises BadInput for a form of other prompts or answers, and for a rating that is missing or not 1 to 5.
        """
        path, _ = files.named_path(str(path), "the path of a filled-in form")
        frame = tables.read_table(path, []).dropna(how="all").fillna("")  # spreadsheets add empty lines
        if lacking := [name for name in COLUMNS if name not in frame]:
            raise BadInput(
                f"{path} has no column {lacking[0]!r}; it has {', '.join(map(str, frame))}; fill in the form that was "
                "written for these answers, and save it with commas between the columns"
            )
        if len(frame) != len(self.items):
            raise BadInput(
                f"{path} has {len(frame)} ratings, and there are {len(self.items)} answers to rate; write a new form "
                "for these answers, and fill it in"
            )
        for number, (line, item) in enumerate(zip(frame.itertuples(), self.items, strict=True), start=1):
            shown, wanted = (line.id, line.prompt, line.answer), (item.id, item.prompt, item.answer)
            if [*map(_plain, shown)] != [*map(_plain, wanted)]:
                raise BadInput(
                    f"line {number} of {path} rates an answer to {line.id}, and here it is another answer, or one to "
                    f"{item.id}: the form is of other prompts or answers; write a new one, and fill it in"
                )
        return [rating(value, f"line {number} of {path}") for number, value in enumerate(frame["rating"], start=1)]


def sheet(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    names: tuple[str, str],
    rows: int,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Sheet:
    """Answers of two models to `rows` of the same prompts, mixed, and `repeats` of them once more at the end.

    `first` and `second` are tables of `answers.answer`. The order and the choice of rows follow from `seed`.
    """
    if sorted(first["id"]) != sorted(second["id"]):
        raise BadInput("the two models answered different rows; rate answers to the same ones")
    if names[0] == names[1]:
        raise BadInput(f"both models are called {names[0]!r}; give them different names")
    if repeats < 0:
        raise BadInput(f"repeats is {repeats}; expected 0 or more")
    if not 1 <= rows <= len(first):
        raise BadInput(f"rows is {rows}; expected 1 to {len(first)}, the rows that both models answered")
    rng = np.random.default_rng(seed)
    chosen = first["id"].to_numpy()[rng.permutation(len(first))[:rows]]
    items = []
    for name, table in zip(names, (first, second), strict=True):
        by_id = table.set_index("id")
        for number in chosen:
            line = by_id.loc[number]
            prompt = "\n".join(filter(None, (line["instruction"], line["input"])))
            items.append(Item(str(number), prompt, line["answer"].strip(), name))
    items = [items[place] for place in rng.permutation(len(items))]
    for place in rng.permutation(len(items))[:repeats]:
        items.append(Item(**{**items[place].__dict__, "repeats": int(place)}))
    return Sheet(tuple(items), names)


def rating(value: object, where: str) -> int:
    """`value` as a rating. Raises BadInput unless it is a whole number of the scale; `where` names it."""
    low, high = SCALE
    if value is None or not str(value).strip():
        raise BadInput(f"{where} has no rating; expected a whole number from {low} (bad) to {high} (good)")
    try:
        number = float(str(value))
    except ValueError:
        number = float("nan")
    if not (low <= number <= high and number == int(number)):
        raise BadInput(f"{where} has the rating {value!r}; expected a whole number from {low} (bad) to {high} (good)")
    return int(number)


@dataclass(frozen=True)
class Verdict:
    """What the ratings say: the mean of each model, their difference prompt by prompt, the rater's own agreement."""

    means: Mapping[str, Interval]
    difference: Interval  # of the second model over the first
    agreement: tuple[int, int]  # repeated answers that got the same rating again, of how many

    def table(self) -> pd.DataFrame:
        """One line a model, and one for the difference."""
        first, second = self.means
        lines = {**self.means, f"{second} less {first}": self.difference}
        return pd.DataFrame(
            {"mean rating": [one.value for one in lines.values()], "low": [one.low for one in lines.values()],
             "high": [one.high for one in lines.values()]}, index=list(lines),
        ).round(2)  # fmt: skip

    def __str__(self) -> str:
        same, of = self.agreement
        return "; ".join(f"{name} {mean}" for name, mean in self.means.items()) + (
            f"; difference {self.difference}; {same} of {of} repeated answers were rated the same again"
        )


def verdict(sheet: Sheet, ratings: Sequence[int], *, seed: int = 0) -> Verdict:
    """Means with intervals over prompts; a repeated answer counts once, by its first rating.

    The intervals are those of `intervals.bounded_mean`, for values on a scale: they hold for four ratings as for
    thirty, all alike or not, and of few they say little. To tell models apart that differ by one on the scale takes
    some thirty prompts, by two about ten. Raises BadInput unless each item has its rating.
    """
    if len(ratings) != len(sheet.items):
        raise BadInput(f"{len(ratings)} of {len(sheet.items)} answers are rated; rate the rest, then ask again")
    given = [rating(value, f"answer {number}") for number, value in enumerate(ratings, start=1)]
    firsts = [(item, value) for item, value in zip(sheet.items, given, strict=True) if item.repeats is None]
    by_model = {name: {item.id: value for item, value in firsts if item.model == name} for name in sheet.models}
    ids = sorted(by_model[sheet.models[0]])
    values = {name: np.array([of[number] for number in ids], dtype=float) for name, of in by_model.items()}
    again = [
        (given[item.repeats], value) for item, value in zip(sheet.items, given, strict=True) if item.repeats is not None
    ]
    low, high = SCALE
    return Verdict(
        {name: bounded_mean(found, low, high, seed=seed) for name, found in values.items()},
        bounded_mean(values[sheet.models[1]] - values[sheet.models[0]], low - high, high - low, seed=seed),
        (sum(one == other for one, other in again), len(again)),
    )


def _cell(text: str) -> str:
    """Text as a spreadsheet leaves it alone: `=1+1` would be shown as 2, 1.0 as 1, and NA be gone."""
    text = CONTROL.sub("", "\n".join(text.splitlines()))  # a lone carriage return would end the row
    return f"'{text}" if text and (not text[0].isalpha() or text.casefold() in TAKEN) else text


def _plain(text: object) -> str:
    """What of a text survives a spreadsheet: spaces and line ends may change, and an apostrophe before it go."""
    return " ".join(CONTROL.sub("", str(text)).lstrip("'").split())
