"""The rating sheet as widgets: one answer at a time, five buttons, all of it by keyboard if you like."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

from ftlab.evaluation.rating import SCALE, Sheet
from ftlab.progress import HEADLESS

WORDS = {1: "useless", 2: "poor", 3: "middling", 4: "good", 5: "just right"}


class Rater:
    """Ratings of the answers of a sheet, from a person at the widgets or from a filled-in form.

    With `form` (a path) the ratings are read from it. Where nobody watches there are no widgets. `ratings` holds what
    has been given so far, None where nothing was.
    """

    def __init__(self, sheet: Sheet, *, form: str | Path | None = None) -> None:
        self.sheet = sheet
        self.ratings: list[int | None] = [None] * len(sheet.items)
        self._at = 0
        self._box: Any = None
        self._form = form
        if form:
            self.ratings = list(sheet.read_form(form))

    @property
    def missing(self) -> int:
        """How many answers have no rating yet."""
        return sum(value is None for value in self.ratings)

    def save(self, path: Path) -> None:
        """Write the ratings as a form, which a headless run can read."""
        self.sheet.write_form(path, self.ratings)

    def show(self) -> Any:
        """The widgets; a sentence where there is nothing to click: ratings from a form, or nobody at the screen."""
        if self._form:
            return print(f"{len(self.ratings)} ratings were read from the form")
        if HEADLESS in os.environ:
            return print(f"{len(self.ratings)} answers wait for a rating: run this cell in Jupyter, or give a form")
        return self.widget()

    def widget(self) -> Any:
        """The widgets. Tab moves between the buttons, Enter or the space bar presses one; 'back' mends a slip.

        They are made once: two sets would share the ratings, and one of them show an answer that is not being rated.
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
            box = "white-space:pre-wrap;line-height:1.4;padding:6px 10px;margin:4px 0"
            shown.value = (
                f"<div style='{box};color:#555'>{html.escape(item.prompt)}</div>"
                f"<div style='{box};border-left:4px solid #1f77b4;background:#e8f1fa;color:#111'>"
                f"{html.escape(item.answer) or '<i>(an empty answer)</i>'}</div>"
            )

        # A double click is on its way before its button can be disabled: the bounds hold here too.
        def rate(value: int) -> None:
            if self._at < len(self.ratings):
                self.ratings[self._at] = value
                self._at += 1
                draw()

        def go_back(_: Any) -> None:
            self._at = max(0, self._at - 1)
            draw()

        for value, button in enumerate(buttons, start=low):
            button.on_click(lambda _, value=value: rate(value))
        back.on_click(go_back)
        draw()
        return widgets.VBox([place, shown, widgets.HBox([*buttons, back])])
