"""The rows of lessons 02 and 05 as files, for code without ftlab: `python -m ftlab.course.handout FOLDER`.

The scripts in docs/plain train on them. The rows are drawn by the same functions with the same budgets as in the
lessons, and the test split is opened to be handed out.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab import files
from ftlab.course import auto_budget, lesson, profiles
from ftlab.data import prompts, sources, splits, tasks
from ftlab.errors import BadInput, CourseError
from ftlab.models import loading
from ftlab.progress import quiet

if TYPE_CHECKING:
    from datasets import Dataset

LESSONS = {"classification": "text_classification", "lora": "lora_phi2"}  # folder: whose rows


@dataclass(frozen=True)
class Handout:
    """What one script gets: the folder of its rows, their number in each split, and the model with its folder."""

    folder: Path
    sizes: dict[str, int]
    model: str
    weights: Path


def write(folder: Path, *, profile: str = "cpu", seed: int = 0) -> dict[str, Handout]:
    """Write the rows of lesson 02 and lesson 05 into a new `folder`.

    Args:
        folder: gets `classification`, with train.csv, validation.csv and test.csv (columns text and label, by name),
            and `lora`, with train.jsonl and so on (columns prompt and completion). It must be new or empty.
        profile: smoke, cpu or gpu: whose budgets are used.
        seed: of the draw.

    Returns:
        By the names of the two folders, what is in them, and the model of the lesson.

    Raises:
        BadInput: the folder cannot be written, is not empty, or the profile or seed is unknown.
        AssetError: rows or weights cannot be fetched.
    """
    found = {}
    with files.atomic(folder, folder=True, replace=False, error=BadInput) as partial:
        for name, slug in LESSONS.items():
            budget = auto_budget.fitted(profiles.resolve(slug, profile, {"seed": seed}))
            parts = {"classification": classification_rows, "lora": instruction_rows}[name](budget)
            (partial / name).mkdir()
            for split, rows in parts.items():
                _write_rows(rows, partial / name, split)
            found[name] = Handout(
                folder / name,
                {split: len(rows) for split, rows in parts.items()},
                budget.model,
                loading.folder(budget.model),
            )
    return found


def classification_rows(budget: profiles.Budget) -> dict[str, pd.DataFrame]:
    """Return train, validation and test of lesson 02 with a `budget` of it: columns id, text and label (its name)."""
    columns: dict[str, Any] = budget.columns()
    source = sources.load(
        budget.dataset, from_hub=budget.from_hub, seed=budget.seed, most=budget.source_rows, **columns
    )
    drawn = splits.split(
        source,
        rows=budget.rows or None,
        validation_rows=budget.validation_rows,
        test_rows=budget.test_rows or None,
        seed=budget.seed,
        at_most=budget.sizes_are_bounds,
    )
    names = drawn.label_names
    return {
        split: rows.to_pandas()[["id", "text", "label"]].assign(label=[names[label] for label in rows["label"]])
        for split, rows in _opened(drawn).items()
    }


def instruction_rows(budget: profiles.Budget) -> dict[str, pd.DataFrame]:
    """Return train, validation and test of lesson 05 with a `budget` of it: columns id, prompt and completion."""
    drawn = tasks.load(
        budget.task,
        rows=budget.rows or None,
        validation_rows=budget.validation_rows,
        test_rows=budget.test_rows,
        seed=budget.seed,
        at_most=budget.sizes_are_bounds,
        most=budget.source_rows,
        without=budget.left_out,
    )
    return {split: pd.DataFrame(map(_pair, rows)) for split, rows in _opened(drawn).items()}


def _pair(row: Mapping[str, Any]) -> dict[str, str]:
    return {"id": row["id"], "prompt": str(prompts.ALPACA.prompt(row)), "completion": row["output"]}


def _opened(drawn: splits.Splits) -> dict[str, Dataset]:
    test = drawn.open_test("to judge a script without ftlab on the rows that judge the lesson")
    return {"train": drawn.train, "validation": drawn.validation, "test": test}


def _write_rows(rows: pd.DataFrame, folder: Path, split: str) -> None:
    """Write `rows` without their ids: what the scripts read has only the columns that they use."""
    if "label" in rows:
        rows[["text", "label"]].to_csv(folder / f"{split}.csv", index=False, lineterminator="\n", encoding="utf-8")
        return
    lines = (files.to_json(row) for row in rows[["prompt", "completion"]].to_dict("records"))
    (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def main(arguments: list[str] | None = None) -> int:
    """Write the handout into the folder of the command line, and print how to train on it. Return the exit code.

    Args:
        arguments: of the command line; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ftlab.course.handout", description="Write the rows of lessons 02 and 05 for docs/plain."
    )
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--profile", default="cpu", help="smoke, cpu (the default) or gpu: whose budget is used")
    options = parser.parse_args(arguments)
    quiet()
    try:
        lesson.go_offline_unless(options.profile == "gpu")
        for name, handout in write(options.folder, profile=options.profile).items():
            counts = ", ".join(f"{split} {count:,}" for split, count in handout.sizes.items())
            print(f"{handout.folder}: {counts} rows")
            script = str(Path("docs", "plain", f"{name}.py"))
            paths = map(str, (handout.weights, handout.folder, options.folder / f"my-{name}"))
            quoted = subprocess.list2cmdline if os.name == "nt" else shlex.join
            print(f"  {quoted(['python', script, *paths])}")
    except CourseError as problem:
        print(f"ftlab: {problem}", file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
