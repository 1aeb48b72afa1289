"""An exercise in a notebook: `level1 = begin("level1", globals())`, then `level1.check()`, `.hint()`, `.solution()`."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ftlab.course import profiles
from ftlab.course.lesson import go_offline_unless
from ftlab.course.rating_form import Rater
from ftlab.data import assets, sources
from ftlab.errors import BadInput
from ftlab.exercises import checker, instruction_checks, manifest, rating_checks
from ftlab.exercises.handed_in import HandedIn, NotHandedIn
from ftlab.exercises.outcomes import Result, Status
from ftlab.exercises.recorder import EARLIER, Recorder
from ftlab.models import devices, loading
from ftlab.progress import quiet

WORK = "work"
WORK_FOLDER = "FTLAB_WORK_FOLDER"  # where levels keep their work folders, instead of `work`
SETTINGS = ("profile", "seed", "dataset", "text_column", "label_column", "model", "ratings")


class Exercise:
    """One level in a notebook. Made by `begin`.

    Attributes:
        level: what levels.toml says of it.
        folder: the work folder.
        record: the recorder, which writes the work folder.
        model: the name of the model to begin with.
        dataset: the name of the data set; "" in level 3.
        seed: of every random draw.
    """

    def __init__(self, level: manifest.Level, folder: Path, settings: Mapping[str, Any]) -> None:
        self.level = level
        self.folder = folder
        self.profile: str = settings["profile"]
        self.model: str = settings["model"]
        self.dataset: str = settings.get("dataset") or ""
        self.seed: int = settings["seed"]
        self._form: str | None = settings.get("ratings")
        self._columns = {name: settings[name] for name in ("text_column", "label_column") if settings.get(name)}
        about = {"profile": self.profile, "seed": self.seed, "model": self.model}
        if self.dataset:
            about |= {"dataset": self.dataset, **self._columns}
        self.record = Recorder(level, folder, about)
        self._hints: Counter[str] = Counter()
        self._result: Result | None = None  # of the last check, and what was recorded then
        self._checked: list[tuple[str, int, int]] = []

    def columns(self) -> dict[str, str]:
        """Return the column names of your own file, as keyword arguments of `sources.load`."""
        return dict(self._columns)

    def check(self) -> Result:
        """Check what was recorded so far, and return the answer of each rule."""
        self._result = checker.check(self.level, self.folder)
        self._checked = self._state()
        return self._result

    def hint(self, rule: str | None = None) -> None:
        """Print the next of three hints: for the rule `rule`, or for the first one that does not hold yet."""
        name = rule or self._first()
        if name is None:
            print("Every rule holds; there is nothing to hint at.")
            return
        if name not in [one.id for one in self.level.rules]:
            raise BadInput(f"there is no rule {name!r}; there are {', '.join(one.id for one in self.level.rules)}")
        hints = self.level.rule(name).hints
        place = min(self._hints[name], len(hints) - 1)
        self._hints[name] += 1
        print(f"{name}, hint {place + 1} of {len(hints)}: {hints[place]}")
        if place == len(hints) - 1:
            print(f"That was the last one; {self.level.name}.solution() shows the cell.")

    def solution(self, step: str | None = None) -> None:
        """Print the solution of a step (the name of a cell, or "all"); without `step`, of the first that is open."""
        from ftlab.exercises.starters import solution_cells

        cells = solution_cells(self.level)
        if step is None:
            name = self._first()
            wanted = self.level.rule(name).step if name else self.level.steps[0]
            step = wanted if wanted in cells else next(iter(cells))
        if step != "all" and step not in cells:
            raise BadInput(f"there is no step {step!r}; there are {', '.join(cells)}, and all")
        for name, code in cells.items():
            if step in (name, "all"):
                print(f"# {name}\n{code}\n")

    def rate(self, rated: str | None = None) -> Any:
        """Show the rating form of level 3, and return it: the answers of both models, in a random order, without names.

        Each click is saved in the work folder at once. Ratings that were given before, in this try or an earlier one,
        are there again for answers that are still the same.

        Args:
            rated: the path of a filled-in form, for a run without Jupyter.

        Returns:
            The form (a Rater), or `...` while the answers of a model are not recorded.

        Raises:
            BadInput: a form is of other answers, or has a rating that is not a whole number from 1 to 5; or the answers
                are not as the recorder writes them.
        """
        from IPython.display import display

        work = HandedIn(self.level, self.folder)
        try:
            asked = work.instructions("prompts.jsonl")
            given = [instruction_checks.given_answers(work, name)["answers"] for name in rating_checks.MODELS]
        except NotHandedIn as missing:
            print(f"NOT STARTED: the rating waits for {missing}")
            return ...
        sheet = rating_checks.draw(asked, *given, seed=self.seed)
        form = rated or self._form
        rater = Rater(sheet, form=form, keep=self.folder / rating_checks.FORM)
        if not form:
            for path in self._forms():
                rater.recall(path)
        if (shown := rater.show()) is not None:
            display(shown)
        return rater

    def _forms(self) -> list[Path]:
        """Return the forms with ratings that were given before, the newest first: of this try, then of earlier ones."""
        earlier = [
            path for path in (self.folder / EARLIER).glob(f"*/{rating_checks.FORM}") if path.parent.name.isdecimal()
        ]
        earlier.sort(key=lambda path: int(path.parent.name), reverse=True)
        return [path for path in (self.folder / rating_checks.FORM, *earlier) if path.is_file()]

    def _state(self) -> list[tuple[str, int, int]]:
        """Return name, size and time of each file that was recorded: equal if nothing was recorded since."""
        there = [path for pattern in ("*", "*/*", "*/model/*") for path in self.folder.glob(pattern)]
        return sorted(
            (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in there if path.is_file()
        )  # fmt: skip

    def _first(self) -> str | None:
        """Return the id of the first rule that asks for something."""
        unchanged = self._result is not None and self._state() == self._checked
        result = self._result if unchanged and self._result else self.check()
        order = (Status.FIX, Status.NOT_STARTED, Status.NOT_CHECKED)
        return next((outcome.rule.id for status in order for outcome in result.of(status)), None)


def begin(name: str, parameters: Mapping[str, Any] | None = None, **overrides: Any) -> Exercise:
    """Begin a level in a notebook: read its parameters, silence the libraries, go offline if it needs no hub, seed.

    Args:
        name: level1, level2 or level3.
        parameters: the notebook's `globals()`: of these, the parameters of the level are taken (SETTINGS).
        overrides: parameters by name; None stands for the profile's.

    Returns:
        The exercise; its work folder is `work/<level>` beside the folder of the exercises.

    Raises:
        BadInput: a parameter cannot be used.
    """
    level = manifest.level(name)
    given = {key: value for key, value in {**(parameters or {}), **overrides}.items() if key in SETTINGS}
    given = {key: value for key, value in given.items() if value is not None}
    profile = given.get("profile", "cpu")
    if profile not in level.profiles:
        raise BadInput(f"there is no profile {profile!r}; there are {', '.join(level.profiles)}")
    settings = {"seed": 0, **level.profiles[profile], **given, "profile": profile}
    for key in SETTINGS:
        if key in profiles.PARAMETERS and settings.get(key) is not None:
            settings[key] = profiles.PARAMETERS[key].parse(key, settings[key])
    quiet()
    devices.use_one_gpu()
    columns = {key: settings[key] for key in ("text_column", "label_column") if settings.get(key)}
    needed = loading.required_assets(settings["model"])
    if "dataset" in settings:
        sources.check(settings["dataset"], **columns)
        needed += sources.required_assets(settings["dataset"])
    loading.check(settings["model"])
    go_offline_unless(loading.comes_from_hub(settings["model"]) or sources.comes_from_hub(settings.get("dataset", "")))
    assets.fetch(needed)
    settings["model"] = _absolute(settings["model"], loading.MODELS)
    if "dataset" in settings:
        settings["dataset"] = _absolute(settings["dataset"], sources.SOURCES)
    random.seed(settings["seed"])
    np.random.seed(settings["seed"])
    return Exercise(level, work_folder(level.name), settings)


def _absolute(name: str, known: Collection[str]) -> str:
    """Return a name that is a path as an absolute one, for a check in another folder; else the name itself."""
    path = Path(name).expanduser()
    return str(path.absolute()) if name not in known and path.exists() else name


def work_folder(name: str) -> Path:
    """Return the work folder of the level called `name`, whether or not it is there.

    It is `work/<level>` in the folder above `exercises`, or in the current folder; a solution has one of its own.
    """
    if WORK_FOLDER in os.environ:
        return Path(os.environ[WORK_FOLDER]).absolute() / name
    here = Path.cwd()
    if here.name == "solutions":
        return here.parent.parent / WORK / "solutions" / name
    return (here.parent if here.name == "exercises" else here) / WORK / name
