"""Adapt a budget to the rows and the model, where nobody set a value by hand: lengths, sizes, frozen layers.

A profile's lengths were chosen for its own task and model. The answers of another file may be ten times as long; a
`max_length` that the file's owner never set would reject them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ftlab.course import profiles
from ftlab.data import prompts, sources, tasks
from ftlab.errors import BadInput
from ftlab.models import loading

WHOLE = 256  # tokens up to which a row is kept whole; of a longer one the prompt is cut, and the lesson counts it
LONGEST = 512  # tokens up to which max_length follows the answers; a training on longer rows has to be asked for
ROOM = 32  # tokens of a prompt that stand before the longest answer
MOST_NEW = 256  # tokens up to which max_new_tokens follows the answers
STEP = 8  # lengths are multiples of it
NAMED = 3  # how many rows a refusal names


def fitted(budget: profiles.Budget, *, rows: bool = True) -> profiles.Budget:
    """Return the budget with lengths and sizes that fit its model and its rows; its field `fitted` names what changed.

    max_length shrinks to the model's positions, and grows where another task or model than the profile's own has longer
    rows. max_new_tokens grows with the answers. frozen_layers shrinks to two thirds of a model with fewer layers. The
    sizes of the splits grow if a file of your own, or a data set of the hub, has more classes than they hold. For a
    task of the course, `left_out` names the rows that are still too long. The model is fetched if it is not in the
    cache, and so is a data set of the hub.

    Args:
        budget: as `profiles.resolve` returns it.
        rows: whether to read the rows; without them only the model is considered.

    Raises:
        BadInput: as `profiles.require_fitting`, and for rows of your own file that are too long, with their ids.
    """
    budget = _within_depth(_within_positions(budget))
    profiles.require_fitting(budget)
    if not rows:
        return budget
    return _holding_its_rows(budget) if "task" in budget.settings else _holding_its_classes(budget)


def may_change(budget: profiles.Budget) -> bool:
    """Return whether `fitted` has to read the rows of `budget`; with the profile's own task and model it has not."""
    return bool({"task", "dataset", "model", "max_length", "max_new_tokens"} & budget.overrides.keys())


def _within_positions(budget: profiles.Budget) -> profiles.Budget:
    if "max_length" not in budget.settings or "max_length" in budget.overrides:
        return budget
    most = loading.max_positions(budget.model)
    return _with(budget, max_length=min(budget.max_length, most))


def _within_depth(budget: profiles.Budget) -> profiles.Budget:
    if "frozen_layers" not in budget.settings or "frozen_layers" in budget.overrides:
        return budget
    depth = loading.depth(budget.model)
    return budget if budget.frozen_layers <= depth else _with(budget, frozen_layers=max(1, 2 * depth // 3))


def _holding_its_classes(budget: profiles.Budget) -> profiles.Budget:
    """Return the budget with splits large enough to hold each class of your own file or of a data set of the hub."""
    if budget.dataset in sources.SOURCES:
        return budget
    columns: dict[str, Any] = budget.columns()
    labels = sources.read(budget.dataset, most=budget.source_rows, **columns)["label"]
    least = {"rows": 2 * labels.nunique(), "validation_rows": labels.nunique(), "test_rows": labels.nunique()}
    asked = {
        name: max(budget.settings[name], size)
        for name, size in least.items()
        if budget.settings.get(name) and name not in budget.overrides  # 0 stands for all, which is enough
    }
    return _with(budget, **asked)


def _holding_its_rows(budget: profiles.Budget) -> profiles.Budget:
    table = tasks.part(budget.task, budget.settings.get("source_rows", 0))
    before, after = _lengths(table, budget.model)
    most = loading.max_positions(budget.model)
    if "max_length" not in budget.overrides and {"task", "model"} & budget.overrides.keys():
        asked = max(min(int((before + after).max()), WHOLE), int(after.max()) + ROOM)
        limit = most if budget.profile == "smoke" else min(most, LONGEST)
        budget = _with(budget, max_length=max(budget.max_length, min(_rounded(asked), limit)))
    if _follows_the_answers(budget):
        budget = _with(budget, max_new_tokens=min(_rounded(int(after.max())), MOST_NEW, max(1, most // 2)))
    cut, deaf = after >= budget.max_length, before + budget.max_new_tokens > most
    if budget.task in tasks.TASKS:
        return replace(budget, left_out=tuple(table["id"][cut | deaf]))
    ids = table["id"].to_numpy()
    if cut.any():
        needed = int(after.max()) + ROOM
        advice = f"set max_length to {needed}, or leave them out" if needed <= most else (
            f"{budget.model} has positions for {most}, so shorten them, or leave them out"
        )  # fmt: skip
        raise BadInput(
            f"max_length {budget.max_length} would cut the answers of {_counted(ids, cut)} of {budget.task} "
            f"({_named(ids, cut)}), of which the longest has {after.max()} tokens with EOS; {advice}: a cut answer "
            "teaches not to stop"
        )
    if deaf.any():
        raise BadInput(
            f"the {most} positions of {budget.model} have no room for an answer of max_new_tokens "
            f"{budget.max_new_tokens} after the prompts of {_counted(ids, deaf)} of {budget.task} "
            f"({_named(ids, deaf)}); shorten them, or leave them out"
        )
    return budget


def _follows_the_answers(budget: profiles.Budget) -> bool:
    """Return whether max_new_tokens was chosen for another task. In smoke it stays small."""
    if budget.profile == "smoke" or "max_new_tokens" in budget.overrides or "task" not in budget.overrides:
        return False
    own = profiles.table()[budget.lesson][budget.profile]["task"]
    return budget.task != own and "max_new_tokens" not in profiles.for_dataset(
        budget.lesson, budget.profile, budget.task
    )


def _lengths(table: pd.DataFrame, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the tokens of its prompt, and of its answer with EOS: what training reads."""
    tokenizer = loading.tokenizer(model)
    tokenizer.model_max_length = sys.maxsize  # or it warns of a long row, which is here to be counted
    rows = ({str(name): value for name, value in row.items()} for row in table.to_dict("records"))
    pieces = [prompts.pieces(row, tokenizer) for row in rows]
    return np.array([len(prompt) for prompt, _ in pieces]), np.array([len(answer) for _, answer in pieces])


def _with(budget: profiles.Budget, **lengths: Any) -> profiles.Budget:
    changed = {name: value for name, value in lengths.items() if budget.settings[name] != value}
    names = (*budget.fitted, *(name for name in changed if name not in budget.fitted))
    return replace(budget, settings={**budget.settings, **changed}, fitted=names)


def _rounded(tokens: int) -> int:
    return -(-tokens // STEP) * STEP


def _counted(ids: Collection[str], which: np.ndarray) -> str:
    return f"{int(which.sum()):,} of the {len(ids):,} rows"


def _named(ids: np.ndarray, which: np.ndarray) -> str:
    found = ids[which]
    return ", ".join(found[:NAMED]) + (" and more" if len(found) > NAMED else "")
