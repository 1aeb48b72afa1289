"""Blind rating: a person rates answers from 1 to 5 without knowing which model wrote them.

Two models answer the same prompts. The order of the answers hides which model wrote which, and some answers are shown
twice to measure the rater's consistency.
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
# Words that a spreadsheet, or pandas, would read as a truth value or as an empty cell.
TAKEN = ("na", "n/a", "nan", "null", "none", "true", "false")
CONTROL = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f]"
)  # a byte-level model may write them, but a CSV file must not contain them


@dataclass(frozen=True)
class Item:
    """One answer to rate: the id of its row, what is shown (prompt and answer), and what is hidden (model)."""

    id: str
    prompt: str
    answer: str
    model: str = field(repr=False)
    repeats: int | None = None  # the index of the item that this one repeats


@dataclass(frozen=True)
class Sheet:
    """Answers to rate, in a random order. Made by `sheet`."""

    items: tuple[Item, ...]
    models: tuple[str, str]

    def write_form(self, path: Path, ratings: Sequence[int | None] = ()) -> None:
        """Write a CSV file to fill in by hand, with columns item, id, prompt, answer and rating, and without the model.

        A cell that a spreadsheet would read as a formula, a number or an empty cell begins with an apostrophe.

        Args:
            path: of the file.
            ratings: those to fill in, in the order of the sheet; empty if left out.
        """
        given = ["" if value is None else str(value) for value in ratings] or [""] * len(self.items)
        lines = [
            (number, _cell(item.id), _cell(item.prompt), _cell(item.answer), value)
            for number, (item, value) in enumerate(zip(self.items, given, strict=True), start=1)
        ]
        with files.atomic(path) as temporary:
            # Excel reads a file as UTF-8 only if it begins with a byte order mark.
            pd.DataFrame(lines, columns=list(COLUMNS)).to_csv(temporary, index=False, encoding="utf-8-sig")

    def read_form(self, path: Path | str) -> list[int]:
        """Return the ratings of the filled-in form at `path`, in the order of the sheet.

        Raises BadInput for a form of other prompts or answers, and for a rating that is missing or not 1 to 5.
        """
        path, _ = files.named_path(str(path), "the path of a filled-in form")
        frame = tables.read_table(path, []).dropna(how="all").fillna("")  # spreadsheets add empty lines
        if lacking := [name for name in COLUMNS if name not in frame]:
            raise BadInput(
                f"{path} has no column {lacking[0]!r}; it has {', '.join(map(str, frame))}; fill in the form that was "
                "written for these answers, and save it with commas between the columns"
            )
        self.require_form(frame, path)
        return [rating(value, f"line {number} of {path}") for number, value in enumerate(frame["rating"], start=1)]

    def require_form(self, frame: pd.DataFrame, path: Path | str) -> None:
        """Raise BadInput unless `frame`, the form read from `path`, has the answers of this sheet in their order."""
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


def sheet(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    names: tuple[str, str],
    rows: int,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Sheet:
    """Draw rows that both models answered, and mix their answers into a sheet to rate.

    Args:
        first: the first model's table of `answers.answer`.
        second: the second model's, on the same rows.
        names: of the two models.
        rows: how many to draw; each gives two answers.
        repeats: how many answers to show once more at the end.
        seed: of the rows and of the order.

    Returns:
        2 * `rows` + `repeats` items.

    Raises:
        BadInput: the tables have different rows, the names are equal, or `rows` or `repeats` is out of range.
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
    """Return `value` as a rating. Raises BadInput, naming `where` it is, unless it is a whole number from 1 to 5."""
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
    """The result of the ratings: each model's mean, their difference, and how often the rater repeated a rating."""

    means: Mapping[str, Interval]
    difference: Interval  # second model minus first
    agreement: tuple[int, int]  # repeated answers with the same rating, and all repeated answers

    def table(self) -> pd.DataFrame:
        """Return one line for each model and one for the difference: mean rating, low and high."""
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
    """Compute each model's mean rating and their difference, with intervals over prompts.

    A repeated answer counts once, with its first rating. The intervals are those of `intervals.bounded_mean`: they hold
    for four ratings as for thirty, all equal or not, but with few they are wide. To detect a difference of one on the
    scale takes some thirty prompts, of two about ten.

    Args:
        sheet: what was rated.
        ratings: one for each item, in the order of the sheet.
        seed: of the intervals.

    Returns:
        Means, difference, and the rater's agreement on repeated answers.

    Raises:
        BadInput: an item has no rating, or one that is not a whole number from 1 to 5.
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
    """Protect text from a spreadsheet, which would show `=1+1` as 2, 1.0 as 1 and NA as an empty cell."""
    text = CONTROL.sub("", "\n".join(text.splitlines()))  # a carriage return alone would end the row
    return f"'{text}" if text and (not text[0].isalpha() or text.casefold() in TAKEN) else text


def _plain(text: object) -> str:
    """Return the part of a text that survives a spreadsheet, which may change spaces and remove a first apostrophe."""
    return " ".join(CONTROL.sub("", str(text)).lstrip("'").split())
