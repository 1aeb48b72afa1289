"""A rating form of Jupyter widgets: it shows one answer at a time, with five buttons."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.data import tables
from ftlab.errors import BadInput
from ftlab.evaluation.rating import COLUMNS, SCALE, Sheet, rating
from ftlab.progress import HEADLESS
from ftlab.wording import some

if TYPE_CHECKING:
    import pandas as pd

WORDS = {1: "useless", 2: "poor", 3: "middling", 4: "good", 5: "just right"}


class Rater:
    """Ratings of the answers of a sheet, from a person at the widgets or from a filled-in form.

    With `form` (a path) the ratings are read from it. With `keep` (a path) each click saves all ratings there. A
    headless run has no widgets. `ratings` holds the ratings so far, None for an answer without one.
    """

    def __init__(self, sheet: Sheet, *, form: str | Path | None = None, keep: Path | None = None) -> None:
        self.sheet = sheet
        self.ratings: list[int | None] = [None] * len(sheet.items)
        self._at = 0
        self._box: Any = None
        self._form = form
        self._keep = keep
        if form:
            self.ratings = list(sheet.read_form(form))

    @property
    def missing(self) -> int:
        """The number of answers without a rating."""
        return sum(value is None for value in self.ratings)

    def save(self, path: Path) -> None:
        """Write the ratings to the form `path`, which a headless run can read."""
        self.sheet.write_form(path, self.ratings)

    def recall(self, path: Path) -> int:
        """Take over ratings from the form `path`, and return how many: those of answers that have no rating yet.

        A form of other answers, or with some without a rating, is no mistake: only a line with the same prompt and
        answer at the same place counts.

        Raises:
            BadInput: the file is no form, or a rating in it is not a whole number from 1 to 5.
        """
        frame = tables.read_table(path, []).dropna(how="all").fillna("")  # spreadsheets add empty lines
        tables.require_columns(
            path, frame, list(COLUMNS), "give a form that was written for these answers, or delete it"
        )
        taken = 0
        for place in range(min(len(frame), len(self.ratings))):
            given = frame["rating"].iloc[place]
            if self.ratings[place] is None and str(given).strip() and self._is_same(frame.iloc[[place]], place):
                self.ratings[place] = rating(given, f"line {place + 1} of {path}")
                taken += 1
        self._at = self._next(0)
        return taken

    def show(self) -> Any:
        """Return the widgets, or print a sentence if the ratings are from a form or the run is headless."""
        if self._form:
            return print(f"{len(self.ratings)} ratings were read from the form")
        if HEADLESS in os.environ:
            return print(self._waiting())
        return self.widget()

    def _is_same(self, line: pd.DataFrame, place: int) -> bool:
        """Return whether a line of a form, a table of one row, has the answer at `place`."""
        try:
            Sheet(self.sheet.items[place : place + 1], self.sheet.models).require_form(line, "")
        except BadInput:
            return False
        return True

    def _waiting(self) -> str:
        """Return a sentence on the answers without a rating, which are named if some have one."""
        if not self.missing:
            return f"all {len(self.ratings)} answers have a rating from an earlier run"
        told = "1 answer waits for a rating" if self.missing == 1 else f"{self.missing} answers wait for a rating"
        if self.missing < len(self.ratings):
            told += f" (number {some(str(place + 1) for place, value in enumerate(self.ratings) if value is None)})"
        return f"{told}: run this cell in Jupyter, or give a form"

    def _next(self, place: int) -> int:
        """Return the index of the next answer without a rating, from `place` on and then from the first."""
        order = [*range(place, len(self.ratings)), *range(place)]
        return next((one for one in order if self.ratings[one] is None), len(self.ratings))

    def widget(self) -> Any:
        """Return the widgets. Tab moves between the buttons, Enter or the space bar presses one.

        They are made once: of two sets that share the ratings, one would show an answer that is already rated.
        """
        if self._box is None:
            self._box = self._build()
        return self._box

    def _build(self) -> Any:
        import ipywidgets as widgets

        low, high = SCALE
        place, shown = widgets.HTML(), widgets.HTML()
        buttons = [
            widgets.Button(
                description=f"{value} {WORDS[value]}", tooltip=f"rate {value} of {high}: {WORDS[value]}",
                layout=widgets.Layout(width="auto"),
            )
            for value in range(low, high + 1)
        ]  # fmt: skip
        back = widgets.Button(description="back", tooltip="to the answer before", layout=widgets.Layout(width="auto"))

        def draw() -> None:
            done = self._at >= len(self.sheet.items)
            for button in buttons:
                button.disabled = done
            back.disabled = self._at == 0
            if done:
                place.value = "<b role='status'>All answers are rated. Run the next cell.</b>"
                shown.value = ""
                return
            item = self.sheet.items[self._at]
            place.value = f"<span role='status'>answer {self._at + 1} of {len(self.sheet.items)}</span>"
            # The colours of the Jupyter theme; the background is half transparent, so it suits a light and a dark one.
            box = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.4;padding:6px 10px;margin:4px 0"
            shown.value = (
                f"<div style='{box};color:var(--jp-content-font-color2,inherit)'>{html.escape(item.prompt)}</div>"
                f"<div style='{box};color:var(--jp-content-font-color1,inherit);background:rgba(59,142,208,.14);"
                f"border-left:4px solid var(--jp-brand-color1,#3b8ed0)'>"
                f"{html.escape(item.answer) or '<i>(an empty answer)</i>'}</div>"
            )

        # A double click's second press can arrive before its button is disabled, so the bounds are checked here too.
        def rate(value: int) -> None:
            if self._at < len(self.ratings):
                self.ratings[self._at] = value
                if self._keep:
                    self.save(self._keep)
                self._at = self._next(self._at + 1)
                draw()

        def go_back(_: Any) -> None:
            self._at = max(0, self._at - 1)
            draw()

        for value, button in enumerate(buttons, start=low):
            button.on_click(lambda _, value=value: rate(value))
        back.on_click(go_back)
        draw()
        return widgets.VBox([place, shown, widgets.HBox([*buttons, back])])
