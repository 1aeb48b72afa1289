"""The work folder of a level, read with care: strict JSON, tables without gaps, no link that leads outside, no pickle.

A file that is not there raises NotHandedIn, which a checker reports as NOT STARTED. A file that cannot be read is a
BadInput in one sentence.
"""

from __future__ import annotations

import json
import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftlab import files, strict_json
from ftlab.data import tables, values
from ftlab.errors import BadInput
from ftlab.exercises.manifest import Level
from ftlab.wording import quoted, shown, some

FORMAT = 1  # of the files; a checker reads its own only
ATTEMPT = "attempt.json"
EARLIER = "earlier"  # the folder of the tries before this one
LARGEST = {".json": 64, ".jsonl": 1024, ".csv": 512}  # MB of a file
SPLITS = ("train", "validation", "test")
TOLERANCE = 0.01  # by which the probabilities of a row may miss 1: people round
RECORD_AGAIN = "run the recorder cell of the notebook again"
MOST = 2**53  # from where on a float skips whole numbers: no count is as large
NAMES = ("profile", "model", "dataset", "text_column", "label_column")  # in attempt.json
_STRICT = strict_json.hooks(
    repeated="the name {} stands twice in it", constant="JSON has no {}", overflow="{} is too large for a number"
)


def _whole(digits: str) -> int:
    if not math.isfinite(float(digits)):
        raise ValueError(f"{shown(digits)} is too large for a number")
    return int(digits)


class NotHandedIn(Exception):
    """A file of the work folder is missing: this part of the exercise was not recorded yet."""


class WrongWord(Exception):
    """An answer of the conclusion is none of the words that it may be: what was expected, what was found, and where."""


class HandedIn:
    """What a learner has handed in for `level`: the files in the work folder `folder`, which the recorder wrote."""

    def __init__(self, level: Level, folder: Path) -> None:
        self.level = level
        self.folder = folder
        self.loaded: dict[str, Any] = {}  # models, which several checks use
        self._read: dict[str, dict[str, Any]] = {}  # the files of JSON, too

    @property
    def empty(self) -> bool:
        """Whether nothing was recorded: the folder is missing, or has no attempt.json and no other file of a level."""
        return not self.folder.is_dir() or not self.visible()

    def visible(self) -> list[Path]:
        """Return the files and folders of the try, without earlier tries and what is hidden.

        Raises BadInput if the folder cannot be read.
        """
        if not os.access(self.folder, os.R_OK | os.X_OK):
            raise BadInput(f"{self.folder} is a folder that you may not read; give yourself the permission to read it")
        return [path for path in self.folder.iterdir() if path.name != EARLIER and not path.name.startswith(".")]

    @property
    def earlier(self) -> int:
        """The number of earlier tries that the recorder has kept, each in a folder with its number as its name."""
        kept = self.folder / EARLIER
        return sum(path.name.isdecimal() and path.is_dir() for path in kept.iterdir()) if kept.is_dir() else 0

    def path(self, name: str) -> Path:
        """Return the path of the file or folder `name` in the work folder.

        Raises:
            NotHandedIn: it is not there.
            BadInput: it is a link that leads outside, a device, not readable, or larger than such a file may be.
        """
        path = self.folder / name
        if not path.exists() and not path.is_symlink():
            raise NotHandedIn(name)
        self._require_inside(path)
        if path.is_dir():
            if path.suffix in LARGEST:
                raise BadInput(f"{path} is a folder, and a file is expected there; {RECORD_AGAIN}")
            for inside in path.iterdir():
                self._require_inside(inside)
        elif not path.is_file():
            raise BadInput(f"{path} is no file; {RECORD_AGAIN}")
        elif path.suffix in LARGEST and path.stat().st_size > LARGEST[path.suffix] * 1e6:
            raise BadInput(
                f"{path} has {path.stat().st_size / 1e6:,.0f} MB; expected at most {LARGEST[path.suffix]} MB: is it "
                "from another program?"
            )
        if not os.access(path, os.R_OK):
            raise BadInput(f"{path} is closed to you; give yourself the permission to read it")
        return path

    def _require_inside(self, path: Path) -> None:
        """Raise BadInput if `path` is a link that leads outside the work folder, or to nothing."""
        try:
            inside = path.resolve().is_relative_to(self.folder.resolve())
        except (OSError, RuntimeError) as problem:  # as Python 3.11 and 3.12 say of a loop
            raise BadInput(f"{path} is a link that leads to itself; {RECORD_AGAIN}") from problem
        if not inside:
            raise BadInput(f"{path} is a link that leads outside the work folder; {RECORD_AGAIN}")
        if not path.exists():
            raise BadInput(f"{path} is a link to nothing; {RECORD_AGAIN}")

    def json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in the file `name`. Raises NotHandedIn, or BadInput if it is not one strict object."""
        if name not in self._read:  # several rules look at one file
            self._read[name] = self._read_json(name)
        return self._read[name]

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path(name)
        try:
            found = json.loads(path.read_text(encoding="utf-8"), parse_int=_whole, **_STRICT)
        except (ValueError, RecursionError) as problem:
            said = getattr(problem, "msg", None) or (
                problem if isinstance(problem, ValueError) else "nested too deeply"
            )
            raise BadInput(f"{path} is not JSON ({said}); {RECORD_AGAIN}") from problem
        if not isinstance(found, dict):
            raise BadInput(f"{path} holds no JSON object; {RECORD_AGAIN}")
        if not values.is_whole(found):
            raise BadInput(f"{path} holds half a character (a lone \\ud...); {RECORD_AGAIN}")
        return found

    @cached_property
    def attempt(self) -> dict[str, Any]:
        """attempt.json: the level, the format, the profile, the model and the data set of this try.

        Raises BadInput for another level, or another version of the recorder.
        """
        if not self.folder.is_dir():
            raise NotHandedIn(ATTEMPT)
        if not (self.folder / ATTEMPT).exists() and not self.empty:
            raise BadInput(
                f"{self.folder} has no {ATTEMPT}, which the recorder writes first; give the work folder of "
                f"{self.level.name} (--work), or run the notebook from its first cell"
            )
        found = self.json(ATTEMPT)
        if found.get("level") != self.level.name:
            raise BadInput(
                f"{self.folder} holds a try of {shown(found.get('level'))}, and you asked about {self.level.name}; "
                "give the folder of that level with --work"
            )
        if found.get("format") != FORMAT:
            raise BadInput(
                f"{self.folder / ATTEMPT} was written by another version of ftlab (format {quoted(found.get('format'))}"
                f", and this one reads {FORMAT}); run the notebook again with this version"
            )
        needed = {"profile", "model", *(name for profile in self.level.profiles.values() for name in profile)}
        for name in NAMES:
            if (given := found.get(name)) is None and name not in needed:
                continue
            if not isinstance(given, str) or not given.isprintable() or not given.strip():
                raise BadInput(
                    f"{self.folder / ATTEMPT} has {quoted(given)} as its {name}; run the notebook from its first cell"
                )
            files.named_path(given, f"another {name}, and run the notebook from its first cell")
        if found["profile"] not in self.level.profiles:
            raise BadInput(
                f"{self.folder / ATTEMPT} has {shown(found['profile'])} as its profile; expected one of "
                f"{', '.join(self.level.profiles)}; run the notebook from its first cell"
            )
        return found

    @cached_property
    def rows(self) -> pd.DataFrame:
        """rows.jsonl of a classifier: id, split, text and label (its name). An id stands once in a split."""
        frame = self._texts("rows.jsonl", ("id", "split", "text", "label"))
        if len(odd := frame[~frame["split"].isin(SPLITS)]):
            raise BadInput(
                f"{self.folder / 'rows.jsonl'}, line {odd.index[0] + 1}: the split {quoted(odd['split'].iloc[0])}; "
                f"expected one of {', '.join(SPLITS)}; {RECORD_AGAIN}"
            )
        self._once(frame, ["id", "split"], "rows.jsonl")
        return frame

    def part(self, split: str) -> pd.DataFrame:
        """Return the rows of one split, in their order."""
        return self.rows[self.rows["split"] == split].reset_index(drop=True)

    @property
    def labels(self) -> list[str]:
        """The names of the labels, sorted."""
        return sorted(self.rows["label"].unique())

    def instructions(self, name: str) -> pd.DataFrame:
        """Return the instruction rows in the file `name`: id, instruction, input and, for rows, output."""
        output = () if name == "prompts.jsonl" else ("output",)
        frame = self._texts(name, ("id", "instruction", "input", *output), blank=("instruction", "input", "output"))
        self._once(frame, ["id"], name)
        return frame

    def predictions(self, name: str) -> pd.DataFrame:
        """Return the predictions in the file `name`: id, label, prediction, and p_<label> for each label, as numbers.

        Raises:
            NotHandedIn: the file is not there.
            BadInput: a column is missing, an id stands twice, or a line does not hold probabilities.
        """
        path = self.path(name)
        columns = [f"p_{label}" for label in self.labels]
        frame = tables.read_table(path, ["id", "label", "prediction"], advice=RECORD_AGAIN)
        tables.require_columns(path, frame, columns, "record a column p_<label> for each label of the rows")
        if (without := frame["id"].isna()).any():
            raise BadInput(f"{path}, line {int(without.to_numpy().argmax()) + 2}: the row has no id; {RECORD_AGAIN}")
        self._once(frame, ["id"], name)
        numbers = frame[columns].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
        wrong = ~np.isfinite(numbers).all(axis=1) | (np.abs(numbers.sum(axis=1) - 1) > TOLERANCE) | (numbers < 0).any(1)
        if wrong.any():
            line = int(wrong.argmax())
            raise BadInput(
                f"{path}, line {line + 2}: the probabilities {', '.join(map(str, frame[columns].iloc[line]))}; "
                "expected numbers from 0 to 1 whose sum is 1 (the softmax of the logits)"
            )
        return frame[["id", "label", "prediction"]].fillna("").assign(**dict(zip(columns, numbers.T, strict=True)))

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the objects of the JSONL file `name`. Raises NotHandedIn, or BadInput for a line that is none."""
        return list(tables.json_objects(self.path(name)))

    def numbers(self, name: str, *keys: str) -> list[float]:
        """Return numbers of the JSON file `name`: the value at the path `keys`, a number or a list of numbers.

        Raises BadInput if there is none.
        """
        found: Any = self.json(name)
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        several = found if isinstance(found, list) else [found]
        if not several or any(isinstance(one, bool) or not isinstance(one, int | float) for one in several):
            raise BadInput(
                f"{self.folder / name} has no number at {'.'.join(keys)} (it has {quoted(found)}); {RECORD_AGAIN}"
            )
        return [float(one) for one in several]

    def number(self, name: str, key: str, *, least: float = 0, missing: float | None = None) -> float:
        """Return the one number `key` in the JSON file `name`.

        Args:
            name: of the file.
            key: of the number.
            least: the smallest that it can be.
            missing: the number where there is none, or null; None if there must be one.

        Raises:
            NotHandedIn: the file is not there.
            BadInput: it is no number, or one that is too small or too large.
        """
        if missing is not None and self.json(name).get(key) is None:
            return missing
        (found, *others) = self.numbers(name, key)
        if others or not least <= found <= MOST:
            raise BadInput(
                f"{self.path(name)} has {quoted(self.json(name)[key])} as its {key}; expected a number from {least:g}; "
                f"{RECORD_AGAIN}"
            )
        return found

    def texts(self, name: str, key: str) -> list[str] | None:
        """Return the list of texts `key` in the JSON file `name`, None if there is none; BadInput if it is another."""
        found = self.json(name).get(key)
        if found is not None and not (isinstance(found, list) and all(isinstance(one, str) for one in found)):
            raise BadInput(
                f"{self.path(name)} has {quoted(found)} as its {key}; expected a list of texts; {RECORD_AGAIN}"
            )
        return found

    def reason(self, name: str) -> str:
        """Return the sentence `because` in the JSON file `name`; "" if there is none."""
        found = self.json(name).get("because")
        return found.strip() if isinstance(found, str) else ""

    def word(self, name: str, key: str, known: tuple[str, ...]) -> str:
        """Return the answer `key` in the JSON file `name`. Raises WrongWord unless it is one of `known`."""
        found = self.json(name).get(key)
        if found not in known:
            raise WrongWord(f"{key}: {', '.join(known[:-1])} or {known[-1]}", quoted(found), name)
        return str(found)

    def _texts(self, name: str, columns: tuple[str, ...], blank: tuple[str, ...] = ()) -> pd.DataFrame:
        """Return the columns of a JSONL file, all text; those in `blank` may be empty."""
        path = self.path(name)
        lines = self.lines(name)
        if not lines:
            raise BadInput(f"{path} has no rows; {RECORD_AGAIN}")
        for number, line in enumerate(lines, start=1):
            for column in columns:
                value = line.get(column)
                if not isinstance(value, str) or not (value.strip() or column in blank):
                    what = "has no" if value is None or value == "" else f"has {quoted(value)} as its"
                    raise BadInput(f"{path}, line {number}: the row {what} {column}; expected a text; {RECORD_AGAIN}")
        return pd.DataFrame(lines)[list(columns)]

    def _once(self, frame: pd.DataFrame, key: list[str], name: str) -> None:
        again = frame.duplicated(key)
        if again.any():
            twice = frame.loc[again, "id"]
            raise BadInput(
                f"{self.folder / name} has {some(twice.unique())} more than once; record each row once: {RECORD_AGAIN}"
            )
